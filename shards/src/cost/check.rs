//! `make bench-check`: this test program under callgrind, each work by itself, and its instructions
//! against those that are committed.
//!
//! What is counted is the difference between few times and many, so that start and warm-up drop
//! out. Two numbers each: instructions of this program, which the compiler and `Cargo.lock` fix, and
//! those of the C library (copies, comparisons), which has other code for other processors. The
//! library is told to take its plain code (`GLIBC_TUNABLES`), and its number is compared only where
//! its version is the one of the committed number.

use super::Work;
use std::{
    collections::HashMap,
    env,
    fmt::Write as _,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bench/instructions.txt");
/// How far a count may be from the committed one.
const TOLERANCE_PERCENT: f64 = 2.0;
const FEW: u32 = 1_000;
const MANY: u32 = 9_000;
/// Bits of the processor by which the C library chooses its copies, under old and new names.
const PLAIN_LIBRARY: &str = "glibc.cpu.hwcaps=-AVX2_Usable,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,\
    -FSRM,-AVX512F_Usable,-AVX512VL_Usable,-AVX512F,-AVX512VL,-AVX512BW,-BMI2,-BMI2_Usable,-RTM,\
    -SSSE3,-SSE4_1,-SSE4_2,-Fast_Unaligned_Copy,-Fast_Copy_Backward";

/// Instructions, each time that the work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Count {
    own: f64,
    library: f64,
}

/// What the counts depend on besides the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Toolchain {
    rustc: String,
    machine: String,
    library: String,
}

/// The committed file, or a new one.
#[derive(Clone, Debug, PartialEq)]
struct Table {
    toolchain: Toolchain,
    counts: Vec<(String, Count)>,
}

impl Table {
    fn write(&self) -> String {
        let Toolchain { rustc, machine, library } = &self.toolchain;
        let mut text = format!(
            "# Instructions in user space by callgrind: `make bench-check` compares, `make bench-check \
             UPDATE=1` renews.\n# Work, those of netra, those of the C library's copies.\n\
             rustc: {rustc}\nmachine: {machine}\nlibrary: {library}\n"
        );
        for (work, Count { own, library }) in &self.counts {
            let _ = writeln!(text, "{work:<14} {own:>6.0} {library:>5.0}");
        }
        text
    }

    fn read(text: &str) -> Option<Self> {
        let said = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
            lines.next().map(|value| value.trim().to_owned())
        };
        let toolchain = Toolchain {
            rustc: said("rustc:")?,
            machine: said("machine:")?,
            library: said("library:")?,
        };
        let count = |line: &str| {
            let mut words = line.split_whitespace();
            let (work, own, library) = (words.next()?, words.next()?, words.next()?);
            let count = Count { own: own.parse().ok()?, library: library.parse().ok()? };
            Some((work.to_owned(), count))
        };
        Some(Self { toolchain, counts: text.lines().filter_map(count).collect() })
    }

    fn of(&self, work: &str) -> Option<Count> {
        self.counts.iter().find(|(name, _)| name == work).map(|(_, count)| *count)
    }
}

/// What there is to say of the counts `now`, and whether they pass.
fn compare(committed: &Table, now: &Table) -> (String, bool) {
    let (mut text, mut passes) = (String::new(), true);
    let same_library = committed.toolchain.library == now.toolchain.library;
    for (work, count) in &now.counts {
        let Some(before) = committed.of(work) else {
            let _ = writeln!(text, "{work}: no committed count");
            passes = false;
            continue;
        };
        let _ = writeln!(text, "{work:<14} {:>6.0} {:>5.0}", count.own, count.library);
        let parts = [
            ("instructions of netra", before.own, count.own),
            ("instructions of the C library", before.library, count.library),
        ];
        for (what, from, to) in parts.into_iter().take(if same_library { 2 } else { 1 }) {
            // A count of a few is not worth a line: one instruction would be many percent.
            let percent = (to - from) * 100.0 / from.max(100.0);
            if percent.abs() > TOLERANCE_PERCENT {
                let _ = writeln!(text, "*** {work}: {from:.0} -> {to:.0} {what} ({percent:+.1} %)");
                passes = false;
            }
        }
    }
    for (work, _) in committed.counts.iter().filter(|(work, _)| now.of(work).is_none()) {
        let _ = writeln!(text, "*** {work}: committed, but not measured any more");
        passes = false;
    }
    if !same_library {
        let (from, to) = (&committed.toolchain.library, &now.toolchain.library);
        let _ =
            writeln!(text, "*** NOT COMPARED: the C library's part ({from} committed, {to} here)");
    }
    (text, passes)
}

fn toolchain() -> Toolchain {
    let first_line = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap_or_else(|e| {
            panic!("{program}: {e}");
        });
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned()
    };
    // Some crates look at the processor for themselves, and valgrind shows them what it can run.
    #[cfg(target_arch = "x86_64")]
    let avx2 = if std::arch::is_x86_feature_detected!("avx2") { " with AVX2" } else { "" };
    #[cfg(not(target_arch = "x86_64"))]
    let avx2 = "";
    Toolchain {
        rustc: first_line(&env::var("RUSTC").unwrap_or("rustc".into()), &["--version"]),
        machine: format!("{}{avx2}", env::consts::ARCH),
        library: first_line("getconf", &["GNU_LIBC_VERSION"]),
    }
}

/// Self cost by object of a callgrind file: this program's and all others'.
fn costs(profile: &str, program: &str) -> [u64; 2] {
    let mut objects: HashMap<&str, bool> = HashMap::new();
    let (mut is_own, mut is_call, mut sums) = (false, false, [0, 0]);
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=").or_else(|| line.strip_prefix("cob=")) {
            // "(id) name" the first time, then "(id)".
            let (id, name) = object.split_once(' ').unwrap_or((object, ""));
            let own = *objects.entry(id).or_insert_with(|| name == program);
            if line.starts_with("ob=") {
                is_own = own;
            }
        } else if line.starts_with("calls=") {
            is_call = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c))
            && !std::mem::take(&mut is_call)
        {
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            sums[usize::from(!is_own)] += cost.unwrap_or(0);
        }
    }
    sums
}

/// What is done by a program of its own: the exporter's encoding, which is not this crate's. What it is
/// called, and of what spans it is.
const ENCODINGS: [(&str, &str); 2] = [("SpanEncoding", "http"), ("RedisEncoding", "redis")];

/// The program that does this work so often.
fn program(work: &str, times: u32) -> (PathBuf, Vec<String>) {
    let tests = env::current_exe().unwrap();
    if let Some((_, of)) = ENCODINGS.iter().find(|(name, _)| *name == work) {
        let encode = tests.parent().unwrap().parent().unwrap().join("examples/encode");
        assert!(encode.exists(), "{} is not built: see `make bench-check`", encode.display());
        return (encode, vec![times.to_string(), (*of).to_owned()]);
    }
    let args = ["cost::a_request_allocates_nothing", "--exact", "--test-threads=1"];
    (tests, args.map(str::to_owned).to_vec())
}

/// All instructions of a program while it does the work so often.
fn instructions(work: &str, times: u32) -> [u64; 2] {
    let (program, args) = program(work, times);
    let folder = env::temp_dir().join(format!("netra-cost-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{work}.{times}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&program)
        .args(args)
        .env_clear()
        .env("PATH", env::var("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", PLAIN_LIBRARY)
        .env("NETRA_COST_WORK", work)
        .env("NETRA_COST_TIMES", times.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("valgrind runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let has_run = said.contains("1 passed") || said.contains("spans in");
    assert!(output.status.success() && has_run, "{work}: {said}");
    let sums = costs(&fs::read_to_string(&file).unwrap(), program.to_str().unwrap());
    fs::remove_file(&file).unwrap();
    // The last one out; others still have files there.
    let _ = fs::remove_dir(&folder);
    assert!(sums[0] > 0, "{work}: nothing was counted");
    sums
}

fn count(work: &str) -> Count {
    let (few, many) = (instructions(work, FEW), instructions(work, MANY));
    // Counts are far below 2^53. Where nothing is done each time, chance decides the sign, which is
    // left out.
    #[allow(clippy::cast_precision_loss)]
    let each = |of: usize| ((many[of] as f64 - few[of] as f64) / f64::from(MANY - FEW)).max(0.0);
    Count { own: each(0), library: each(1) }
}

/// Two at a time: nothing is timed, so they may stand in each other's way.
fn count_all() -> Vec<(String, Count)> {
    let encodings = ENCODINGS.map(|(name, _)| name.to_owned());
    let works: Vec<_> =
        Work::ALL.map(|work| format!("{work:?}")).into_iter().chain(encodings).collect();
    let every_second = |from: usize| -> Vec<_> {
        works.iter().skip(from).step_by(2).map(|work| (work.clone(), count(work))).collect()
    };
    let (one, two) = thread::scope(|scope| {
        let other = scope.spawn(|| every_second(1));
        (every_second(0), other.join().unwrap())
    });
    let done: HashMap<_, _> = one.into_iter().chain(two).collect();
    works.into_iter().map(|work| (work.clone(), done[&work])).collect()
}

#[test]
#[ignore = "takes valgrind and an optimised build: make bench-check"]
fn instructions_are_those_committed() {
    let now = Table { toolchain: toolchain(), counts: count_all() };
    if env::var("UPDATE").is_ok_and(|value| !value.is_empty()) {
        fs::write(COMMITTED, now.write()).unwrap();
        eprint!("{}", now.write());
        return;
    }
    let committed = Table::read(&fs::read_to_string(COMMITTED).unwrap()).expect("a table");
    let (before, here) = (&committed.toolchain, &now.toolchain);
    if before.machine != here.machine {
        eprintln!("*** NOT COMPARED: counted on {}, this is {} ***", before.machine, here.machine);
        eprint!("{}", now.write());
        return;
    }
    assert_eq!(
        before.rustc,
        here.rustc,
        "another compiler makes other code: look at the counts, then `make bench-check UPDATE=1`\n{}",
        compare(&committed, &now).0
    );
    let (text, passes) = compare(&committed, &now);
    eprint!("{text}");
    assert!(
        passes,
        "more than {TOLERANCE_PERCENT} % off: make it cheaper again, or say in the commit why not \
         and `make bench-check UPDATE=1`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(library: &str, own: f64, copies: f64) -> Table {
        let toolchain = Toolchain {
            rustc: "rustc 1".into(),
            machine: "x86_64".into(),
            library: library.into(),
        };
        Table { toolchain, counts: vec![("Tcp".into(), Count { own, library: copies })] }
    }

    #[test]
    fn a_table_comes_back_as_it_was_written() {
        let table = table("glibc 2.36", 1402.0, 210.0);
        assert_eq!(Table::read(&table.write()), Some(table));
    }

    #[test]
    fn beyond_two_percent_is_told_either_way() {
        let before = table("glibc 2.36", 1000.0, 200.0);
        for (own, copies, passes, says) in [
            (1020.0, 204.0, true, None),
            (1021.0, 200.0, false, Some("*** Tcp: 1000 -> 1021 instructions of netra (+2.1 %)")),
            (979.0, 200.0, false, Some("1000 -> 979")),
            (1000.0, 205.0, false, Some("200 -> 205 instructions of the C library (+2.5 %)")),
        ] {
            let (text, passed) = compare(&before, &table("glibc 2.36", own, copies));
            assert_eq!(passed, passes, "{text}");
            assert!(says.is_none_or(|it| text.contains(it)), "{text}");
        }
        let (text, passed) = compare(&before, &table("glibc 2.41", 1000.0, 300.0));
        assert!(passed && text.contains("NOT COMPARED"), "{text}");
        let (text, passed) = compare(&before, &Table { counts: vec![], ..before.clone() });
        assert!(!passed && text.contains("not measured"), "{text}");
        let (text, passed) = compare(&Table { counts: vec![], ..before.clone() }, &before);
        assert!(!passed && text.contains("no committed count"), "{text}");
    }

    #[test]
    fn calls_are_not_counted_twice() {
        let profile = "positions: line\nevents: Ir\n\nob=(1) /a/test\nfl=(1) a.rs\nfn=(1) f\n12 5\n+1 7\n\
            cob=(2) /lib/libc.so.6\ncfn=(2) memcpy\ncalls=3 0\n+1 90\n* 2\n\nob=(2)\nfn=(2)\n0 90\n\n\
            ob=(1)\nfn=(3) g\n-4 1\n\ntotals: 105\n";
        assert_eq!(costs(profile, "/a/test"), [15, 90]);
    }
}
