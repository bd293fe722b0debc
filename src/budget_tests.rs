use super::*;
use crate::load::{Sources, load};
use crate::texts::byte_count;

fn loaded(pairs: &[(&str, &str)]) -> Loaded {
    let mut environment = vec![("NETRA_SERVICE_NAME".to_owned(), "shop".to_owned())];
    environment.extend(pairs.iter().map(|(name, text)| ((*name).into(), (*text).into())));
    load(&Sources { environment, ..Sources::default() }).unwrap()
}

fn limited(mib: u64) -> Memory {
    let file = |name: &str| format!("/sys/fs/cgroup/memory.{name}");
    let (usage_file, stat_file) = (file("current"), file("stat"));
    Memory { limit: Some(Limit { bytes: mib * MIB, usage_file, stat_file }), total: 8 << 30 }
}

const HTTP: (&str, &str) = ("NETRA_HTTP_PORTS", "8080");
const ALL: [(&str, &str); 3] =
    [HTTP, ("NETRA_HTTP_ROUTING_ENABLED", "true"), ("NETRA_ACCESS_LOG", "all")];

#[test]
fn parts_are_never_more_than_the_budget_and_none_is_below_what_it_needs() {
    for pairs in [&[][..], &[HTTP], &ALL] {
        for mib in [16, 17, 24, 32, 48, 64, 128, 256, 1024, 64 << 10] {
            for shards in [1, 2, 4] {
                let loaded = loaded(pairs);
                let budget = Budget::new(&loaded, shards, &limited(mib));
                let shown: Vec<_> = budget.parts().collect();
                assert!(budget.sum() <= mib * MIB, "{mib} MiB, {shards} shards: {shown:?}");
                let counts = budget.counts;
                for (kind, (count, wish)) in
                    counts.kinds.iter().zip(budget.wishes.kinds).enumerate()
                {
                    let name = TABLE[kind].name;
                    assert!((wish.least..=wish.most).contains(count), "{name}: {count}, {wish:?}");
                }
                assert!(counts.connections >= CONNECTIONS_LEAST);
            }
        }
    }
}

#[test]
fn more_memory_is_never_less_of_anything() {
    let loaded = loaded(&ALL);
    let counts = |mib| Budget::new(&loaded, 2, &limited(mib)).counts;
    for mib in 16..600 {
        let (less, more) = (counts(mib), counts(mib + 1));
        assert!(less.kinds.iter().zip(more.kinds).all(|(less, more)| *less <= more), "{mib}");
        // What a part grows by may be rounded up at the cost of the rest.
        assert!(less.connections <= more.connections + 1, "{mib}: {less:?}, {more:?}");
    }
}

#[test]
fn what_is_plenty_is_what_the_settings_say() {
    let mut with = loaded(&ALL);
    let before = with.config.clone();
    apply(&mut with, 2, &limited(4096));
    assert_eq!(with.config.limits.buffers_max, before.limits.buffers_max);
    assert_eq!(with.config.limits.pipes_max, before.limits.pipes_max);
    assert_eq!(with.config.http.held_bytes_max, before.http.held_bytes_max);
    assert_eq!(with.config.http.limits.contexts_max, before.http.limits.contexts_max);
    let spans = |config: &Config| config.tracing.as_ref().unwrap().tracing.spans_max;
    assert_eq!(spans(&with.config), spans(&before));
    assert!(with.warnings.is_empty());
}

/// A head that comes in pieces may be held wherever something reads along.
#[test]
fn whoever_reads_may_hold_heads() {
    for setting in [HTTP, ("NETRA_PROTOCOLS", "6379=redis"), ("NETRA_DETECT", "true")] {
        let mut with = loaded(&[setting]);
        apply(&mut with, 2, &limited(64));
        assert!(with.config.http.held_bytes_max >= 64 << 10, "{setting:?}");
    }
}

#[test]
fn what_is_set_wins_and_what_does_not_fit_is_told() {
    let mut with = loaded(&[HTTP, ("NETRA_BUFFERS_MAX", "512"), ("NETRA_CONNECTIONS_MAX", "9000")]);
    apply(&mut with, 2, &limited(64));
    assert_eq!((with.config.limits.buffers_max, with.config.limits.connections_max), (512, 9000));
    assert_eq!(with.warnings.len(), 1, "{:?}", with.warnings);
    assert!(with.warnings[0].contains("more than NETRA_MEMORY_MAX, 64 MiB (the cgroup's limit)"));
    // Fewer connections than fit leave nothing to tell.
    let mut with = loaded(&[HTTP, ("NETRA_CONNECTIONS_MAX", "500")]);
    apply(&mut with, 2, &limited(64));
    assert_eq!((with.config.limits.connections_max, with.warnings.len()), (500, 0));
}

#[test]
fn the_budget_that_is_set_goes_before_the_cgroup_which_goes_before_the_machine() {
    let words = |pairs: &[(&str, &str)], memory: &Memory| {
        let mut loaded = loaded(pairs);
        apply(&mut loaded, 1, memory);
        let decided = loaded.decided.iter().find(|(name, _)| *name == "NETRA_MEMORY_MAX").unwrap();
        let watched = loaded.config.memory.map(|watch| watch.limit / MIB);
        (decided.1.split(':').next().unwrap().to_owned(), watched, loaded.warnings.len())
    };
    let nothing = Memory { limit: None, total: 8 << 30 };
    assert_eq!(words(&[], &nothing), ("4096 MiB, half of the machine".into(), None, 0));
    let cgroup = ("64 MiB, the cgroup's limit".into(), Some(64), 0);
    assert_eq!(words(&[], &limited(64)), cgroup);
    let set = [("NETRA_MEMORY_MAX", "48Mi")];
    assert_eq!(words(&set, &limited(64)), ("48 MiB, as set".into(), Some(48), 0));
    let more = ("48 MiB, as set".into(), Some(32), 1);
    assert_eq!(words(&set, &limited(32)), more, "told that the cgroup allows less");
}

#[test]
fn limits_of_cgroups_are_found_in_either_version() {
    let find = |cgroups: &str, files: &[(&str, &str)]| {
        let read =
            |path: &str| files.iter().find(|file| file.0 == path).map(|file| file.1.to_owned());
        limit(cgroups, 8 << 30, read).map(|limit| (limit.bytes, limit.usage_file))
    };
    let own = ("/sys/fs/cgroup/pod/c/memory.max", "67108864\n");
    let pod = ("/sys/fs/cgroup/pod/memory.max", "33554432\n");
    assert_eq!(find("0::/pod/c\n", &[]), None);
    let usage = |level: &str| format!("/sys/fs/cgroup{level}/memory.current");
    assert_eq!(find("0::/pod/c\n", &[own]), Some((64 * MIB, usage("/pod/c"))));
    assert_eq!(find("0::/pod/c\n", &[own, pod]), Some((32 * MIB, usage("/pod"))));
    let root = ("/sys/fs/cgroup/memory.max", "max\n");
    assert_eq!(find("0::/\n", &[root]), None);
    assert_eq!(find("0::/\n", &[(root.0, "1048576")]), Some((MIB, usage(""))));
    // v1: the host's path, and in a container the files at the root.
    let v1 = "4:memory:/docker/a\n0::/\n";
    let in_v1 = |level: &str, name: &str| format!("/sys/fs/cgroup/memory{level}/memory.{name}");
    let (host, root) = (in_v1("/docker/a", "limit_in_bytes"), in_v1("", "limit_in_bytes"));
    let unlimited = "9223372036854771712\n";
    assert_eq!(find(v1, &[(&host, unlimited)]), None);
    assert_eq!(find(v1, &[(&host, "1")]), Some((1, in_v1("/docker/a", "usage_in_bytes"))));
    assert_eq!(find(v1, &[(&root, "1")]), Some((1, in_v1("", "usage_in_bytes"))));
    assert_eq!(mem_total("MemTotal:       24683424 kB\nMemFree: 1 kB\n"), Some(24_683_424 << 10));
    assert_eq!(mem_total(""), None);
}

#[test]
fn sizes_are_powers_of_1024() {
    for (text, size) in [
        ("67108864", Some(64 * MIB)),
        ("64M", Some(64 * MIB)),
        ("64Mi", Some(64 * MIB)),
        ("65536KiB", Some(64 * MIB)),
        ("1g", Some(1 << 30)),
        ("", None),
        ("M", None),
        ("64MB", None),
        ("-1", None),
        ("1.5G", None),
        ("99999999999999999999", None),
        ("18014398509481984K", None),
    ] {
        assert_eq!(byte_count(text), size, "{text}");
    }
    assert_eq!([mib(64 * MIB), mib(MIB * 3 / 2), mib(0)], ["64", "1.5", "0"]);
}
