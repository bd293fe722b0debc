//! Certificates for tests, made when they are needed: authorities, and what they issue.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::fs;
use std::path::{Path, PathBuf};

/// Somebody who issues certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// From when until when, in years.
pub type Years = (i32, i32);

/// Now, and for as long as this repository is of interest.
pub const NOW: Years = (2000, 2999);
pub const PAST: Years = (2000, 2001);
pub const FUTURE: Years = (2900, 2999);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = params(name, &[], NOW);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Writes its own certificate.
    pub fn write(&self, path: &Path) -> String {
        fs::write(path, self.0.pem()).expect("written");
        path.display().to_string()
    }

    /// Issues a certificate for these names and addresses, into `NAME.pem` and `NAME.key`.
    pub fn issue(&self, folder: &Path, name: &str, names: &[&str], years: Years) -> [String; 2] {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(name, names, years).signed_by(&key, &self.0).expect("issued");
        let files = [("pem", certificate.pem()), ("key", key.serialize_pem())];
        files.map(|(extension, text)| {
            let path: PathBuf = folder.join(format!("{name}.{extension}"));
            fs::write(&path, text).expect("written");
            path.display().to_string()
        })
    }
}

fn params(name: &str, names: &[&str], (from, until): Years) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    params
}
