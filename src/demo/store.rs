//! Services of the demo that do not speak HTTP: what they know of tea, by their own protocols.

use super::dubbo::{self, Method};
use super::namespace::Namespace;
use super::{Result, redis, server};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// A service that speaks another protocol.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) name: &'static str,
    pub(super) at: &'static str,
    pub(super) port: u16,
    speaks: Speaks,
    /// Its answer, to whoever asks about [`ARTICLE`].
    pub(super) says: &'static str,
}

#[derive(Clone, Copy, Debug)]
enum Speaks {
    Redis,
    Dubbo(Method),
}

const ARTICLE: &str = "tea";

pub(super) static CACHE: Store =
    Store { name: "cache", at: "10.77.1.6", port: 6379, speaks: Speaks::Redis, says: "7" };
pub(super) static PRICE: Store = Store {
    name: "price",
    at: "10.77.1.7",
    port: 20880,
    speaks: Speaks::Dubbo(Method { interface: "demo.Price", name: "of" }),
    says: "3.20",
};

impl Store {
    /// What netra is to read on its port.
    pub(super) fn protocol(&self) -> &'static str {
        match self.speaks {
            Speaks::Redis => "redis",
            Speaks::Dubbo(_) => "dubbo",
        }
    }

    /// What its spans are called.
    pub(super) fn operation(&self) -> String {
        match self.speaks {
            Speaks::Redis => "GET".to_owned(),
            Speaks::Dubbo(Method { interface, name }) => format!("{interface}/{name}"),
        }
    }

    /// Serves in `pod`.
    pub(super) fn serve(&'static self, pod: &Namespace) -> Result<()> {
        let serve_here = || {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.port))
                .and_then(|listener| server::serve(&listener, |stream| self.converse(stream)))
        };
        pod.enter(serve_here)?
            .map_err(|error| format!("port {} of {}: {error}", self.port, self.name))
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let value_of = |article: &str| (article == ARTICLE).then_some(self.says);
        match self.speaks {
            Speaks::Redis => redis::converse(stream, value_of),
            Speaks::Dubbo(method) => dubbo::converse(stream, method, value_of),
        }
    }

    /// Asks it over an open connection; `trace` goes along where the protocol has a place for it.
    pub(super) fn ask(&self, stream: &TcpStream, trace: &[(&str, &str)]) -> io::Result<String> {
        match self.speaks {
            Speaks::Redis => redis::get(stream, ARTICLE),
            Speaks::Dubbo(method) => dubbo::call(stream, method, ARTICLE, trace),
        }
    }
}
