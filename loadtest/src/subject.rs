//! What is compared: how to start it and which connections to give it, as small TOML files.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Context, Error, Kind, Result};
use crate::protocol::Protocol;
use crate::topology::{Place, run as run_tool};

/// Ports of the application in the pod.
pub(crate) const HTTP_PORT: u16 = 8080;
/// HTTP on a port that no subject reads as such.
pub(crate) const RAW_PORT: u16 = 8081;
pub(crate) const ECHO_PORT: u16 = 9000;
pub(crate) const BULK_PORT: u16 = 9001;
pub(crate) const REDIS_PORT: u16 = 6379;
pub(crate) const DUBBO_PORT: u16 = 20880;
pub(crate) const THRIFT_PORT: u16 = 9090;
/// Port of the agent that takes spans.
pub(crate) const SINK_PORT: u16 = 6831;
/// Addresses of the two ends.
pub(crate) const CLIENT_IP: &str = "10.77.0.1";
pub(crate) const POD_IP: &str = "10.77.0.2";
/// The user a sidecar runs as; what it sends is not given back to it.
pub(crate) const SUBJECT_UID: u32 = 1337;

/// Subjects that come with the program.
const BUILT_IN: &[(&str, &str)] = &[
    ("netra-io_uring", include_str!("../subjects/netra-io_uring.toml")),
    ("netra-epoll", include_str!("../subjects/netra-epoll.toml")),
    ("netra-polling", include_str!("../subjects/netra-polling.toml")),
    ("netra-http-polling", include_str!("../subjects/netra-http-polling.toml")),
    ("netra-http-io_uring", include_str!("../subjects/netra-http-io_uring.toml")),
    ("netra-http-epoll", include_str!("../subjects/netra-http-epoll.toml")),
    ("netra-tapped-polling", include_str!("../subjects/netra-tapped-polling.toml")),
    ("netra-tapped-io_uring", include_str!("../subjects/netra-tapped-io_uring.toml")),
    ("netra-tapped-epoll", include_str!("../subjects/netra-tapped-epoll.toml")),
    ("netra-gated-polling", include_str!("../subjects/netra-gated-polling.toml")),
    ("netra-gated-io_uring", include_str!("../subjects/netra-gated-io_uring.toml")),
    ("netra-gated-epoll", include_str!("../subjects/netra-gated-epoll.toml")),
    ("netra-traced-polling", include_str!("../subjects/netra-traced-polling.toml")),
    ("netra-traced-io_uring", include_str!("../subjects/netra-traced-io_uring.toml")),
    ("netra-traced-epoll", include_str!("../subjects/netra-traced-epoll.toml")),
    ("haproxy-tcp", include_str!("../subjects/haproxy-tcp.toml")),
    ("haproxy-splice", include_str!("../subjects/haproxy-splice.toml")),
    ("haproxy-http", include_str!("../subjects/haproxy-http.toml")),
    ("nginx-stream", include_str!("../subjects/nginx-stream.toml")),
    ("nginx-http", include_str!("../subjects/nginx-http.toml")),
    ("envoy-tcp", include_str!("../subjects/envoy-tcp.toml")),
    ("envoy-http", include_str!("../subjects/envoy-http.toml")),
    ("envoy-protocols", include_str!("../subjects/envoy-protocols.toml")),
    ("twemproxy", include_str!("../subjects/twemproxy.toml")),
    ("smallest", include_str!("../subjects/smallest.toml")),
    ("smallest-closing", include_str!("../subjects/smallest-closing.toml")),
];

/// Where our own server speaks it.
pub(crate) fn port_of(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Redis => REDIS_PORT,
        Protocol::Dubbo => DUBBO_PORT,
        Protocol::Thrift => THRIFT_PORT,
    }
}

/// What a subject calls this program.
const OURSELVES: &str = "{self}";

/// One proxy to compare.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// What it is, for readers of the file.
    #[serde(default)]
    pub(crate) about: String,
    /// A program in PATH, or a path, or `{self}`.
    binary: String,
    /// Environment variable that names the program instead.
    binary_env: Option<String>,
    /// Arguments that make it print its version.
    #[serde(default)]
    pub(crate) version: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Files to write into its work directory.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// What the program must not say of itself, where not every version can be measured.
    unless: Option<Unless>,
    /// What goes into the pod.
    #[serde(rename = "redirect")]
    inbound: Vec<Redirect>,
    /// What leaves the pod; without it the same as what goes in.
    #[serde(default, rename = "redirect_out")]
    outbound: Vec<Redirect>,
}

/// A question to a program, and the answer that keeps it out.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Unless {
    args: Vec<String>,
    /// The start of a line, and what that line must not contain.
    line: String,
    says: String,
}

/// Connections to these ports go to that port.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redirect {
    /// Empty means all others.
    #[serde(default)]
    ports: Vec<Port>,
    to: u16,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Port {
    Http,
    Raw,
    Echo,
    Bulk,
    Redis,
    Dubbo,
    Thrift,
}

impl Port {
    fn number(self) -> u16 {
        match self {
            Self::Http => HTTP_PORT,
            Self::Raw => RAW_PORT,
            Self::Echo => ECHO_PORT,
            Self::Bulk => BULK_PORT,
            Self::Redis => REDIS_PORT,
            Self::Dubbo => DUBBO_PORT,
            Self::Thrift => THRIFT_PORT,
        }
    }
}

/// A port, and what is spoken there: HTTP, or a protocol.
pub(crate) type Entrance = (u16, Option<Protocol>);

/// A subject with everything filled in.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) binary: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Where to ask whether it serves.
    pub(crate) entrance: Entrance,
}

impl Subject {
    /// Takes the name of a built-in one, or the path of a file.
    pub(crate) fn load(name: &str) -> Result<Self> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|cause| {
            let known: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            let known = known.join(", ");
            Error::usage(format!("subject `{name}`: {cause}; a TOML file, or one of {known}"))
        })?;
        Self::parse(name, &text)
    }

    fn parse(origin: &str, text: &str) -> Result<Self> {
        let subject: Self = toml::from_str(text)
            .map_err(|cause| Error::usage(format!("subject {origin}: {cause}")))?;
        let is_plain = |name: &str| !name.is_empty() && !name.contains('/');
        if !is_plain(&subject.name) || !subject.files.keys().all(|name| is_plain(name)) {
            let message = "names must not be empty or contain a slash";
            return Err(Error::usage(format!("subject {origin}: {message}")));
        }
        if subject.inbound.is_empty() {
            return Err(Error::usage(format!("subject {origin}: no [[redirect]]")));
        }
        Ok(subject)
    }

    /// Finds the program, and asks it whether it can do what is to be measured.
    pub(crate) fn check(&self) -> Result<()> {
        let path = self.find()?;
        let Some(Unless { args, line, says }) = &self.unless else { return Ok(()) };
        let refuse = |why: String| Err(Error::new(Kind::Tool, format!("{}: {why}", self.name)));
        let asked = format!("{} {}", self.binary, args.join(" "));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = match run_tool(&path.to_string_lossy(), &args, None) {
            Ok(said) => said,
            Err(cause) => return refuse(format!("`{asked}` failed: {cause}")),
        };
        match said.lines().find(|text| text.starts_with(line.as_str())) {
            Some(text) if text.contains(says.as_str()) => refuse(format!(
                "`{asked}` says: {}",
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            )),
            Some(_) => Ok(()),
            None => refuse(format!("`{asked}` says nothing of {line}")),
        }
    }

    /// Whether connections to this port at this end go to it.
    pub(crate) fn takes(&self, port: u16, server: Place) -> bool {
        let is_it = |redirect: &Redirect| {
            redirect.ports.is_empty() || redirect.ports.iter().any(|it| it.number() == port)
        };
        match server {
            Place::Client if !self.outbound.is_empty() => self.outbound.iter().any(is_it),
            _ => self.inbound.iter().any(is_it),
        }
    }

    /// A port whose connections go to it, to ask whether it serves, and what is spoken there; HTTP
    /// where that is one of them.
    fn entrance(&self) -> Entrance {
        let of = |protocol| (port_of(protocol), Some(protocol));
        let others = Protocol::ALL.into_iter().map(of);
        let is_taken = |entrance: &Entrance| self.takes(entrance.0, Place::Pod);
        let http = (HTTP_PORT, None);
        std::iter::once(http).chain(others).find(is_taken).unwrap_or(http)
    }

    /// The rules for nftables or iptables.
    pub(crate) fn rules(&self, has_nft: bool) -> String {
        let outbound = if self.outbound.is_empty() { &self.inbound } else { &self.outbound };
        let rules = if has_nft { nft_rules } else { iptables_rules };
        rules(&self.inbound, outbound)
    }

    /// Finds the program.
    pub(crate) fn find(&self) -> Result<PathBuf> {
        if self.binary == OURSELVES {
            return std::env::current_exe().context(|| "our own path".to_owned());
        }
        let variable = self.binary_env.as_deref();
        let named = variable.and_then(std::env::var_os).map(PathBuf::from);
        let wanted = named.clone().unwrap_or_else(|| PathBuf::from(&self.binary));
        let found = if wanted.components().count() > 1 {
            wanted.is_file().then(|| wanted.clone())
        } else {
            search(&wanted)
        };
        found.ok_or_else(|| {
            let hint = variable.map_or(String::new(), |name| format!(" (set {name} to its path)"));
            let message = format!("{}: no program {}{hint}", self.name, wanted.display());
            Error::new(Kind::Tool, message)
        })
    }

    /// Writes its files and says how to start it.
    pub(crate) fn prepare(&self, work: &Path) -> Result<Launch> {
        std::fs::create_dir_all(work).context(|| work.display().to_string())?;
        nix::unistd::chown(work, Some(SUBJECT_UID.into()), Some(SUBJECT_UID.into()))
            .context(|| format!("chown {}", work.display()))?;
        for (name, content) in &self.files {
            let path = work.join(name);
            std::fs::write(&path, fill(content, work)).context(|| path.display().to_string())?;
        }
        Ok(Launch {
            binary: self.find()?,
            args: self.args.iter().map(|arg| fill(arg, work)).collect(),
            env: self.env.iter().map(|(k, v)| (k.clone(), fill(v, work))).collect(),
            entrance: self.entrance(),
        })
    }
}

/// A program in PATH, or where programs of root are.
pub(crate) fn search(name: &Path) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Puts the values of the topology into a text.
fn fill(text: &str, work: &Path) -> String {
    let mut text = text.replace("{work}", &work.display().to_string());
    for (name, value) in [
        ("{pod_ip}", POD_IP.to_owned()),
        ("{client_ip}", CLIENT_IP.to_owned()),
        ("{http_port}", HTTP_PORT.to_string()),
        ("{raw_port}", RAW_PORT.to_string()),
        ("{echo_port}", ECHO_PORT.to_string()),
        ("{bulk_port}", BULK_PORT.to_string()),
        ("{redis_port}", REDIS_PORT.to_string()),
        ("{dubbo_port}", DUBBO_PORT.to_string()),
        ("{thrift_port}", THRIFT_PORT.to_string()),
        ("{sink_port}", SINK_PORT.to_string()),
    ] {
        text = text.replace(name, &value);
    }
    text
}

/// Name of our nftables table.
pub(crate) const TABLE: &str = "netra_loadtest";

/// The redirect rules for nftables: inbound for everyone, outbound except what the sidecar sends.
fn nft_rules(inbound: &[Redirect], outbound: &[Redirect]) -> String {
    let lines = |redirects: &[Redirect]| {
        let mut lines = String::new();
        for redirect in redirects {
            let ports: Vec<String> =
                redirect.ports.iter().map(|port| port.number().to_string()).collect();
            let what = match ports.is_empty() {
                true => "meta l4proto tcp".to_owned(),
                false => format!("tcp dport {{ {} }}", ports.join(", ")),
            };
            let _ = writeln!(lines, "{what} counter redirect to :{}", redirect.to);
        }
        lines
    };
    let spared = format!("meta skuid {SUBJECT_UID} return\nip daddr 127.0.0.0/8 return\n");
    let chain = |name: &str, hook: &str, rules: &str| {
        format!("chain {name} {{\ntype nat hook {hook} priority -100;\n{rules}}}\n")
    };
    let inbound = chain("inbound", "prerouting", &lines(inbound));
    let outbound = chain("outbound", "output", &(spared + &lines(outbound)));
    format!("table ip {TABLE} {{\n{inbound}{outbound}}}\n")
}

/// The same for `iptables-restore`, where there is no nft.
fn iptables_rules(inbound: &[Redirect], outbound: &[Redirect]) -> String {
    let mut out = "*nat\n".to_owned();
    let exempt = [
        format!("-A OUTPUT -m owner --uid-owner {SUBJECT_UID} -j RETURN"),
        "-A OUTPUT -d 127.0.0.0/8 -j RETURN".to_owned(),
    ];
    let _ = writeln!(out, "{}", exempt.join("\n"));
    for (chain, redirects) in [("PREROUTING", inbound), ("OUTPUT", outbound)] {
        for redirect in redirects {
            let to = redirect.to;
            if redirect.ports.is_empty() {
                let _ = writeln!(out, "-A {chain} -p tcp -j REDIRECT --to-ports {to}");
            }
            for port in &redirect.ports {
                let port = port.number();
                let rule = format!("-A {chain} -p tcp --dport {port} -j REDIRECT --to-ports {to}");
                let _ = writeln!(out, "{rule}");
            }
        }
    }
    out + "COMMIT\n"
}

/// Packets that hit a redirect rule, from `nft list table`.
pub(crate) fn nft_packets(listing: &str) -> u64 {
    let packets = |line: &str| -> Option<u64> {
        let after = line.split("counter packets ").nth(1)?;
        line.contains("redirect to").then_some(())?;
        after.split(' ').next()?.parse().ok()
    };
    listing.lines().filter_map(packets).sum()
}

/// The same, from `iptables -t nat -vnxL`.
pub(crate) fn iptables_packets(listing: &str) -> u64 {
    let packets = |line: &str| -> Option<u64> {
        let mut words = line.split_whitespace();
        let count = words.next()?.parse().ok()?;
        (words.nth(1)? == "REDIRECT").then_some(count)
    };
    listing.lines().filter_map(packets).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_subject_is_good_and_named_as_its_file() {
        for (name, _) in BUILT_IN {
            let subject = Subject::load(name).expect(name);
            assert_eq!(subject.name, *name);
            for redirect in subject.inbound.iter().chain(&subject.outbound) {
                // Below the local port range of the pod, so that no connection can take it.
                assert!((14_900..15_000).contains(&redirect.to), "{name}");
            }
        }
    }

    #[test]
    fn errors_name_the_line() {
        let good = "name = \"x\"\nbinary = \"y\"\n[[redirect]]\nto = 14956\n";
        assert!(Subject::parse("f", good).is_ok());
        for (text, parts) in [
            (good.replace("binary", "binry"), ["line 2", "unknown field `binry`"]),
            (good.replace("14956", "70000"), ["line 4", "70000"]),
            (good.replace("\"x\"", "\"a/b\""), ["subject f", "slash"]),
            ("name = \"x\"\nbinary = \"y\"\n".to_owned(), ["line 1", "redirect"]),
        ] {
            let cause = Subject::parse("f", &text).expect_err("refused");
            assert_eq!(cause.kind(), Kind::Usage);
            let message = cause.to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
        assert_eq!(Subject::load("no-such").expect_err("refused").kind(), Kind::Usage);
    }

    #[test]
    fn a_program_that_cannot_do_it_yet_is_named_with_its_own_words() {
        let unless = |says: &str, line: &str| {
            let text = format!(
                "name = \"x\"\nbinary = \"echo\"\n[unless]\nargs = [\"PORTS=1  # not yet\"]\n\
                 line = \"{line}\"\nsays = \"{says}\"\n[[redirect]]\nto = 14956\n"
            );
            Subject::parse("f", &text).expect("a good file").check()
        };
        assert!(unless("never", "PORTS=").is_ok());
        let refused = unless("not yet", "PORTS=").expect_err("refused");
        assert_eq!(refused.kind(), Kind::Tool);
        assert!(refused.to_string().ends_with("says: PORTS=1 # not yet"), "{refused}");
        let silent = unless("not yet", "HTTP=").expect_err("refused").to_string();
        assert!(silent.contains("says nothing of HTTP="), "{silent}");
    }

    #[test]
    fn rules_redirect_inbound_and_spare_the_sidecar() {
        let redirects = [
            Redirect { ports: vec![Port::Http, Port::Echo], to: 14_956 },
            Redirect { ports: Vec::new(), to: 14_966 },
        ];
        let nft = nft_rules(&redirects, &redirects);
        assert_eq!(nft.matches("tcp dport { 8080, 9000 } counter redirect to :14956").count(), 2);
        assert_eq!(nft.matches("meta l4proto tcp counter redirect to :14966").count(), 2);
        let spared = nft.find("meta skuid 1337 return").expect("the exemption");
        assert!(nft[spared..].contains("redirect") && nft[..spared].contains("prerouting"));
        let iptables = iptables_rules(&redirects, &redirects);
        assert_eq!(iptables.matches("--dport 9000 -j REDIRECT --to-ports 14956").count(), 2);
        let rule = |text: &str| iptables.find(text).expect(text);
        assert!(rule("--uid-owner 1337") < rule("-A OUTPUT -p tcp"));
        // What leaves may go elsewhere than what comes.
        let (inbound, outbound) = redirects.split_at(1);
        let nft = nft_rules(inbound, outbound);
        let (before, after) = nft.split_once("hook output").expect("two chains");
        assert!(before.contains(":14956") && !before.contains(":14966"));
        assert!(after.contains(":14966") && !after.contains(":14956"));
        let iptables = iptables_rules(inbound, outbound);
        assert_eq!(iptables.matches("-A PREROUTING").count(), 2);
        assert!(iptables.contains("-A OUTPUT -p tcp -j REDIRECT --to-ports 14966"));
    }

    #[test]
    fn packets_are_counted_from_either_listing() {
        let nft = "\t\ttcp dport 8080 counter packets 12 bytes 720 redirect to :14956\n\
                   \t\tmeta skuid 1337 counter packets 99 bytes 1 return\n\
                   \t\tmeta l4proto tcp counter packets 3 bytes 180 redirect to :14956\n";
        assert_eq!(nft_packets(nft), 15);
        let iptables = "Chain PREROUTING (policy ACCEPT 0 packets, 0 bytes)\n\
            pkts bytes target prot opt in out source destination\n\
            7 420 REDIRECT 6 -- * * 0.0.0.0/0 0.0.0.0/0 redir ports 14956\n\
            9 540 RETURN 6 -- * * 0.0.0.0/0 0.0.0.0/0\n";
        assert_eq!(iptables_packets(iptables), 7);
    }

    #[test]
    fn texts_are_filled_in_and_other_braces_stay() {
        let text = "http { server {pod_ip}:{http_port}; } {work}/x";
        assert_eq!(fill(text, Path::new("/w")), "http { server 10.77.0.2:8080; } /w/x");
    }
}
