//! The proxy that an https receiver is reached by: `HTTPS_PROXY` and `NO_PROXY`, as curl and Go read
//! them. netra asks it for a tunnel (CONNECT); what goes through is TLS and nothing that it can read.

use crate::url::Url;
use hyper::{Uri, header::HeaderValue};
use hyper_util::client::proxy::matcher::Matcher;
use std::{fmt, net::IpAddr};

/// What HTTPS_PROXY may be, in words.
const ALLOWED: &str = "http://[USER:PASSWORD@]HOST:PORT, or HOST:PORT";
/// As curl and Go have it.
const PORT: u16 = 80;

/// A proxy and what it is told about who asks.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// None where a receiver is reached directly: this host always is. The error says what is allowed.
pub(crate) fn choose(
    https_proxy: &str,
    no_proxy: &str,
    url: &Url,
) -> Result<Option<Proxy>, &'static str> {
    let host = url.host();
    let is_here = host.parse::<IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
    if https_proxy.is_empty() || is_here {
        return Ok(None);
    }
    let to: Uri = url.to_string().parse().map_err(|_| ALLOWED)?;
    let names_one = |no: &str| Matcher::builder().https(https_proxy).no(no).build().intercept(&to);
    let Some(found) = names_one("") else { return Err(ALLOWED) };
    if found.uri().scheme_str() != Some("http") {
        return Err(ALLOWED);
    }
    let Some(found) = names_one(no_proxy) else { return Ok(None) };
    let host = found.uri().host().ok_or(ALLOWED)?;
    Ok(Some(Proxy {
        host: host.to_owned(),
        port: found.uri().port_u16().unwrap_or(PORT),
        authorization: found.basic_auth().cloned(),
    }))
}
