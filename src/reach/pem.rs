//! Files in PEM. What is in a key is never said.

use crate::failure::Failure;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{fs::File, io::Read};

/// What a file may weigh: bundles of all public roots come to a quarter of it.
const BYTES_MAX: u64 = 1 << 20;

/// A regular file, whole; a pipe would hold up whoever reads it.
pub(super) fn read(path: &str) -> Result<Vec<u8>, Failure> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        return Err("it is no file".into());
    }
    if about.len() > BYTES_MAX {
        return Err(format!("it has {} bytes, more than {BYTES_MAX}", about.len()).into());
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All certificates of a file, one at least.
pub(super) fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| format!("a certificate cannot be read: {error}"))?;
    if found.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(found)
}

/// The first private key of a file, in PKCS #8, PKCS #1 or SEC 1.
pub(super) fn key(path: &str) -> Result<PrivateKeyDer<'static>, Failure> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| "there is no private key in it".into())
}
