//! How numbers, times and words are written in values of settings.

use std::time::Duration;

/// The kernel's name of an errno, or its number; none for none.
pub(crate) fn errno_name(errno: u16) -> Option<String> {
    use nix::errno::Errno;
    match Errno::from_raw(errno.into()) {
        _ if errno == 0 => None,
        Errno::UnknownErrno => Some(errno.to_string()),
        known => Some(format!("{known:?}")),
    }
}

/// A whole number within bounds. Only digits: `u32::from_str` alone would also take `+80`.
pub(crate) fn whole(text: &str, min: u32, max: u32) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

/// A number within bounds; never NaN.
pub(crate) fn decimal(text: &str, min: f64, max: f64) -> Option<f64> {
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

/// A duration as Go writes it (`1s`, `1m30s`, `250ms`), as the JAEGER_* intervals are.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, seconds) = GO_UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    (!text.is_empty()).then_some(total)
}

/// Longer units first where one is the beginning of another.
const GO_UNITS: [(&str, f64); 7] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("\u{b5}s", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

/// The words of Go's ParseBool, so that a netramesh environment means the same here.
pub(crate) fn switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// RFC 9110 section 5.6.2: what a field name may be made of.
pub(crate) fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(allowed)
}

/// Line breaks in a value would break logs, packets and headers alike.
pub(crate) fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Reads `67108864`, `64M`, `64Mi` or `64MiB`, and the same with K and G: powers of 1024 all.
pub(crate) fn byte_count(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "ki" | "kib" => 10,
        "m" | "mi" | "mib" => 20,
        "g" | "gi" | "gib" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// `version=v2,rack=r7`, or a line each with values in quotes, as the downward API has them.
pub(crate) fn labels(text: &str) -> Option<Vec<(String, String)>> {
    let words = text.split([',', '\n']).map(str::trim).filter(|it| !it.is_empty());
    let label = |word: &str| {
        let (name, value) = word.split_once('=')?;
        let quoted = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
        let value = quoted.unwrap_or(value);
        netra_rules::is_label(name, value).then(|| (name.to_owned(), value.to_owned()))
    };
    words.map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, ms) in [("1s", 1000), ("1m30s", 90_000), ("250ms", 250), ("1.5h", 5_400_000)] {
            assert_eq!(go_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(go_duration("0"), Some(Duration::ZERO));
        for text in ["", "1", "s", "1 s", "-1s", "1d", "1..s", "99999999999999999999h"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }

    #[test]
    fn decimals_have_bounds_and_no_nan() {
        assert_eq!(decimal("0.5", 0.0, 1.0), Some(0.5));
        for text in ["1.5", "-0.1", "NaN", "inf", "", "a"] {
            assert_eq!(decimal(text, 0.0, 1.0), None, "{text}");
        }
    }
}
