//! `netra doctor`: what this machine, this container and this user give the sidecar. It looks, and
//! changes nothing. What the rules need is for `netra-init doctor`.

mod network;
mod place;

pub(crate) use place::admin_of;

use crate::{config::Config, cpus::Plan, exit::Exit, json, load::Loaded, show::Shape, throttle};
use netra_rules::Compiled;
use netra_shards::connections_for;
use serde_json::Value;
use std::{
    fs,
    io::{Write, stdout},
    os::unix::fs::MetadataExt,
    time::Duration,
};

/// Looks at everything and says what was found; the exit code is of the worst.
pub(crate) fn run(prepared: &Result<(Loaded, Plan), Vec<String>>, args: DoctorArgs) -> Exit {
    let checks = examine(prepared, args.has_network);
    let _ = stdout().write_all(show(&checks, args.shape).as_bytes());
    let worst = checks.iter().find_map(|check| match check.is {
        Is::Bad(exit) => Some(exit),
        _ => None,
    });
    worst.unwrap_or(Exit::DONE)
}

/// What to look at, and how to show it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoctorArgs {
    pub(crate) shape: Shape,
    /// Name servers and receivers of spans are asked.
    pub(crate) has_network: bool,
}

/// What the doctor says, as text.
pub(crate) fn told(prepared: &Result<(Loaded, Plan), Vec<String>>, has_network: bool) -> String {
    show(&examine(prepared, has_network), Shape::Text)
}

fn examine(prepared: &Result<(Loaded, Plan), Vec<String>>, has_network: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    let defaults = Config::default();
    let (config, plan) = match prepared {
        Ok((loaded, plan)) => {
            checks.push(Check::good("settings", "good"));
            let warnings = loaded.warnings.iter();
            checks.extend(warnings.map(|w| Check::odd("settings", w, "see netra --help")));
            checks.extend(loaded.rules.iter().flat_map(|read| rules(&read.compiled)));
            (&loaded.config, Some(plan))
        }
        Err(refused) => {
            let bad = |line| Check { is: Is::Bad(Exit::CONFIG), ..Check::good("settings", line) };
            checks.extend(refused.iter().map(bad));
            (&defaults, None)
        }
    };
    checks.push(Check::good("kernel", read("/proc/sys/kernel/osrelease").trim()));
    checks.push(driver(config));
    let running = plan.and_then(|_| place::running(config));
    checks.extend(limits(config, plan.map_or(1, |plan| plan.shards), running.as_ref()));
    checks.extend(plan.map(cpu));
    checks.extend(plan.and_then(throttling));
    checks.push(connection_tracking());
    checks.extend(close_wait(config.limits.half_close_linger));
    checks.extend(user());
    if plan.is_some() {
        checks.extend(local_ports(config));
        checks.push(place::port(config, "NETRA_PORT", config.port));
        checks.push(place::port(config, "NETRA_PROMETHEUS_PORT", config.metrics_port));
        checks.extend(place::checks(config, has_network, running.as_ref()));
        if has_network {
            checks.extend(network::checks(config));
        }
    }
    checks
}

/// One thing that was looked at.
#[derive(Debug)]
struct Check {
    name: &'static str,
    is: Is,
    found: String,
    advice: &'static str,
}

#[derive(Debug)]
enum Is {
    Good,
    /// It works, but not as one may want.
    Odd,
    /// netra would not start.
    Bad(Exit),
}

impl Check {
    fn good(name: &'static str, found: impl ToString) -> Self {
        Self { name, is: Is::Good, found: found.to_string(), advice: "" }
    }

    fn odd(name: &'static str, found: impl ToString, advice: &'static str) -> Self {
        Self { name, is: Is::Odd, found: found.to_string(), advice }
    }

    fn result(&self) -> &'static str {
        match self.is {
            Is::Good => "ok",
            Is::Odd => "warn",
            Is::Bad(_) => "fail",
        }
    }
}

fn show(checks: &[Check], shape: Shape) -> String {
    let mut out = String::new();
    for check in checks {
        match shape {
            Shape::Text => {
                let (result, name) = (check.result(), check.name);
                out += &format!("{result:<5} {name:<22} {}\n", check.found);
                if !check.advice.is_empty() {
                    out += &format!("{:<28} -> {}\n", "", check.advice);
                }
            }
            Shape::Json => {
                let mut object = json::Object::begin(&mut out);
                object.text("check", check.name);
                object.text("result", check.result());
                object.text("found", &check.found);
                object.text("advice", check.advice);
                object.end();
                out.push('\n');
            }
        }
    }
    out
}

/// What is to be said of rules that are good.
fn rules(compiled: &Compiled) -> Vec<Check> {
    const LISTED: usize = 5;
    const ADVICE: &str = "netra rules check has all of them";
    let Some(table) = &compiled.table else { return Vec::new() };
    let mut checks = vec![Check::good("rules", format!("{} are good", table.rules().len()))];
    let warnings = compiled.troubles.warnings().iter().take(LISTED);
    checks.extend(warnings.map(|warning| Check::odd("rules", warning, ADVICE)));
    let idle = table.rules().iter().filter_map(|rule| Some((rule, rule.never.as_ref()?)));
    checks.extend(idle.take(LISTED).map(|(rule, never)| {
        Check::odd("rules", format!("{} can never decide: {never}", rule.name), ADVICE)
    }));
    checks
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

/// The very probe of the start, under the seccomp profile and the limits that are live here.
fn driver(config: &Config) -> Check {
    let shard = config.shard_config(1, Vec::new(), None);
    match netra_shards::choose_driver(shard.driver, &shard.limits) {
        Ok((driver, None)) => Check::good("io", driver),
        Ok((driver, Some(why))) => {
            let advice = "epoll has every feature; to allow io_uring see docker/README.md";
            Check::odd("io", format!("{driver}, as io_uring is refused: {why}"), advice)
        }
        Err(error) => Check {
            is: Is::Bad(Exit::OS),
            ..Check::odd("io", error, "NETRA_IO=auto falls back to epoll")
        },
    }
}

/// Descriptors below which a busy service runs out: two for each connection.
const DESCRIPTORS_FEW: u64 = 16_384;
/// What a ring and its buffers lock before 5.12, where that counted.
const MEMLOCK_FEW: u64 = 512 << 10;

/// `running` is what a netra that runs here tells of itself: its limit counts then, and not that of the
/// shell that asks.
fn limits(config: &Config, shards: usize, running: Option<&Value>) -> Vec<Check> {
    let limits = read("/proc/self/limits");
    let hard = |name: &str| {
        let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_ascii_whitespace().nth(1).map(|text| text.parse().unwrap_or(u64::MAX))
    };
    let words = |limit: u64| match limit {
        u64::MAX => "unlimited".to_owned(),
        limit => limit.to_string(),
    };
    let connections_max = config.limits.connections_max;
    let its_own = running.and_then(|it| {
        let shards = it["shards"].as_array()?.len() as u64;
        let check = descriptors(it["max_fds"].as_u64()?, shards, connections_max);
        Some(Check { found: format!("{}, of the netra that runs", check.found), ..check })
    });
    let of_this = || Some(descriptors(hard("Max open files")?, shards as u64, connections_max));
    let descriptors = its_own.or_else(of_this);
    let memlock = hard("Max locked memory").map(|limit| match limit {
        few if few < MEMLOCK_FEW => Check::odd(
            "locked memory",
            format!("{few} bytes"),
            "too little for io_uring before Linux 5.12 (ulimit -l, LimitMEMLOCK)",
        ),
        limit => Check::good("locked memory", words(limit)),
    });
    descriptors.into_iter().chain(memlock).collect()
}

/// By the very sum of the start: what shards, logs and exporters need, and two for each connection.
fn descriptors(limit: u64, shards: u64, connections_max: u32) -> Check {
    const NAME: &str = "descriptors";
    let advice = "raise the hard limit (ulimit -n, LimitNOFILE, docker --ulimit nofile)";
    let needs = |wanted: u32| {
        let (mut low, mut high) = (1, 1_u64 << 40);
        while low < high {
            let middle = low.midpoint(high);
            match connections_for(middle, shards) {
                Some(connections) if connections >= wanted => high = middle,
                _ => low = middle + 1,
            }
        }
        low
    };
    let Some(most) = connections_for(limit, shards) else {
        let found = format!("{limit}, too few to start: it needs at least {}", needs(1));
        return Check { is: Is::Bad(Exit::OS), ..Check::odd(NAME, found, advice) };
    };
    let is_told = connections_max != 0;
    if is_told && connections_max > most {
        let (told, needed) = (connections_max, needs(connections_max));
        let found = format!("{limit}, for {most} connections; {told} need at least {needed}");
        return Check::odd(NAME, found, advice);
    }
    let found = format!("{limit}, for {most} connections");
    match limit < DESCRIPTORS_FEW && !is_told {
        true => Check::odd(NAME, found, advice),
        false => Check::good(NAME, found),
    }
}

fn cpu(plan: &Plan) -> Check {
    let plural = if plan.shards == 1 { "" } else { "s" };
    let found = format!("{} shard{plural}: {}", plan.shards, plan.shards_why);
    match plan.throttle_files.is_empty() {
        true => Check::good("cpu", found),
        false => Check::odd("cpu", found, "a CPU limit throttles, and throttling is tail latency"),
    }
}

fn throttling(plan: &Plan) -> Option<Check> {
    let periods = throttle::periods(&plan.throttle_files);
    (!plan.throttle_files.is_empty()).then(|| match periods {
        0 => Check::good("throttling", "none so far"),
        periods => Check::odd(
            "throttling",
            format!("in {periods} periods so far"),
            "raise the CPU limit, or leave it out",
        ),
    })
}

/// Percent of the table above which packets are about to be dropped.
const CONNTRACK_FULL: u64 = 80;

fn connection_tracking() -> Check {
    let count = number("/proc/sys/net/netfilter/nf_conntrack_count");
    match (count, number("/proc/sys/net/netfilter/nf_conntrack_max")) {
        (Some(count), Some(max))
            if count.saturating_mul(100) >= max.saturating_mul(CONNTRACK_FULL) =>
        {
            let advice = "raise net.netfilter.nf_conntrack_max on the node";
            Check::odd("conntrack", format!("{count} of {max} entries"), advice)
        }
        (Some(count), Some(max)) => Check::good("conntrack", format!("{count} of {max} entries")),
        _ => Check::good("conntrack", "not to be seen here"),
    }
}

/// How long the local port of a connection that its client has ended first is taken.
const TIME_WAIT_S: u64 = 60;
/// Percent of the local ports in that state above which they are about to run short.
const PORTS_FULL: u64 = 80;

/// The local ports of one address, which netra dials the application from for all clients.
fn local_ports(config: &Config) -> Option<Check> {
    let range = read("/proc/sys/net/ipv4/ip_local_port_range");
    let mut ends = range.split_ascii_whitespace().map_while(|end| end.parse::<u64>().ok());
    let first = ends.next()?;
    let ports = 1 + ends.next()?.checked_sub(first)?;
    let waiting = waiting_sockets(&read("/proc/net/sockstat"));
    let rate = ports / TIME_WAIT_S;
    let found = format!(
        "{ports}, {waiting} sockets in TIME_WAIT; from {rate} new connections a second to one port \
         on, where clients end first, spare sources are dialled from"
    );
    let reuse = number("/proc/sys/net/ipv4/tcp_tw_reuse").unwrap_or(2);
    Some(match () {
        () if config.spare_sources.is_empty() => {
            Check::odd("local ports", found, "there are none: NETRA_SPARE_SOURCES")
        }
        () if reuse == 0 => {
            let advice = "net.ipv4.tcp_tw_reuse=2, the kernel's default: their ports last no longer \
                          without it";
            Check::odd("local ports", found, advice)
        }
        () if waiting.saturating_mul(100) >= ports.saturating_mul(PORTS_FULL) => {
            let advice = "netra_spare_source_total counts what comes from spare sources; a wider \
                          net.ipv4.ip_local_port_range puts it off";
            Check::odd("local ports", found, advice)
        }
        () => Check::good("local ports", found),
    })
}

/// Sockets in TIME_WAIT, by /proc/net/sockstat.
fn waiting_sockets(sockstat: &str) -> u64 {
    let line = sockstat.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != "tw");
    words.nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// After that time the NAT entry of a half-closed connection is gone, and both halves hang.
fn close_wait(linger: Duration) -> Option<Check> {
    let kept = number("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait")?;
    let found = format!("kept for {kept} s, netra waits {} s", linger.as_secs());
    Some(match linger < Duration::from_secs(kept) {
        true => Check::good("half-closed", found),
        false => Check::odd(
            "half-closed",
            found,
            "lower NETRA_HALF_CLOSE_LINGER_MS, or netra-init apply --close-wait-timeout-seconds",
        ),
    })
}

/// The user whose connections the rules let through unless told otherwise.
const UID: u32 = 1337;

fn user() -> Vec<Check> {
    let uid = nix::unistd::geteuid().as_raw();
    let name = format!("uid {uid}");
    let ours = match uid {
        0 => Check::odd("user", name, "the rules need another one: root's traffic is everybody's"),
        UID => Check::good("user", name),
        _ => Check::odd("user", name, "netra-init has to know it: NETRA_SIDECAR_USER_ID"),
    };
    let others = neighbours(uid);
    let clash = (!others.is_empty()).then(|| {
        let found = format!("also run as uid {uid}: {}", others.join(", "));
        Check::odd("user", found, "they bypass netra: run them as another user (runAsUser)")
    });
    std::iter::once(ours).chain(clash.filter(|_| uid != 0)).collect()
}

/// Other programs of this user in this network namespace, as far as this process may see.
fn neighbours(uid: u32) -> Vec<String> {
    let netns =
        |process: &str| fs::metadata(format!("/proc/{process}/ns/net")).map(|m| m.ino()).ok();
    let ours = netns("self");
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.metadata().is_ok_and(|metadata| metadata.uid() == uid))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_digit()) && netns(id) == ours)
        .map(|id| read(&format!("/proc/{id}/comm")).trim().to_owned())
        .filter(|program| !program.is_empty() && !program.starts_with("netra"))
        .collect();
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_enough_for_what_netra_itself_would_count() {
        let says = |limit, shards, told| {
            let check = descriptors(limit, shards, told);
            (check.result(), check.found)
        };
        assert_eq!(says(256, 1, 0), ("warn", "256, for 98 connections".into()));
        assert_eq!(says(256, 1, 98), ("ok", "256, for 98 connections".into()));
        let needed = (256..).find(|limit| connections_for(*limit, 1) == Some(99)).unwrap();
        let found = format!("256, for 98 connections; 99 need at least {needed}");
        assert_eq!(says(256, 1, 99), ("warn", found));
        let needed = (1..).find(|limit| connections_for(*limit, 1).is_some()).unwrap();
        let found = format!("30, too few to start: it needs at least {needed}");
        assert_eq!(says(30, 1, 0), ("fail", found));
        assert_eq!(says(1 << 20, 2, 0).0, "ok");
    }

    #[test]
    fn the_limit_of_a_netra_that_runs_is_the_one_that_counts() {
        let found = |running: Option<&Value>| {
            let checks = limits(&Config::default(), 1, running);
            checks.into_iter().find(|it| it.name == "descriptors").unwrap()
        };
        let running = serde_json::json!({"max_fds": 30, "shards": [{}, {}]});
        let check = found(Some(&running));
        assert_eq!(check.result(), "fail");
        assert!(check.found.starts_with("30, too few"), "{}", check.found);
        assert!(check.found.ends_with(", of the netra that runs"), "{}", check.found);
        let own = found(None).found;
        assert!(!own.contains("that runs"), "{own}");
        // One of another version may not say it.
        assert_eq!(found(Some(&serde_json::json!({"shards": []}))).found, own);
    }

    #[test]
    fn every_check_is_a_line_and_an_object() {
        let checks = [Check::good("a", 1), Check::odd("b", "x \"y\"", "do")];
        let text = show(&checks, Shape::Text);
        assert_eq!(text.lines().count(), 3);
        assert!(text.starts_with("ok    a "), "{text}");
        for line in show(&checks, Shape::Json).lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["result"].is_string() && value["check"].is_string());
        }
    }

    #[test]
    fn sockets_in_time_wait_are_read() {
        let sockstat =
            "sockets: used 7\nTCP: inuse 3 orphan 0 tw 1234 alloc 9 mem 1\nUDP: inuse 0\n";
        assert_eq!(waiting_sockets(sockstat), 1234);
        assert_eq!(waiting_sockets(""), 0);
    }

    #[test]
    fn half_closed_connections_outlive_the_linger() {
        if number("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait").is_some() {
            let result = |seconds| close_wait(Duration::from_secs(seconds)).unwrap().result();
            assert_eq!((result(1), result(1 << 40)), ("ok", "warn"));
        }
    }
}
