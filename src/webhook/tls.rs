//! The webhook's certificate, which others renew: it is read again when its files have changed. The
//! server's half of rustls.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// How often it is seen whether the files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Certificate {
    files: [PathBuf; 2],
    changed: [Option<SystemTime>; 2],
    looked: Instant,
    config: Arc<ServerConfig>,
}

impl Certificate {
    /// Reads chain and key; the error names the file.
    pub(super) fn read(chain: &Path, key: &Path) -> Result<Self, String> {
        let files = [chain.to_owned(), key.to_owned()];
        let changed = changed(&files);
        Ok(Self { config: config(&files)?, changed, looked: Instant::now(), files })
    }

    /// The one to use now. One that cannot be read, or does not fit its key, leaves the old one: a
    /// renewal writes two files, one after the other.
    pub(super) fn now(&mut self) -> Arc<ServerConfig> {
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            let changed = changed(&self.files);
            if changed != self.changed {
                match config(&self.files) {
                    Ok(config) => {
                        (self.config, self.changed) = (config, changed);
                        eprintln!("netra webhook: another certificate");
                    }
                    Err(error) => eprintln!("netra webhook: the old certificate stays: {error}"),
                }
            }
        }
        Arc::clone(&self.config)
    }
}

fn changed(files: &[PathBuf; 2]) -> [Option<SystemTime>; 2] {
    [&files[0], &files[1]].map(|path| fs::metadata(path).and_then(|it| it.modified()).ok())
}

fn config([chain, key]: &[PathBuf; 2]) -> Result<Arc<ServerConfig>, String> {
    let said = |path: &Path, error: String| format!("{}: {error}", path.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect)
        .map_err(|error| said(chain, error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| said(key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(certificates, secret))
        .map_err(|error| said(chain, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
