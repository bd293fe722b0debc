//! Clusters of the rules: their endpoints, who is left out, and why.

use super::units::{age, number};
use crate::mask;
use ratatui::{
    layout::Constraint,
    style::{Color, Style, Stylize},
    widgets::{Row, Table},
};
use serde_json::Value;

/// Widths of the columns.
const COLUMNS: [u16; 9] = [26, 24, 32, 8, 11, 9, 9, 9, 8];
const NAMES: [&str; 9] = [
    "cluster",
    "endpoint",
    "state",
    "requests",
    "connections",
    "answers",
    "failures",
    "ejections",
    "since",
];

/// Lines that it takes; where there are no rules that send elsewhere, nothing is shown.
pub(super) fn height(clusters: &Value) -> u16 {
    match endpoints(clusters).count() {
        0 => 0,
        lines => u16::try_from(lines).unwrap_or(u16::MAX - 2) + 2,
    }
}

pub(super) fn title(clusters: &Value) -> String {
    let total = number(clusters["clusters_total"].as_f64().unwrap_or(0.0));
    format!("clusters, {total}; more at /clusters")
}

pub(super) fn table(clusters: &Value) -> Table<'static> {
    let rows = endpoints(clusters).map(|(cluster, endpoint)| row(cluster, endpoint));
    let rows: Vec<_> = rows.collect();
    let is_there = !rows.is_empty();
    let table = Table::new(rows, COLUMNS.map(Constraint::Length));
    if is_there { table.header(Row::new(NAMES).dim()) } else { table }
}

fn endpoints(clusters: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let list = |it: &'_ Value, name: &str| it[name].as_array().map_or(0, Vec::len);
    let all = 0..list(clusters, "clusters");
    all.map(|at| &clusters["clusters"][at]).flat_map(move |cluster| {
        (0..list(cluster, "endpoints")).map(move |at| (cluster, &cluster["endpoints"][at]))
    })
}

fn row(cluster: &Value, endpoint: &Value) -> Row<'static> {
    // Whoever answers writes no escape sequences.
    let text = |it: &Value| mask::line(it.as_str().unwrap_or("-")).into_owned();
    let count = |name: &str| number(endpoint[name].as_f64().unwrap_or(0.0));
    let mut state = text(&endpoint["state"]);
    if endpoint["why"].is_string() {
        state = format!("{state}: {}", text(&endpoint["why"]));
    }
    if let Some(ms) = endpoint["out_for_ms"].as_f64() {
        state = format!("{state}, {} more", age(ms / 1e3));
    }
    let since = endpoint["changed_ms_ago"].as_f64().map_or("-".into(), |ms| age(ms / 1e3));
    let style = match endpoint["state"].as_str() {
        Some("up") => Style::new(),
        Some("warming") => Style::new().fg(Color::Yellow),
        _ => Style::new().fg(Color::Red),
    };
    Row::new([
        text(&cluster["name"]),
        text(&endpoint["address"]),
        state,
        count("requests"),
        count("connections"),
        count("answers"),
        count("failures"),
        count("ejections"),
        since,
    ])
    .style(style)
}
