//! What the settings come to about how a receiver is reached.

use crate::{
    reach::{self, Named, Reach, ReachSettings, TlsSettings},
    url::Url,
    values::{Refused, Values},
};

/// The settings that name files in PEM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsNames {
    pub(crate) ca: &'static str,
    pub(crate) certificate: &'static str,
    pub(crate) key: &'static str,
}

/// Those for every receiver.
pub(crate) const TLS_NAMES: TlsNames = TlsNames {
    ca: "NETRA_TLS_CA_FILE",
    certificate: "NETRA_TLS_CERTIFICATE_FILE",
    key: "NETRA_TLS_KEY_FILE",
};

/// Decides about a URL; `levels` are settings and what they say, the nearest first. Nothing is looked
/// at where the URL is plain HTTP.
pub(crate) fn decide(
    settings: &ReachSettings,
    levels: &[(TlsNames, &TlsSettings)],
    url: &Url,
    values: &Values<'_>,
) -> Result<Reach, Refused> {
    if !url.is_tls() {
        return Ok(Reach::default());
    }
    let first = |pick: fn(&TlsNames, &TlsSettings) -> (&'static str, String)| {
        let all = levels.iter().map(|(names, paths)| pick(names, paths));
        let mut set = all.filter(|(_, path)| !path.is_empty());
        set.next().map(|(setting, path)| Named { setting, path })
    };
    let ca = first(|names, paths| (names.ca, paths.ca.clone()));
    let certificate = first(|names, paths| (names.certificate, paths.certificate.clone()));
    let key = first(|names, paths| (names.key, paths.key.clone()));
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(lone), None) | (None, Some(lone)) => {
            let allowed = "to be set together with its key, and the key with its certificate";
            return Err(values.get(lone.setting).refused(allowed));
        }
    };
    let proxy = reach::choose(&settings.https_proxy, &settings.no_proxy, url)
        .map_err(|allowed| values.get("HTTPS_PROXY").refused(allowed))?;
    Ok(Reach { ca, identity, proxy })
}
