//! How many shards, and on which CPUs: what the process may run on, what its cgroup pays for, and a
//! cap, because a sidecar is a guest. The reason is kept in words, for the start line.

use std::{
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Shards are not added beyond this by themselves: two carry more than most services ask for, and
/// each costs memory and a place in the kernel's spreading of connections.
const SHARDS_CAP: usize = 2;

/// What `NETRA_CPUS` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum CpuChoice {
    /// Some of the allowed CPUs, others in other pods.
    #[default]
    Auto,
    /// No pinning.
    None,
    /// These, in this order.
    These(Vec<usize>),
}

impl CpuChoice {
    /// Reads `auto`, `none` or a list of numbers and ranges, as cpusets are written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "none" => Some(Self::None),
            list => {
                let ranges: Option<Vec<_>> = list.split(',').map(parse_range).collect();
                Some(Self::These(ranges?.into_iter().flatten().collect()))
            }
        }
    }
}

/// Linux has no more CPUs than this (CONFIG_NR_CPUS at its largest).
const CPU_MAX: u32 = 8191;

fn parse_range(text: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let cpu = |text| crate::texts::whole(text, 0, CPU_MAX).map(|cpu| cpu as usize);
    let (first, last) = (cpu(first)?, cpu(last)?);
    (first <= last).then_some(first..=last)
}

/// What the machine grants this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// CPUs this process may run on.
    allowed: Vec<usize>,
    /// What the cgroups pay for, where they set a limit.
    quotas: Vec<Quota>,
    /// Differs between pods on one node.
    hostname: String,
}

impl Machine {
    /// Asks the kernel. To be called once, before any thread is pinned: a pinned thread sees the
    /// one CPU it is pinned to.
    pub(crate) fn read() -> Self {
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let cgroups = read("/proc/self/cgroup").unwrap_or_default();
        Self {
            allowed: allowed.into_iter().map(|core| core.id).collect(),
            quotas: quotas(&cgroups, read),
            hostname: read("/proc/sys/kernel/hostname").unwrap_or_default().trim().into(),
        }
    }
}

/// The limit of one cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Quota {
    /// Where the cgroup's files are.
    directory: String,
    /// Thousandths of a CPU.
    millis: u64,
}

/// How many shards run, where, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) shards: usize,
    pub(crate) shards_why: String,
    /// Empty pins nothing.
    pub(crate) cpus: Vec<usize>,
    /// The cpu.stat of each cgroup with a quota: there it says whether it was used up.
    pub(crate) throttle_files: Vec<String>,
}

impl Plan {
    /// What `auto` came to, by setting.
    pub(crate) fn decided(&self) -> [(&'static str, String); 2] {
        [
            ("NETRA_SHARDS", format!("{}, because {}", self.shards, self.shards_why)),
            ("NETRA_CPUS", self.cpus_in_words()),
        ]
    }

    /// The CPUs as they are logged.
    pub(crate) fn cpus_in_words(&self) -> String {
        if self.cpus.is_empty() {
            return "not pinned".into();
        }
        self.cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Decides; fails with what is allowed when a CPU is named that this process may not use.
pub(crate) fn plan(
    machine: &Machine,
    shards: Option<usize>,
    cpus: &CpuChoice,
) -> Result<Plan, String> {
    let (shards, shards_why) = match shards {
        Some(count) => (count, "NETRA_SHARDS".into()),
        None => count_shards(machine),
    };
    let cpus = match cpus {
        CpuChoice::Auto => spread(machine, shards),
        CpuChoice::None => Vec::new(),
        CpuChoice::These(list) if list.iter().all(|cpu| machine.allowed.contains(cpu)) => {
            list.clone()
        }
        CpuChoice::These(_) => {
            return Err(format!("CPUs of this process, {:?}", machine.allowed));
        }
    };
    let stat = |quota: &Quota| format!("{}/cpu.stat", quota.directory);
    let throttle_files = machine.quotas.iter().map(stat).collect();
    Ok(Plan { shards, shards_why, cpus, throttle_files })
}

fn count_shards(machine: &Machine) -> (usize, String) {
    let allowed = machine.allowed.len().max(1);
    let mut count = allowed.min(SHARDS_CAP);
    let plural = if allowed == 1 { "" } else { "s" };
    let mut why = format!("{allowed} CPU{plural} allowed");
    match machine.quotas.iter().map(|quota| quota.millis).min() {
        Some(millis) => {
            count = count.min(usize::try_from(millis.div_ceil(1000)).unwrap_or(usize::MAX)).max(1);
            let _ = write!(why, ", quota of {}.{:03}", millis / 1000, millis % 1000);
        }
        None => why.push_str(", no quota"),
    }
    let _ = write!(why, ", cap {SHARDS_CAP}");
    (count, why)
}

/// The CPUs for `shards` shards. Where there are more CPUs than shards, the first one depends on
/// the pod: else the sidecars of a whole node would all sit on its first two CPUs.
fn spread(machine: &Machine, shards: usize) -> Vec<usize> {
    let allowed = &machine.allowed;
    if shards >= allowed.len() {
        return allowed.clone();
    }
    let mut hasher = DefaultHasher::new();
    machine.hostname.hash(&mut hasher);
    let first = usize::try_from(hasher.finish() % allowed.len() as u64).unwrap_or(0);
    allowed.iter().cycle().skip(first).take(shards).copied().collect()
}

/// The limits of the cgroups from ours upwards, v1 or v2. A container sees its own cgroup as the
/// root, so that the lower levels of the path may be missing.
fn quotas(cgroups: &str, read: impl Fn(&str) -> Option<String>) -> Vec<Quota> {
    let mut quotas = Vec::new();
    for line in cgroups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        for level in levels(path) {
            let directory = match controllers {
                "" => format!("/sys/fs/cgroup{level}"),
                v1 if v1.split(',').any(|name| name == "cpu") => {
                    format!("/sys/fs/cgroup/{v1}{level}")
                }
                _ => continue,
            };
            let file = |name| read(&format!("{directory}/{name}"));
            let limit = file("cpu.max").and_then(|text| parse_v2(&text)).or_else(|| {
                let (quota, period) = (file("cpu.cfs_quota_us")?, file("cpu.cfs_period_us")?);
                parse_ratio(quota.trim(), period.trim())
            });
            quotas.extend(limit.map(|millis| Quota { directory, millis }));
        }
    }
    quotas
}

/// `/a/b`, `/a` and the root, which is empty.
pub(crate) fn levels(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_end_matches('/');
    std::iter::successors(Some(path), |path| path.rfind('/').map(|end| &path[..end]))
}

/// `max 100000` or `150000 100000`.
fn parse_v2(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    parse_ratio(quota, period)
}

/// Thousandths of a CPU; v1 says -1 and v2 says max where there is no limit.
fn parse_ratio(quota: &str, period: &str) -> Option<u64> {
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.saturating_mul(1000) / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(allowed: usize, quota_millis: Option<u64>) -> Machine {
        let quota = |millis| Quota { directory: "/sys/fs/cgroup".into(), millis };
        let quotas = quota_millis.map(quota).into_iter().collect();
        Machine { allowed: (0..allowed).collect(), quotas, hostname: "pod-1".into() }
    }

    fn quota(cgroups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let read =
            |path: &str| files.iter().find(|file| file.0 == path).map(|file| file.1.to_owned());
        quotas(cgroups, read).iter().map(|quota| quota.millis).min()
    }

    #[test]
    fn shards_are_the_least_of_cpus_quota_and_cap() {
        for (allowed, quota, count, why) in [
            (8, None, 2, "8 CPUs allowed, no quota, cap 2"),
            (1, None, 1, "1 CPU allowed, no quota, cap 2"),
            (0, None, 1, "1 CPU allowed, no quota, cap 2"),
            (8, Some(1500), 2, "8 CPUs allowed, quota of 1.500, cap 2"),
            (8, Some(1000), 1, "8 CPUs allowed, quota of 1.000, cap 2"),
            (8, Some(10), 1, "8 CPUs allowed, quota of 0.010, cap 2"),
            (8, Some(0), 1, "8 CPUs allowed, quota of 0.000, cap 2"),
            (1, Some(4000), 1, "1 CPU allowed, quota of 4.000, cap 2"),
        ] {
            let plan = plan(&machine(allowed, quota), None, &CpuChoice::Auto).unwrap();
            assert_eq!((plan.shards, plan.shards_why.as_str()), (count, why));
        }
        let plan = plan(&machine(1, Some(500)), Some(4), &CpuChoice::Auto).unwrap();
        assert_eq!((plan.shards, plan.shards_why.as_str()), (4, "NETRA_SHARDS"));
        assert_eq!(plan.cpus, [0]);
    }

    #[test]
    fn throttling_is_told_where_there_is_a_quota() {
        let files =
            |quota| plan(&machine(2, quota), None, &CpuChoice::Auto).unwrap().throttle_files;
        assert_eq!(files(Some(500)), ["/sys/fs/cgroup/cpu.stat"]);
        assert_eq!(files(None), [""; 0]);
    }

    #[test]
    fn pods_spread_over_the_cpus_of_a_node() {
        let mut firsts = std::collections::BTreeSet::new();
        for pod in 0..64 {
            let machine = Machine { hostname: format!("pod-{pod}"), ..machine(4, None) };
            let plan = plan(&machine, None, &CpuChoice::Auto).unwrap();
            assert_eq!(plan.cpus.len(), 2);
            assert_eq!(plan.cpus[1], (plan.cpus[0] + 1) % 4);
            firsts.insert(plan.cpus[0]);
        }
        assert_eq!(firsts.len(), 4);
        assert_eq!(plan(&machine(2, None), None, &CpuChoice::Auto).unwrap().cpus, [0, 1]);
    }

    #[test]
    fn named_cpus_are_taken_or_refused() {
        let plan_on = |list| plan(&machine(4, None), None, &CpuChoice::parse(list).unwrap());
        assert_eq!(plan_on("3,1").unwrap().cpus, [3, 1]);
        assert_eq!(plan_on("1-3").unwrap().cpus, [1, 2, 3]);
        assert_eq!(plan_on("none").unwrap().cpus, [0usize; 0]);
        assert_eq!(plan_on("4").unwrap_err(), "CPUs of this process, [0, 1, 2, 3]");
        for text in ["", "a", "1,", "-1", "2-1", "8192", "1--2"] {
            assert_eq!(CpuChoice::parse(text), None, "{text}");
        }
    }

    #[test]
    fn quota_of_cgroup_v2_is_the_least_on_the_way_up() {
        let path = "0::/kubepods/pod1/c1\n";
        assert_eq!(quota(path, &[]), None);
        let own = ("/sys/fs/cgroup/kubepods/pod1/c1/cpu.max", "150000 100000\n");
        assert_eq!(quota(path, &[own]), Some(1500));
        let pod = ("/sys/fs/cgroup/kubepods/pod1/cpu.max", "50000 100000\n");
        assert_eq!(quota(path, &[own, pod]), Some(500));
        let root = ("/sys/fs/cgroup/cpu.max", "max 100000\n");
        assert_eq!(quota("0::/\n", &[root]), None);
        assert_eq!(quota("0::/\n", &[(root.0, "200000 100000\n")]), Some(2000));
        assert_eq!(quota("0::/\n", &[(root.0, "nonsense")]), None);
    }

    #[test]
    fn quota_of_cgroup_v1() {
        let groups = "5:memory:/a\n4:cpu,cpuacct:/docker/abc\n3:cpuset:/\n";
        let base = "/sys/fs/cgroup/cpu,cpuacct";
        let (quota_file, period_file) = (
            format!("{base}/docker/abc/cpu.cfs_quota_us"),
            format!("{base}/docker/abc/cpu.cfs_period_us"),
        );
        let with = |us| quota(groups, &[(&quota_file, us), (&period_file, "100000\n")]);
        assert_eq!(with("250000\n"), Some(2500));
        assert_eq!(with("-1\n"), None);
        // In a container the path is the host's, and the files lie at the root.
        let (quota_file, period_file) =
            (format!("{base}/cpu.cfs_quota_us"), format!("{base}/cpu.cfs_period_us"));
        assert_eq!(quota(groups, &[(&quota_file, "50000"), (&period_file, "100000")]), Some(500));
        assert_eq!(quota(groups, &[(&quota_file, "50000"), (&period_file, "0")]), None);
    }
}
