//! What people and scrapers see: a page, metrics, an explanation.

use crate::{office::Office, scope::Reason, shelf::Item};
use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

/// Rows of the page's tables, at most; how many more there are is said.
const ROWS_MAX: usize = 500;

/// A metric: name, what it is, and its values by labels.
type Family<'f> = (&'f str, &'f str, &'f [(&'f str, u64)]);

/// Prometheus text.
pub(crate) fn metrics(office: &Office) -> String {
    let world = office.world.borrow().clone();
    let census = office.fleet.census();
    let endpoints: usize = world.services.iter().map(|it| it.endpoints.len()).sum();
    let good = census.sidecars - census.with_trouble;
    let states =
        [("{state=\"good\"}", good as u64), ("{state=\"trouble\"}", census.with_trouble as u64)];
    let mut out = String::new();
    let gauges: [Family<'_>; 6] = [
        ("generation", "Changes of the world since the start", &[("", world.generation)]),
        ("documents", "Documents that are good", &[("", world.documents.len() as u64)]),
        ("troubles", "What is wrong with the source", &[("", world.troubles.len() as u64)]),
        ("endpoints", "Endpoints of all services", &[("", endpoints as u64)]),
        ("workloads", "Addresses whose owner is known", &[("", world.workloads.len() as u64)]),
        ("sidecars", "Sidecars heard of in the last five minutes", &states),
    ];
    let leads = [("", office.counts.leads.load(Relaxed))];
    gauges.iter().for_each(|family| write(&mut out, "gauge", family));
    let counts = &office.counts;
    let answers = [
        ("{answer=\"fresh\"}", counts.fresh.load(Relaxed)),
        ("{answer=\"unchanged\"}", counts.unchanged.load(Relaxed)),
        ("{answer=\"refused\"}", counts.refused.load(Relaxed)),
    ];
    let reviews = [
        ("{answer=\"allowed\"}", counts.admitted.load(Relaxed)),
        ("{answer=\"refused\"}", counts.not_admitted.load(Relaxed)),
    ];
    write(&mut out, "gauge", &("leader", "1 while it writes status into documents", &leads));
    let writes = [
        ("{outcome=\"good\"}", counts.written.load(Relaxed)),
        ("{outcome=\"bad\"}", counts.not_written.load(Relaxed)),
    ];
    let counters: [Family<'_>; 3] = [
        ("answers_total", "Questions for rules, by their answer", &answers),
        ("reviews_total", "Objects that the webhook has judged", &reviews),
        ("status_writes_total", "Status written into documents", &writes),
    ];
    counters.iter().for_each(|family| write(&mut out, "counter", family));
    out
}

fn write(out: &mut String, kind: &str, (name, help, rows): &Family<'_>) {
    let name = format!("netra_control_{name}");
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in *rows {
        let _ = writeln!(out, "{name}{labels} {value}");
    }
}

/// What a namespace's sidecars get, and what not.
pub(crate) fn explanation(namespace: &str, item: &Item, reasons: &[Reason]) -> String {
    let mut out = format!("namespace {namespace} gets {} ({} bytes)\n", item.tag, item.plain.len());
    for is_in in [true, false] {
        for reason in reasons.iter().filter(|reason| reason.is_in == is_in) {
            let word = if is_in { "in " } else { "out" };
            let _ = writeln!(out, "{word}  {:<50} {}", reason.place, reason.why);
        }
    }
    out
}

/// The page.
pub(crate) fn html(office: &Office) -> String {
    let world = office.world.borrow().clone();
    let census = office.fleet.census();
    let mut out = String::from(HEAD);
    let _ = write!(
        out,
        "<p>Change {} of the source: {} documents, {} services, {} workloads. {} sidecars, {} of them \
         with trouble.</p>",
        world.generation,
        world.documents.len(),
        world.services.len(),
        world.workloads.len(),
        census.sidecars,
        census.with_trouble
    );
    table(&mut out, "What is wrong", &["what"], world.troubles.iter().map(|it| [escaped(it)]));
    let documents = world
        .documents
        .iter()
        .map(|it| [&it.kind, &it.namespace, &it.name, &it.place].map(|text| escaped(text)));
    table(&mut out, "Documents", &["kind", "namespace", "name", "place"], documents);
    let tags = census.tags.iter().map(|(tag, count)| {
        [escaped(if tag.is_empty() { "nothing yet" } else { tag }), count.to_string()]
    });
    table(&mut out, "Sidecars by what they run", &["tag", "sidecars"], tags);
    let sidecars = office
        .fleet
        .all()
        .into_iter()
        .map(|((of, pod), it)| [&of, &pod, &it.tag, &it.trouble].map(|text| escaped(text)));
    table(&mut out, "Sidecars", &["namespace", "pod", "tag", "trouble"], sidecars);
    out.push_str("</main></body></html>\n");
    out
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<title>netra-control</title><style>:root{color-scheme:light dark}body{font:14px system-ui,sans-serif;\
margin:2em}table{border-collapse:collapse}th,td{text-align:left;padding:.2em 1em .2em 0;\
border-bottom:1px solid #8884}</style></head><body><main><h1>netra-control</h1>";

fn table<const N: usize>(
    out: &mut String,
    title: &str,
    heads: &[&str; N],
    rows: impl ExactSizeIterator<Item = [String; N]>,
) {
    let count = rows.len();
    if count == 0 {
        return;
    }
    let _ = write!(out, "<h2>{title} ({count})</h2><table><thead><tr>");
    for head in heads {
        let _ = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    for row in rows.take(ROWS_MAX) {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    if count > ROWS_MAX {
        let _ = write!(out, "<p>and {} more</p>", count - ROWS_MAX);
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}
