//! TLS to receivers, by rustls: whom netra trusts, who it says that it is, and what is said when the
//! two do not come together.

use super::{Named, Reach, Stamp, pem};
use crate::failure::Failure;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use std::{error::Error as StdError, io, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

const CA_ALLOWED: &str = "a readable file with certificates in PEM";
const IDENTITY_ALLOWED: &str = "a readable file with a certificate in PEM, the receiver's way of \
    knowing netra";
const KEY_ALLOWED: &str = "a readable file with the private key of that certificate in PEM";

/// TLS to one receiver, made when it is first dialled, and again when a file has changed.
#[derive(Debug)]
pub(crate) struct Tls {
    reach: Reach,
    name: ServerName<'static>,
    /// Offered in the handshake: `h2` or `http/1.1`.
    alpn: &'static [u8],
    made: Option<(Vec<Option<Stamp>>, Arc<ClientConfig>)>,
}

impl Tls {
    /// To `host`, by name or address.
    pub(crate) fn new(reach: &Reach, host: &str, is_http2: bool) -> Result<Self, Failure> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| format!("no certificate can be for {host}"))?;
        let alpn: &[u8] = if is_http2 { b"h2" } else { b"http/1.1" };
        Ok(Self { reach: reach.clone(), name, alpn, made: None })
    }

    /// Shakes hands over a stream.
    pub(crate) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: S,
    ) -> Result<TlsStream<S>, Failure> {
        let config = self.config()?;
        let begun = TlsConnector::from(config).connect(self.name.clone(), stream).await;
        begun.map_err(|error| why(&error).unwrap_or_else(|| error.to_string()).into())
    }

    fn config(&mut self) -> Result<Arc<ClientConfig>, Failure> {
        let stamps: Vec<_> = self.files().map(|file| Stamp::of(&file.path)).collect();
        if let Some((known, config)) = &self.made
            && *known == stamps
        {
            return Ok(Arc::clone(config));
        }
        let mut config = configured(&self.reach, roots(self.reach.ca.as_ref())?)?;
        config.alpn_protocols = vec![self.alpn.to_vec()];
        let config = Arc::new(config);
        self.made = Some((stamps, Arc::clone(&config)));
        Ok(config)
    }

    fn files(&self) -> impl Iterator<Item = &Named> {
        let identity = self.reach.identity.iter().flat_map(|(one, other)| [one, other]);
        self.reach.ca.iter().chain(identity)
    }
}

/// Looks at the files of a plan; the error is a setting and what is allowed there. The roots of the
/// machine are not read for it.
pub(super) fn check(reach: &Reach) -> Result<(), (&'static str, String)> {
    if let Some(ca) = &reach.ca {
        let read = pem::certificates(&ca.path).and_then(trusted);
        read.map_err(|why| (ca.setting, format!("{CA_ALLOWED}; {why}")))?;
    }
    let Some((certificate, key)) = &reach.identity else { return Ok(()) };
    pem::certificates(&certificate.path)
        .map_err(|why| (certificate.setting, format!("{IDENTITY_ALLOWED}; {why}")))?;
    pem::key(&key.path).map_err(|why| (key.setting, format!("{KEY_ALLOWED}; {why}")))?;
    let made = configured(reach, RootCertStore::empty());
    made.map(drop).map_err(|why| (key.setting, format!("{KEY_ALLOWED}; {why}")))
}

fn configured(reach: &Reach, roots: RootCertStore) -> Result<ClientConfig, Failure> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &reach.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let of = |file: &Named, why: Failure| format!("{}: {why}", file.path);
    let chain = pem::certificates(&certificate.path).map_err(|why| of(certificate, why))?;
    let private = pem::key(&key.path).map_err(|why| of(key, why))?;
    let with = builder.with_client_auth_cert(chain, private);
    with.map_err(|error| format!("{} and {}: {error}", certificate.path, key.path).into())
}

fn roots(ca: Option<&Named>) -> Result<RootCertStore, Failure> {
    if let Some(ca) = ca {
        let read = pem::certificates(&ca.path).and_then(trusted);
        return read.map_err(|why| format!("{}: {why}", ca.path).into());
    }
    // A machine's own bundle may hold certificates that rustls has no use for: the others do.
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match added {
        0 => Err("this machine has no roots of trust (ca-certificates, SSL_CERT_FILE): name the \
            receiver's with NETRA_TLS_CA_FILE or OTEL_EXPORTER_OTLP_CERTIFICATE"
            .into()),
        _ => Ok(roots),
    }
}

fn trusted(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| format!("a certificate is of no use: {error}"))?;
    }
    Ok(roots)
}

/// What TLS has to say in a chain of errors, in words that say what to look at; None where it was
/// not TLS.
pub(crate) fn why(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.map(|inner| inner as &(dyn StdError + 'static));
        let found = inner.unwrap_or(error).downcast_ref::<Error>();
        if let Some(error) = found {
            return Some(in_words(error));
        }
        next = inner.or_else(|| error.source());
    }
    None
}

fn in_words(error: &Error) -> String {
    use CertificateError as Bad;
    let why = match error {
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the receiver's certificate has expired"
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "the receiver's certificate is not valid yet (or this clock is wrong)"
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "the receiver's certificate is for another name"
        }
        Error::InvalidCertificate(Bad::UnknownIssuer) => {
            "nobody whom netra trusts has issued the receiver's certificate \
             (NETRA_TLS_CA_FILE, OTEL_EXPORTER_OTLP_CERTIFICATE)"
        }
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the receiver does not speak TLS on this port"
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the receiver wants a certificate from netra \
             (NETRA_TLS_CERTIFICATE_FILE, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE)"
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate,
        ) => "the receiver does not accept netra's certificate",
        Error::AlertReceived(_) => "the receiver ends the handshake",
        _ => "no TLS with the receiver",
    };
    format!("{why}: {error}")
}
