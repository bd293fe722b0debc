//! The budget as markdown and as a picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::watch::Call;
use super::{BudgetReport, Load, Row};
use crate::compare::publish;
use crate::report::bars::{Panel, figure, picture};

const BEGIN: &str = "<!-- budget: begin (written by `make budget`) -->";
const END: &str = "<!-- budget: end -->";
/// Calls that make up less than this of a unit are told together.
const SHARE_MIN: f64 = 0.02;

/// The text with another budget between the markers.
pub(super) fn replace(text: &str, part: &str) -> Result<String, String> {
    publish::replace(text, [BEGIN, END], part)
}

/// All tables.
pub(super) fn markdown(report: &BudgetReport) -> String {
    let machine = &report.machine;
    let mut out = format!(
        "\n{}, Linux {}, {} x {}; medians of {} rounds of {} s. {}.\n",
        machine.date,
        machine.kernel,
        machine.cpu_count,
        machine.cpu,
        report.rounds,
        report.seconds,
        report.versions.iter().map(|(_, said)| said.as_str()).fold(Vec::new(), distinct).join("; ")
    );
    for (load, title) in [
        (Load::Kept, "**A request**, 32 connections that stay, as fast as they go"),
        (Load::Fresh, "**A new connection** with one request, 16 at a time, as fast as they go"),
        (Load::FreshSlow, "**A new connection** at 500 per second: each finds the proxy asleep"),
    ] {
        push_costs(&mut out, report, load, title);
    }
    push_order(&mut out, report);
    push_latency(&mut out, report);
    for (_, why) in &report.skipped {
        let _ = writeln!(out, "\nLeft out: {}.", why.replace('|', "/"));
    }
    out.push('\n');
    out
}

fn distinct<'a>(mut all: Vec<&'a str>, one: &'a str) -> Vec<&'a str> {
    if !all.contains(&one) {
        all.push(one);
    }
    all
}

fn rows(report: &BudgetReport, load: Load) -> impl Iterator<Item = &Row> {
    report.rows.iter().filter(move |row| row.load == load)
}

fn push_costs(out: &mut String, report: &BudgetReport, load: Load, title: &str) {
    let has_instructions = rows(report, load).any(|row| row.instructions.is_ok());
    let counted = if has_instructions { " instructions in user space |" } else { "" };
    let line = if has_instructions { "--:|" } else { "" };
    let _ = writeln!(
        out,
        "\n{title}; everything on one CPU:\n\n| | CPU us | user | kernel |{counted} slept / preempted \
         | woken | page faults | copies kernel + user | calls | calls by name, us of the request in \
         each |\n|---|--:|--:|--:|{line}--:|--:|--:|--:|--:|---|"
    );
    for row in rows(report, load) {
        let _ = write!(out, "| {} |", row.subject);
        match &row.timed {
            Some(timed) => {
                let (user, kernel) = (timed.user_ns / 1e3, timed.kernel_ns / 1e3);
                let cells = [user + kernel, user, kernel].map(figure);
                let _ = write!(out, " {} |", cells.join(" | "));
            }
            None => out.push_str(" not measured | | |"),
        }
        if has_instructions {
            let _ = write!(out, " {} |", told(&row.instructions, |count| format!("{count:.0}")));
        }
        match &row.timed {
            Some(timed) => {
                let _ = write!(out, " {} / {} |", figure(timed.voluntary), figure(timed.forced));
            }
            None => out.push_str(" |"),
        }
        let wakes = row.seen.as_ref().map_err(Clone::clone).and_then(|seen| seen.wakes.clone());
        let _ = write!(out, " {} |", told(&wakes, |wakes| figure(wakes.subject)));
        let faults = row.timed.as_ref().map_or(String::new(), |timed| figure(timed.faults));
        let _ = write!(out, " {faults} | {} |", copies(&row.subject));
        let calls = row.seen.as_ref().map(|seen| seen.calls.as_slice()).map_err(Clone::clone);
        let count = |calls: &&[Call]| figure(calls.iter().map(|call| call.count).sum::<f64>());
        let _ = writeln!(out, " {} | {} |", told(&calls, count), told(&calls, |c| by_name(c)));
    }
}

/// A figure, or why there is none.
fn told<T>(value: &Result<T, String>, show: impl Fn(&T) -> String) -> String {
    match value {
        Ok(value) => show(value),
        Err(why) => {
            let line = why.lines().next().unwrap_or_default();
            format!("not counted: {}", line.replace('|', "/"))
        }
    }
}

/// Copies of the payload in one exchange: each direction is received and sent, once in the kernel
/// either way. By reasoning, for the subjects that come with the program.
fn copies(subject: &str) -> &'static str {
    match subject {
        "haproxy-splice" => "4 or 0 (spliced) + 0",
        name if name.starts_with("nginx-http") => "4 + both heads",
        name if name.starts_with("haproxy-http") => "4 + both heads, in and out of HTX",
        name if name.starts_with("netra-http") => "4 + what is added to the request head",
        name if name.starts_with("netra") || name.starts_with("smallest") => "4 + 0",
        "nginx-stream" | "haproxy-tcp" => "4 + 0",
        _ => "unknown",
    }
}

/// Calls of one name together, the dearest first.
fn by_name(calls: &[Call]) -> String {
    let mut names: BTreeMap<&str, (f64, Option<f64>)> = BTreeMap::new();
    for call in calls {
        let (count, ns) = names.entry(&call.name).or_insert((0.0, Some(0.0)));
        *count += call.count;
        *ns = ns.zip(call.ns).map(|(sum, ns)| sum + ns);
    }
    let mut names: Vec<_> =
        names.into_iter().filter(|(_, (count, _))| *count >= SHARE_MIN).collect();
    names.sort_by(|(_, a), (_, b)| b.1.unwrap_or(b.0).total_cmp(&a.1.unwrap_or(a.0)));
    let shown = names.into_iter().map(|(name, (count, ns))| match ns {
        Some(ns) => format!("{name} {} ({})", figure(count), figure(ns / 1e3)),
        None => format!("{name} {}", figure(count)),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// The calls of a connection as they come, each with its time where the same pair was timed.
fn push_order(out: &mut String, report: &BudgetReport) {
    let rows: Vec<&Row> =
        rows(report, Load::FreshSlow).filter(|row| !row.order.is_empty()).collect();
    if rows.is_empty() {
        return;
    }
    out.push_str(
        "\n**One connection, call by call**: order of strace, in parentheses the us of that call at \
         500 per second; `!` marks one that fails (EAGAIN, EINPROGRESS):\n\n| | calls |\n|---|---|\n",
    );
    for row in rows {
        let calls = row.seen.as_ref().map_or(&[][..], |seen| &seen.calls);
        let mut before = row.order.last().map_or("", |(name, _)| name);
        let mut shown: Vec<(String, usize)> = Vec::new();
        for (name, is_failed) in &row.order {
            let pair = calls.iter().find(|call| {
                call.name == *name && call.before == before && call.is_failed == *is_failed
            });
            let time = pair.and_then(|call| Some(call.ns? / call.count / 1e3));
            let mark = if *is_failed { "!" } else { "" };
            let time = time.map_or(String::new(), |us| format!(" ({})", figure(us)));
            let text = format!("{name}{mark}{time}");
            match shown.last_mut() {
                Some((last, count)) if *last == text => *count += 1,
                _ => shown.push((text, 1)),
            }
            before = name;
        }
        let shown = shown.into_iter().map(|(text, count)| match count {
            1 => text,
            count => format!("{count} x {text}"),
        });
        let _ = writeln!(out, "| {} | {} |", row.subject, shown.collect::<Vec<_>>().join(", "));
    }
}

/// What of the latency at a low rate is waiting to run.
fn push_latency(out: &mut String, report: &BudgetReport) {
    let direct = report.direct.as_ref().map_or(0.0, |direct| direct.p50_us);
    let _ = writeln!(
        out,
        "\n**1000 requests per second**, the proxy on a CPU of its own, load and server on the other \
         (direct: p50 {} us):\n\n| | added p50 us | p99 us | CPU us | woken | us until it ran | load and \
         server woken | us until they ran | waiting to run, of the mean latency then |\n|---|{}",
        figure(direct),
        "--:|".repeat(8)
    );
    for row in rows(report, Load::Paced) {
        let Some(timed) = &row.timed else {
            let why =
                row.seen.as_ref().err().and_then(|why| why.lines().next()).unwrap_or_default();
            let why = why.replace('|', "/");
            let _ = writeln!(out, "| {} | not measured: {why} | | | | | | | |", row.subject);
            continue;
        };
        let cpu = (timed.user_ns + timed.kernel_ns) / 1e3;
        let cells = [timed.p50_us - direct, timed.p99_us, cpu].map(figure).join(" | ");
        let wakes = row.seen.as_ref().map_err(Clone::clone).and_then(|seen| seen.wakes.clone());
        let waits = match &wakes {
            Ok(wakes) => {
                let (ours, others) = (wakes.subject_ns / 1e3, wakes.others_ns / 1e3);
                let share = (ours + others) / wakes.mean_us * 100.0;
                let values = [wakes.subject, ours, wakes.others, others].map(figure).join(" | ");
                format!("{values} | {share:.0} %")
            }
            Err(_) => format!("{} | | | |", told(&wakes, |_| String::new())),
        };
        let _ = writeln!(out, "| {} | {cells} | {waits} |", row.subject);
    }
}

/// The figures that decide, as bars.
pub(super) fn drawing(report: &BudgetReport) -> String {
    let mut names: Vec<&str> = Vec::new();
    for row in &report.rows {
        if !names.contains(&row.subject.as_str()) {
            names.push(&row.subject);
        }
    }
    let panel = |title: &str, load: Load, of: &dyn Fn(&Row) -> Option<f64>| {
        let bars = rows(report, load).filter_map(|row| {
            let color = names.iter().position(|name| *name == row.subject)?;
            Some((row.subject.clone(), of(row)?, color))
        });
        Panel { title: title.to_owned(), bars: bars.collect() }
    };
    let cpu = |row: &Row| row.timed.as_ref().map(|t| (t.user_ns + t.kernel_ns) / 1e3);
    let instructions = |row: &Row| row.instructions.as_ref().ok().copied();
    let calls = |row: &Row| {
        let seen = row.seen.as_ref().ok()?;
        Some(seen.calls.iter().map(|call| call.count).sum())
    };
    let waiting = |row: &Row| {
        let wakes = row.seen.as_ref().ok()?.wakes.as_ref().ok()?;
        Some((wakes.subject_ns + wakes.others_ns) / 1e3)
    };
    let p50 = |row: &Row| row.timed.as_ref().map(|t| t.p50_us);
    let mut panels = vec![
        panel("Request: CPU us", Load::Kept, &cpu),
        panel("New connection: CPU us", Load::Fresh, &cpu),
        panel("Request: instructions in user space", Load::Kept, &instructions),
        panel("New connection: instructions in user space", Load::Fresh, &instructions),
        panel("Request: system calls", Load::Kept, &calls),
        panel("New connection: system calls", Load::Fresh, &calls),
        panel("1000/s on two CPUs: p50 us", Load::Paced, &p50),
        panel("1000/s on two CPUs: us of it waiting to run", Load::Paced, &waiting),
    ];
    panels.retain(|panel| !panel.bars.is_empty());
    let machine = &report.machine;
    let note = format!(
        "{} · Linux {} · {} · lower is better; netra-http and *-http read and change each head",
        machine.date, machine.kernel, machine.cpu
    );
    picture(&note, &panels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Timed;
    use crate::budget::watch::{Seen, Wakes};
    use crate::machine::Machine;

    fn call(before: &str, name: &str, count: f64, ns: f64) -> Call {
        let (before, name) = (before.to_owned(), name.to_owned());
        Call { name, before, is_failed: false, count, ns: Some(ns) }
    }

    fn report() -> BudgetReport {
        let row = |load| Row {
            subject: "smallest".to_owned(),
            load,
            timed: Some(Timed {
                p50_us: 100.0,
                p99_us: 150.0,
                user_ns: 500.0,
                kernel_ns: 5500.0,
                ..Timed::default()
            }),
            seen: Ok(Seen {
                calls: vec![
                    call("close", "accept4", 1.0, 3000.0),
                    call("accept4", "close", 1.0, 4000.0),
                    call("close", "close", 1.0, 9000.0),
                    call("close", "brk", 0.001, 1.0),
                ],
                wakes: Ok(Wakes {
                    subject: 2.0,
                    subject_ns: 3e4,
                    others: 2.0,
                    others_ns: 2e4,
                    mean_us: 100.0,
                }),
            }),
            instructions: Ok(1234.4),
            order: [("accept4", false), ("close", false), ("close", false), ("epoll_wait", true)]
                .map(|(name, is_failed)| (name.to_owned(), is_failed))
                .to_vec(),
        };
        BudgetReport {
            machine: Machine { kernel: "6.1".to_owned(), ..Machine::default() },
            seconds: 1.0,
            rounds: 1,
            versions: vec![("a".to_owned(), "a 1".to_owned()), ("b".to_owned(), "a 1".to_owned())],
            skipped: vec![("c".to_owned(), "c: no program c".to_owned())],
            direct: Some(Timed { p50_us: 20.0, ..Timed::default() }),
            rows: Load::ALL.map(row).to_vec(),
        }
    }

    #[test]
    fn costs_calls_and_waits_are_told() {
        let text = markdown(&report());
        let cells =
            "| smallest | 6.00 | 0.50 | 5.50 | 1234 | 0.00 / 0.00 | 2.00 | 0.00 | 4 + 0 | 3.00 | ";
        assert_eq!(text.matches(cells).count(), 3, "{text}");
        assert!(text.contains("close 2.00 (13.0), accept4 1.00 (3.00) |"), "{text}");
        assert!(text.contains("close (4.00), close (9.00), epoll_wait! |"), "{text}");
        assert!(
            text.contains("| smallest | 80.0 | 150 | 6.00 | 2.00 | 30.0 | 2.00 | 20.0 | 50 % |")
        );
        assert!(
            text.contains("rounds of 1 s. a 1.\n") && text.contains("Left out: c: no program c.")
        );
    }

    #[test]
    fn what_was_not_counted_says_why() {
        let mut report = report();
        for row in &mut report.rows {
            row.instructions = Err("no program valgrind\nmore".to_owned());
            row.seen = Err("bpftrace: a|b".to_owned());
        }
        report.rows[0].instructions = Ok(5.0);
        report.rows[3].timed = None;
        let text = markdown(&report);
        assert!(text.contains("not counted: bpftrace: a/b |"), "{text}");
        assert!(text.contains("| smallest | not measured: bpftrace: a/b |"), "{text}");
        assert!(!text.contains("more"));
        let picture = drawing(&report);
        assert!(picture.contains("Request: instructions") && !picture.contains("system calls"));
    }

    #[test]
    fn the_picture_has_a_panel_for_each_figure() {
        let picture = drawing(&report());
        assert_eq!(picture.matches("class=\"title\"").count(), 8);
        assert_eq!(picture.matches("class=\"rail\"").count(), 8, "a bar each");
    }

    #[test]
    fn only_the_part_between_the_markers_changes() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(replace(&text, "new\n"), Ok(format!("before\n{BEGIN}\nnew\n{END}\nafter\n")));
        assert!(replace("nothing", "new").is_err());
    }
}
