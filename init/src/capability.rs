//! Why CAP_NET_ADMIN is missing, as far as the kernel tells it, and what helps.

use crate::sys;
use std::fs;

const ADD: &str = "docker: --cap-add NET_ADMIN; kubernetes: securityContext.capabilities.add";
const NO_NEW_PRIVILEGES: &str = "no-new-privileges keeps it from an ordinary user: run netra-init as \
                                 root (docker: --user 0; kubernetes: runAsUser: 0), or without \
                                 no-new-privileges";
const ORDINARY_USER: &str = "an ordinary user gets it from the file alone: run netra-init as root \
                             (sudo; docker: --user 0), or setcap cap_net_admin,cap_net_raw+p on it";
const OTHER_NAMESPACE: &str = "this process has it, but not for this network namespace, which belongs \
                               to another user namespace, or a seccomp profile refuses: run \
                               netra-init where the network was made";

/// What helps this process.
pub(crate) fn remedy() -> &'static str {
    remedy_of(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default())
}

/// What helps the process that has this `/proc/PID/status`.
fn remedy_of(status: &str) -> &'static str {
    let field = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_ascii_whitespace().next()
    };
    let has = |set| {
        let set = field(set).and_then(|set| u64::from_str_radix(set, 16).ok());
        set.is_some_and(|set| set & (1 << sys::NET_ADMIN) != 0)
    };
    let is_root = field("Uid:").is_none_or(|uid| uid == "0");
    match field("NoNewPrivs:") {
        _ if has("CapEff:") => OTHER_NAMESPACE,
        // It may never have it, whoever it is.
        _ if !has("CapBnd:") || is_root => ADD,
        Some("1") => NO_NEW_PRIVILEGES,
        _ => ORDINARY_USER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_remedy() {
        let (all, none) = ("000001ffffffffff", "0000000000000000");
        let docker = "00000000a80425fb";
        for (uid, effective, bounding, no_new, wanted) in [
            ("65534", none, docker, "1", ADD),
            ("0", docker, docker, "0", ADD),
            ("65534", none, all, "1", NO_NEW_PRIVILEGES),
            ("65534", none, all, "0", ORDINARY_USER),
            ("0", all, all, "0", OTHER_NAMESPACE),
        ] {
            let status = format!(
                "Name:\tnetra-init\nUid:\t{uid}\t{uid}\nCapEff:\t{effective}\nCapBnd:\t{bounding}\n\
                 NoNewPrivs:\t{no_new}\n"
            );
            assert_eq!(remedy_of(&status), wanted, "{status}");
        }
        assert_eq!(remedy_of(""), ADD);
    }
}
