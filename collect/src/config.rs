//! What can be set, in one table: names, defaults, what is allowed.

use std::{fmt::Write, net::IpAddr, path::PathBuf};

/// What a value may be, and where it goes.
#[derive(Clone, Copy)]
enum Parse {
    Address(fn(&mut Config, IpAddr)),
    /// A port; `none` is none.
    Port(fn(&mut Config, Option<u16>)),
    /// Bytes, from the first to the second.
    Bytes(u64, u64, fn(&mut Config, usize)),
    /// A whole number, from the first to the second; `auto` is none.
    Number(u64, u64, fn(&mut Config, Option<usize>)),
    /// An absolute path, or nothing.
    Path(fn(&mut Config, Option<PathBuf>)),
    Switch(fn(&mut Config, bool)),
    /// An `http://` URL, or nothing.
    Url(fn(&mut Config, Option<String>)),
}

/// One setting: a variable, and a flag of the same name.
#[allow(missing_debug_implementations, reason = "the table is constant")]
#[derive(Clone, Copy)]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// The value when nothing is set.
    pub default: &'static str,
    /// One line for people.
    pub doc: &'static str,
    parse: Parse,
}

/// How a collector is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub(crate) memory: usize,
    pub(crate) address: IpAddr,
    pub(crate) grpc_port: Option<u16>,
    pub(crate) http_port: Option<u16>,
    pub(crate) jaeger_port: Option<u16>,
    pub(crate) compact_port: Option<u16>,
    pub(crate) binary_port: Option<u16>,
    pub(crate) page_address: IpAddr,
    pub(crate) page_port: Option<u16>,
    pub(crate) threads: Option<usize>,
    pub(crate) disk: Option<PathBuf>,
    pub(crate) disk_bytes: usize,
    pub(crate) forward: Option<String>,
    pub(crate) asks_sidecars: bool,
}

const ANY: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
const MB: u64 = 1 << 20;

const SETTINGS: &[Setting] = &[
    Setting {
        name: "NETRA_COLLECT_MEMORY",
        default: "256MB",
        doc: "Memory that spans, figures and whatever is on its way may take",
        parse: Parse::Bytes(16 * MB, 1 << 36, |c, bytes| c.memory = bytes),
    },
    Setting {
        name: "NETRA_COLLECT_ADDRESS",
        default: "::",
        doc: "Address on which spans are taken; :: is all, of IPv4 as well",
        parse: Parse::Address(|c, address| c.address = address),
    },
    Setting {
        name: "NETRA_COLLECT_GRPC_PORT",
        default: "4317",
        doc: "Port of OTLP over gRPC",
        parse: Parse::Port(|c, port| c.grpc_port = port),
    },
    Setting {
        name: "NETRA_COLLECT_HTTP_PORT",
        default: "4318",
        doc: "Port of OTLP over HTTP, protobuf and JSON",
        parse: Parse::Port(|c, port| c.http_port = port),
    },
    Setting {
        name: "NETRA_COLLECT_JAEGER_PORT",
        default: "14268",
        doc: "Port of Jaeger's collector, thrift over HTTP",
        parse: Parse::Port(|c, port| c.jaeger_port = port),
    },
    Setting {
        name: "NETRA_COLLECT_COMPACT_PORT",
        default: "6831",
        doc: "UDP port of Jaeger's agent, compact thrift",
        parse: Parse::Port(|c, port| c.compact_port = port),
    },
    Setting {
        name: "NETRA_COLLECT_BINARY_PORT",
        default: "6832",
        doc: "UDP port of Jaeger's agent, binary thrift",
        parse: Parse::Port(|c, port| c.binary_port = port),
    },
    Setting {
        name: "NETRA_COLLECT_PAGE_ADDRESS",
        default: "127.0.0.1",
        doc: "Address of the page, its API and /metrics; whoever gets there sees all spans",
        parse: Parse::Address(|c, address| c.page_address = address),
    },
    Setting {
        name: "NETRA_COLLECT_PAGE_PORT",
        default: "16686",
        doc: "Port of the page, of Jaeger's query API, and of /metrics",
        parse: Parse::Port(|c, port| c.page_port = port),
    },
    Setting {
        name: "NETRA_COLLECT_THREADS",
        default: "auto",
        doc: "Threads that read what comes; auto is one for each CPU, 4 at most",
        parse: Parse::Number(1, 64, |c, count| c.threads = count),
    },
    Setting {
        name: "NETRA_COLLECT_DISK",
        default: "",
        doc: "File for a copy of the spans, which is read back at the start",
        parse: Parse::Path(|c, path| c.disk = path),
    },
    Setting {
        name: "NETRA_COLLECT_DISK_MAX",
        default: "1GB",
        doc: "What the spans in that file may weigh; the oldest go",
        parse: Parse::Bytes(16 * MB, 1 << 40, |c, bytes| c.disk_bytes = bytes),
    },
    Setting {
        name: "NETRA_COLLECT_FORWARD",
        default: "",
        doc: "OTLP/HTTP receiver that gets all spans as well, such as http://tempo:4318",
        parse: Parse::Url(|c, url| c.forward = url),
    },
    Setting {
        name: "NETRA_COLLECT_ASK_SIDECARS",
        default: "false",
        doc: "Whether sidecars on private addresses are asked for /metrics, for the page",
        parse: Parse::Switch(|c, is| c.asks_sidecars = is),
    },
];

/// Every setting, in the order in which it is shown.
#[must_use]
pub fn settings() -> &'static [Setting] {
    SETTINGS
}

impl Setting {
    /// The flag: the variable's name without what all of them have in front.
    #[must_use]
    pub fn flag(&self) -> String {
        let name = self.name.strip_prefix("NETRA_COLLECT_").unwrap_or(self.name);
        name.to_lowercase().replace('_', "-")
    }

    /// What a value may be, for people.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.parse {
            Parse::Address(_) => "an IP address".into(),
            Parse::Port(_) => "a port from 1 to 65535, or none".into(),
            Parse::Bytes(least, most, _) => {
                format!("bytes, with KB, MB or GB, from {} to {}", shown(least), shown(most))
            }
            Parse::Number(least, most, _) => {
                format!("auto, or a whole number from {least} to {most}")
            }
            Parse::Path(_) => "an absolute path, or nothing".into(),
            Parse::Switch(_) => "true or false".into(),
            Parse::Url(_) => "http://HOST[:PORT][/PATH], or nothing".into(),
        }
    }

    fn put(&self, config: &mut Config, text: &str) -> Option<()> {
        match self.parse {
            Parse::Address(put) => put(config, text.parse().ok()?),
            Parse::Port(put) if text == "none" => put(config, None),
            Parse::Port(put) => {
                put(config, Some(text.parse().ok().filter(|port| *port > 0)?));
            }
            Parse::Bytes(least, most, put) => {
                let bytes = bytes(text).filter(|bytes| (least..=most).contains(bytes))?;
                put(config, usize::try_from(bytes).ok()?);
            }
            Parse::Number(_, _, put) if text == "auto" => put(config, None),
            Parse::Number(least, most, put) => {
                let number = text.parse().ok().filter(|number| (least..=most).contains(number))?;
                put(config, usize::try_from(number).ok());
            }
            Parse::Path(put) if text.is_empty() => put(config, None),
            Parse::Path(put) => {
                let path = PathBuf::from(text);
                put(config, Some(path.is_absolute().then_some(path)?));
            }
            Parse::Switch(put) => put(config, text.parse().ok()?),
            Parse::Url(put) if text.is_empty() => put(config, None),
            Parse::Url(put) => {
                let url: hyper::Uri = text.parse().ok()?;
                let is_plain = url.authority().is_some_and(|it| !it.as_str().contains('@'));
                let is_good = url.scheme_str() == Some("http") && url.query().is_none();
                put(config, Some((is_plain && is_good).then(|| text.to_owned())?));
            }
        }
        Some(())
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "KB" => 1 << 10,
        "MB" => MB,
        "GB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

fn shown(bytes: u64) -> String {
    if bytes >= 1 << 30 { format!("{}GB", bytes >> 30) } else { format!("{}MB", bytes >> 20) }
}

impl Config {
    /// The settings that `given` has, by variable: a value, and where it comes from.
    ///
    /// # Errors
    /// A line for each value that is not allowed: where it comes from, the value, what is allowed.
    pub fn read(given: impl Fn(&Setting) -> Option<(String, String)>) -> Result<Self, Vec<String>> {
        let mut config = Self {
            memory: 0,
            address: ANY,
            grpc_port: None,
            http_port: None,
            jaeger_port: None,
            compact_port: None,
            binary_port: None,
            page_address: ANY,
            page_port: None,
            threads: None,
            disk: None,
            disk_bytes: 0,
            forward: None,
            asks_sidecars: false,
        };
        let mut refused = Vec::new();
        for setting in SETTINGS {
            let (text, place) = given(setting)
                .unwrap_or_else(|| (setting.default.to_owned(), "the default".to_owned()));
            if setting.put(&mut config, &text).is_none() {
                let mut line = format!("{}: ", setting.name);
                let allowed = setting.allowed();
                let _ = write!(line, "{text:?} ({place}) is not allowed; allowed: {allowed}");
                refused.push(line);
            }
        }
        if refused.is_empty() { Ok(config) } else { Err(refused) }
    }

    /// Where the page is, for people on this machine; none where there is none.
    #[must_use]
    pub fn page(&self) -> Option<String> {
        let port = self.page_port?;
        let host = match self.page_address {
            address if address.is_unspecified() => "localhost".to_owned(),
            IpAddr::V6(address) => format!("[{address}]"),
            address @ IpAddr::V4(_) => address.to_string(),
        };
        Some(format!("http://{host}:{port}/"))
    }
}

/// docs/SETTINGS-COLLECT.md.
#[must_use]
pub fn settings_page() -> String {
    let mut out = String::from(
        "# Settings of netra collect\n\n\
         Made by `netra collect --settings`, of the table that the program itself reads; a test compares. Each is a \
         variable and a\nflag of the same name (`NETRA_COLLECT_PAGE_PORT` is `--page-port`); flag over variable over \
         default.\n\n| variable | default | allowed | meaning |\n|---|---|---|---|\n",
    );
    for setting in SETTINGS {
        let default = if setting.default.is_empty() { "not set" } else { setting.default };
        let (name, allowed, doc) = (setting.name, setting.allowed(), setting.doc);
        // A string takes everything.
        let _ = writeln!(out, "| {name} | {default} | {allowed} | {doc} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Result<Config, Vec<String>> {
        Config::read(|setting| {
            (setting.name == name).then(|| (value.to_owned(), "the environment".to_owned()))
        })
    }

    #[test]
    fn defaults_are_allowed() {
        let config = with("", "").unwrap();
        assert_eq!((config.memory, config.grpc_port), (256 << 20, Some(4317)));
        assert_eq!(config.page().unwrap(), "http://127.0.0.1:16686/");
        assert_eq!(config.disk, None);
    }

    #[test]
    fn values_are_judged() {
        for (name, good, bad) in [
            (
                "MEMORY",
                &["64MB", "1GB", "16777216"][..],
                &["", "1MB", "MB", "64M", "-1", "99999GB"][..],
            ),
            ("ADDRESS", &["0.0.0.0", "::1"], &["localhost", "", "1.2.3.4:5"]),
            ("GRPC_PORT", &["1", "none"], &["0", "65536", "", "-"]),
            ("THREADS", &["auto", "1", "64"], &["0", "65", "two"]),
            ("ASK_SIDECARS", &["true", "false"], &["", "1", "yes"]),
            ("DISK", &["", "/var/x"], &["x", "./x"]),
            (
                "FORWARD",
                &["", "http://tempo:4318", "http://t/p"],
                &["tempo:4318", "https://t", "http://u:p@t"],
            ),
        ] {
            let name = format!("NETRA_COLLECT_{name}");
            for value in good {
                assert!(with(&name, value).is_ok(), "{name}={value}");
            }
            for value in bad {
                let refused = with(&name, value).unwrap_err();
                assert_eq!(refused.len(), 1, "{refused:?}");
                assert!(refused[0].starts_with(&name) && refused[0].contains("the environment"));
                assert!(refused[0].contains("allowed: "));
            }
        }
    }
}
