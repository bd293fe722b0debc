//! The screen.

use super::{
    ORDERS, Screen, clusters,
    figures::{Figures, Percentiles, ShardFigures},
    units::{age, number, size, time},
};
use crate::mask;
use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Table},
};
use serde_json::Value;

const INBOUND: Color = Color::Cyan;
const OUTBOUND: Color = Color::Yellow;

/// Lines of a heading, two directions and a sum.
const CARDS_HEIGHT: u16 = 5;
/// Widths of the columns of connections.
const COLUMNS: [u16; 12] = [22, 22, 9, 8, 8, 8, 9, 9, 9, 10, 17, 6];

/// Columns and lines that show all there is.
pub(super) fn size_of_all(screen: &Screen) -> (u16, u16) {
    let connections = screen.connections["connections"].as_array().map_or(0, Vec::len);
    let connections = u16::try_from(connections).unwrap_or(0) + 2;
    let gaps = u16::try_from(COLUMNS.len()).unwrap_or(0);
    let of_shards = shards_height(screen, u16::MAX);
    let middle = clusters::height(&screen.clusters) + failures_height(screen);
    let height = 1 + CARDS_HEIGHT + of_shards + middle + connections.max(4) + 1;
    (COLUMNS.iter().sum::<u16>() + gaps, height)
}

fn shards_height(screen: &Screen, most: u16) -> u16 {
    let shards = screen.figures.as_ref().map_or(1, |figures| figures.shards.len());
    u16::try_from(shards).unwrap_or(1).min(most) + 3
}

/// Where nothing has failed, nothing is shown.
fn failures_height(screen: &Screen) -> u16 {
    match failure_lines(screen).len() {
        0 => 0,
        lines => u16::try_from(lines).unwrap_or(0) + 1,
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let most = if screen.is_once { u16::MAX } else { 8 };
    let [head, cards, of_shards, of_clusters, of_failures, of_connections, foot] =
        Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(CARDS_HEIGHT),
            Constraint::Length(shards_height(screen, most)),
            Constraint::Length(clusters::height(&screen.clusters)),
            Constraint::Length(failures_height(screen)),
            Constraint::Min(4),
            Constraint::Length(1),
        ])
        .areas(frame.area());
    if let Some(figures) = &screen.figures {
        frame.render_widget(header(figures), head);
        frame.render_widget(Paragraph::new(summary(figures)).block(titled("last second")), cards);
        frame.render_widget(shard_table(figures), of_shards);
    }
    let title = clusters::title(&screen.clusters);
    frame.render_widget(clusters::table(&screen.clusters).block(titled(&title)), of_clusters);
    frame.render_widget(failures(screen), of_failures);
    frame.render_widget(connection_table(screen), of_connections);
    frame.render_widget(footer(screen), foot);
}

fn titled(title: &str) -> Block<'_> {
    Block::new().borders(Borders::TOP).border_style(Style::new().dim()).title(title)
}

fn header(figures: &Figures) -> Line<'static> {
    Line::from(vec![
        "netra ".bold().fg(INBOUND),
        figures.service.clone().bold(),
        format!(
            "  {}  {}  up {}  memory {}  CPU {:.0} %",
            figures.version,
            figures.driver,
            age(figures.uptime_s),
            size(figures.resident_bytes),
            figures.cpu * 100.0
        )
        .into(),
    ])
}

fn summary(figures: &Figures) -> Vec<Line<'static>> {
    let row = |at: usize, name: &'static str, colour| {
        let (durations, overheads) = (&figures.durations[at], &figures.overheads[at]);
        let errors = figures.errors_per_s[at];
        let errors = format!("{:>8} 5xx/s", number(errors));
        Line::from(vec![
            Span::from(format!("{name:<9}")).fg(colour),
            format!("{:>8} req/s", number(figures.requests_per_s[at])).bold(),
            if figures.errors_per_s[at] > 0.0 { errors.fg(Color::Red) } else { errors.dim() },
            format!("   took {}", spread(durations)).into(),
            format!("   netra {}", spread(overheads)).fg(colour),
        ])
    };
    let all = format!(
        "{} connections, {} new/s, {}/s",
        number(figures.connections),
        number(figures.opened_per_s),
        size(figures.bytes_per_s)
    );
    let full = figures.shards.iter().filter(|shard| shard.is_full).count();
    let full = match full {
        0 => Span::default(),
        n => format!("   no room on {n} of {} shards: new ones wait", figures.shards.len())
            .fg(Color::Red),
    };
    let all = Line::from(vec![all.into(), full]);
    vec![row(0, "inbound", INBOUND), row(1, "outbound", OUTBOUND), all]
}

fn spread(it: &Percentiles) -> String {
    format!("p50 {:>8} p99 {:>8} p99.9 {:>8}", time(it.p50), time(it.p99), time(it.p999))
}

fn shard_table(figures: &Figures) -> Table<'static> {
    let row = |(index, it): (usize, &ShardFigures)| {
        Row::new([
            format!("shard-{index}"),
            format!("{:.0} %", it.busy * 100.0),
            number(it.connections),
            number(it.turns_per_s),
            number(it.parks_per_s),
            format!("{} / {}", number(it.buffers_used), number(it.buffers_max)),
            number(it.contexts),
            size(it.spliced_per_s),
        ])
    };
    let names =
        ["shard", "busy", "connections", "turns/s", "parks/s", "buffers", "contexts", "spliced/s"];
    Table::new(figures.shards.iter().enumerate().map(row), [Constraint::Length(12); 8])
        .header(Row::new(names).dim())
        .block(titled("shards"))
}

fn failures(screen: &Screen) -> Paragraph<'static> {
    let total = number(screen.failures["total"].as_f64().unwrap_or(0.0));
    let lines: Vec<_> = failure_lines(screen).into_iter().map(Line::from).collect();
    Paragraph::new(lines).fg(Color::Red).block(
        Block::new()
            .borders(Borders::TOP)
            .border_style(Style::new().dim())
            .title(format!("failures, {total} since the start; more at /failures")),
    )
}

/// Where most fails, with what to do, and what failed last.
fn failure_lines(screen: &Screen) -> Vec<String> {
    let text = |it: &Value, name: &str| it[name].as_str().map(|it| mask::line(it).into_owned());
    let word = |it: &Value, name: &str| text(it, name).unwrap_or_else(|| "-".into());
    let each = |name: &str| screen.failures[name].as_array().cloned().unwrap_or_default();
    let destination = |it: Value| {
        let (count, to) = (number(it["count"].as_f64().unwrap_or(0.0)), word(&it, "destination"));
        let (flag, reason) = (word(&it, "flag"), word(&it, "reason"));
        format!("{count:>7} x {flag} {reason:<18} {to:<22} -> {}", word(&it, "advice"))
    };
    let failure = |it: Value| {
        let to = text(&it, "dialled").or_else(|| text(&it, "original_dst"));
        let told: Vec<_> = ["direction", "errno", "peer", "trace_id", "request_id"]
            .into_iter()
            .filter_map(|name| text(&it, name).map(|value| format!("{name}={value}")))
            .collect();
        let (time, flag, reason) = (word(&it, "time"), word(&it, "flag"), word(&it, "reason"));
        let to = to.unwrap_or_else(|| "-".into());
        format!("{time} {flag} {reason:<18} {to:<22} {}", told.join(" "))
    };
    let most = each("destinations").into_iter().map(destination);
    most.chain(each("failures").into_iter().map(failure)).collect()
}

fn connection_table(screen: &Screen) -> Table<'static> {
    let connections = screen.connections["connections"].as_array();
    let rows: Vec<_> = connections.into_iter().flatten().map(connection).collect();
    let names = [
        "peer",
        "original destination",
        "direction",
        "protocol",
        "age",
        "idle",
        "request",
        "response",
        "overhead",
        "stalled",
        "rtt down/up",
        "resent",
    ];
    let widths = COLUMNS.map(Constraint::Length);
    let total = screen.connections["total"].as_u64().unwrap_or(0);
    Table::new(rows, widths).header(Row::new(names).dim()).block(
        Block::new()
            .borders(Borders::TOP)
            .border_style(Style::new().dim())
            .title(format!("top connections by {}, of {total}", ORDERS[screen.order])),
    )
}

fn connection(it: &Value) -> Row<'static> {
    let text = |name: &str| mask::line(it[name].as_str().unwrap_or("-")).into_owned();
    let real = |name: &str| it[name].as_f64();
    let whole = |name: &str| real(name).unwrap_or(0.0);
    let colour = if it["direction"] == "inbound" { INBOUND } else { OUTBOUND };
    let resent = whole("downstream_retransmits") + whole("upstream_retransmits");
    let stalled = Cell::from(text("stalled"));
    Row::new([
        Cell::from(text("peer")),
        text("original_dst").into(),
        Cell::from(text("direction")).style(Style::new().fg(colour)),
        text(if it["state"] == "relaying" { "protocol" } else { "state" }).into(),
        age(whole("age_s")).into(),
        age(whole("idle_s")).into(),
        size(whole("bytes_request")).into(),
        size(whole("bytes_response")).into(),
        time(real("overhead_us")).into(),
        if it["stalled"].is_null() { stalled } else { stalled.style(Style::new().fg(Color::Red)) },
        format!("{}/{}", time(real("downstream_rtt_us")), time(real("upstream_rtt_us"))).into(),
        number(resent).into(),
    ])
}

fn footer(screen: &Screen) -> Line<'static> {
    if let Some(trouble) = &screen.trouble {
        return format!("no answer from {}: {trouble}", screen.address).fg(Color::Red).into();
    }
    if screen.is_once {
        return Line::default();
    }
    let orders = ORDERS.iter().enumerate().flat_map(|(at, order)| {
        let name = format!(" {} {order} ", at + 1);
        [if at == screen.order { name.reversed() } else { name.dim() }, " ".into()]
    });
    orders.chain([" q quit".dim()]).collect::<Vec<_>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::{example::answer, figures::Totals};
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    fn drawn(screen: &Screen) -> String {
        let mut terminal = Terminal::new(TestBackend::new(140, 24)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(140);
        lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn the_screen_shows_rates_shards_and_connections() {
        let (was, now) = (answer(10.0, 1000), answer(12.0, 3000));
        let (was, now) = (Totals::read(&was).unwrap(), Totals::read(&now).unwrap());
        let connections = json!({"total": 12_345, "connections": [{
            "peer": "10.0.0.9:40000", "original_dst": "10.0.0.2:8080", "direction": "inbound",
            "protocol": "http1", "state": "relaying", "age_s": 75.0, "idle_s": 0.002,
            "bytes_request": 1_234_000, "bytes_response": 9, "overhead_us": 21.0,
            "stalled": "downstream", "downstream_rtt_us": 31.0, "upstream_rtt_us": null,
            "downstream_retransmits": 4, "upstream_retransmits": 0,
        }]});
        let mut screen = Screen {
            figures: Some(Figures::between(Some(&was), &now)),
            connections,
            order: 2,
            ..Screen::default()
        };
        let text = drawn(&screen);
        for part in [
            "netra shop  1.2.3  io_uring  up 12.0 s  memory 4.1 MB  CPU 25 %",
            "inbound      1100 req/s",
            "100 5xx/s",
            "p50   100 us p99   200 us",
            "shard-0",
            "50 %",
            "1 / 512",
            "top connections by bytes, of 12345",
            "10.0.0.9:40000",
            "1.2 MB",
            "downstream",
            "31 us/-",
            " 3 bytes ",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(!text.contains("no room"), "{text}");
        if let Some(figures) = &mut screen.figures {
            figures.shards[0].is_full = true;
        }
        assert!(drawn(&screen).contains("no room on 1 of 1 shards: new ones wait"));
        screen.trouble = Some("refused".into());
        assert!(drawn(&screen).contains("no answer from : refused"));
    }

    #[test]
    fn nothing_that_is_answered_moves_the_cursor() {
        let odd = "\u{1b}[2J\u{9b}1m\u{202e}";
        let mut shop = answer(10.0, 1000);
        shop["service"] = odd.into();
        let totals = Totals::read(&shop).unwrap();
        let screen = Screen {
            figures: Some(Figures::between(None, &totals)),
            connections: json!({"total": 1, "connections": [{"peer": odd}]}),
            ..Screen::default()
        };
        let text = drawn(&screen);
        assert!(text.contains(r"netra \u001b[2J\u009b1m\u202e"), "{text}");
        let shown: String = text.split('\n').map(mask::line).collect::<Vec<_>>().join("\n");
        assert_eq!(shown, text);
    }

    #[test]
    fn an_empty_screen_is_drawn_too() {
        assert!(drawn(&Screen::default()).contains("top connections by age, of 0"));
    }
}
