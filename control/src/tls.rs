//! TLS with a certificate that may change: its files are looked at again, and a bad pair leaves the
//! last good one.

use crate::changed::changed;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate, its key, and where they are.
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    read: Mutex<Read>,
}

struct Read {
    looked: Instant,
    changed: [Option<SystemTime>; 2],
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads both files.
    ///
    /// # Errors
    /// One cannot be read or is not what it should be, or they do not belong together.
    pub(crate) fn read(certificate: &Path, key: &Path) -> io::Result<Self> {
        let read = Read {
            looked: Instant::now(),
            changed: [certificate, key].map(changed),
            config: config(certificate, key)?,
        };
        Ok(Self { certificate: certificate.into(), key: key.into(), read: Mutex::new(read) })
    }

    /// For the next connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.looked.elapsed() >= LOOK_EVERY {
            read.looked = Instant::now();
            let now = [&self.certificate, &self.key].map(|path| changed(path));
            if now != read.changed {
                match config(&self.certificate, &self.key) {
                    Ok(config) => (read.config, read.changed) = (config, now),
                    Err(why) => eprintln!("netra-control: {why}; the certificate before stands"),
                }
            }
        }
        read.config.clone().into()
    }
}

fn config(certificate: &Path, key: &Path) -> io::Result<Arc<ServerConfig>> {
    let refuse = |path: &Path, why: String| io::Error::other(format!("{}: {why}", path.display()));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|why| refuse(certificate, why.to_string()));
    let private = PrivateKeyDer::from_pem_file(key).map_err(|why| refuse(key, why.to_string()))?;
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain?, private)
        .map(Arc::new)
        .map_err(|why| refuse(certificate, why.to_string()))
}
