//! Numbers as people read them.

pub(super) fn number(n: f64) -> String {
    match n {
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n if n >= 10.0 || n.fract() == 0.0 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

pub(super) fn size(bytes: f64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut at = 0;
    let mut n = bytes;
    while n >= 1000.0 && at + 1 < UNITS.len() {
        (n, at) = (n / 1000.0, at + 1);
    }
    if at == 0 || n >= 100.0 {
        format!("{n:.0} {}", UNITS[at])
    } else {
        format!("{n:.1} {}", UNITS[at])
    }
}

pub(super) fn time(us: Option<f64>) -> String {
    match us {
        None => "-".into(),
        Some(us) if us < 10.0 => format!("{us:.1} us"),
        Some(us) if us < 1e3 => format!("{us:.0} us"),
        Some(us) if us < 1e6 => format!("{:.2} ms", us / 1e3),
        Some(us) => format!("{:.2} s", us / 1e6),
    }
}

pub(super) fn age(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}
