//! `netra doctor`: what this machine, this container and this user give the sidecar. It looks, and
//! changes nothing. What the rules need is for `netra-init doctor`.

use crate::{
    config::{Config, Loaded},
    cpus::Plan,
    exit::Exit,
    json,
    show::Shape,
    throttle,
};
use std::{
    fs,
    io::{Write, stdout},
    net::TcpListener,
    os::unix::fs::MetadataExt,
    time::Duration,
};

/// Looks at everything and says what was found; the exit code is of the worst.
pub(crate) fn run(prepared: &Result<(Loaded, Plan), Vec<String>>, shape: Shape) -> Exit {
    let mut checks = Vec::new();
    let defaults = Config::default();
    let (config, plan) = match prepared {
        Ok((loaded, plan)) => {
            checks.push(Check::good("settings", "good"));
            let warnings = loaded.warnings.iter();
            checks.extend(warnings.map(|w| Check::odd("settings", w, "see netra --help")));
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
    checks.extend(limits());
    checks.extend(plan.map(cpu));
    checks.extend(plan.and_then(throttling));
    checks.push(connection_tracking());
    checks.extend(close_wait(config.limits.half_close_linger));
    checks.extend(user());
    if plan.is_some() {
        checks.push(port("NETRA_PORT", config.port));
        checks.push(port("NETRA_PROMETHEUS_PORT", config.metrics_port));
    }
    let _ = stdout().write_all(show(&checks, shape).as_bytes());
    let worst = checks.iter().find_map(|check| match check.is {
        Is::Bad(exit) => Some(exit),
        _ => None,
    });
    worst.unwrap_or(Exit::DONE)
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

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn number(path: &str) -> Option<u64> {
    read(path).trim().parse().ok()
}

/// The very probe of the start, under the seccomp profile and the limits that are live here.
fn driver(config: &Config) -> Check {
    match netra_shards::choose_driver(&config.shard_config(1, Vec::new(), None)) {
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

fn limits() -> Vec<Check> {
    let limits = read("/proc/self/limits");
    let hard = |name: &str| {
        let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
        rest.split_ascii_whitespace().nth(1).map(|text| text.parse().unwrap_or(u64::MAX))
    };
    let words = |limit: u64| match limit {
        u64::MAX => "unlimited".to_owned(),
        limit => limit.to_string(),
    };
    let descriptors = hard("Max open files").map(|limit| match limit {
        few if few < DESCRIPTORS_FEW => Check::odd(
            "descriptors",
            format!("{few}, for {} connections", few / 2),
            "raise the hard limit (ulimit -n, LimitNOFILE, docker --ulimit nofile)",
        ),
        limit => Check::good("descriptors", words(limit)),
    });
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
        Check::odd("user", found, "they bypass netra: run them as another user")
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

fn port(setting: &'static str, port: u16) -> Check {
    match TcpListener::bind(("0.0.0.0", port)) {
        Ok(_) => Check::good(setting, format!("{port} is free")),
        Err(error) => Check::odd(
            setting,
            format!("{port}: {error}"),
            "unless it is netra itself, it cannot start",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn half_closed_connections_outlive_the_linger() {
        if number("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait").is_some() {
            let result = |seconds| close_wait(Duration::from_secs(seconds)).unwrap().result();
            assert_eq!((result(1), result(1 << 40)), ("ok", "warn"));
        }
    }
}
