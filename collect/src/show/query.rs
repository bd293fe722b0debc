//! The parameters of a request for something to be shown.

use crate::slots::open_ended;
use crate::store::search::Query;
use percent_encoding::percent_decode_str;
use std::ops::Range;

/// Names and values, decoded.
#[derive(Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

/// What is looked at together at most.
const LIMIT_MAX: usize = 1500;
const LIMIT: usize = 20;

impl Parameters {
    pub(super) fn of(query: &str) -> Self {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).take(200).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    pub(super) fn all<'p>(&'p self, name: &str) -> impl Iterator<Item = &'p str> {
        let pairs = self.0.iter().filter(|(known, _)| known == name);
        let values: Vec<&'p str> = pairs.map(|(_, value)| value.as_str()).collect();
        values.into_iter()
    }

    /// The first value of a name; an empty one is none.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// The window in seconds since 1970 under these names, or the last seconds that `last` says.
    pub(super) fn window(&self, [from, until]: [&str; 2], now_s: u64) -> Range<u64> {
        let until_s = self.number(until).unwrap_or(now_s + 1);
        let last = self.number("last").unwrap_or(900);
        let from_s = self.number(from).unwrap_or(until_s.saturating_sub(last));
        from_s..open_ended(until_s.max(from_s), now_s)
    }

    /// What Jaeger's search has, and this page's.
    pub(super) fn search(&self) -> Result<Query, &'static str> {
        let mut query = Query {
            service: self.get("service").map(str::to_owned),
            operation: self
                .get("operation")
                .filter(|name| *name != "all")
                .map(|name| (name.to_owned(), vec![])),
            limit: self.number("limit").map_or(LIMIT, |limit| {
                usize::try_from(limit).unwrap_or(LIMIT_MAX).clamp(1, LIMIT_MAX)
            }),
            is_error: self.get("status") == Some("error"),
            ..Query::default()
        };
        let length = |name| match self.get(name) {
            None => Ok(None),
            Some(text) => duration_ns(text).map(Some).ok_or("a duration is a number and a unit"),
        };
        query.least_ns = length("minDuration")?.unwrap_or(0);
        query.most_ns = length("maxDuration")?;
        let time = |name| self.number(name).map(|us| us.saturating_mul(1000));
        if let (Some(from), Some(until)) = (time("start"), time("end")) {
            query.window = Some(from..until.max(from));
        }
        if let Some(text) = self.get("tags") {
            let tags: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(text).map_err(|_| "tags are an object of JSON")?;
            for (key, value) in tags {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                put_tag(&mut query, key, value);
            }
        }
        for tag in self.all("tag").filter(|tag| !tag.is_empty()) {
            let (key, value) =
                tag.split_once([':', '=']).ok_or("a tag is a key, a colon and a value")?;
            put_tag(&mut query, key.trim().to_owned(), value.trim().to_owned());
        }
        Ok(query)
    }
}

/// Kind and error have places of their own.
fn put_tag(query: &mut Query, key: String, value: String) {
    match (key.as_str(), value.as_str()) {
        ("error", "true") => query.is_error = true,
        ("span.kind", name) => query.kind = Some(crate::batch::Kind::of_name(name)),
        _ => query.tags.push((key, value)),
    }
}

/// A duration as Go writes one, such as `1m2.5s`; without a unit it is microseconds.
pub(super) fn duration_ns(text: &str) -> Option<u64> {
    if let Ok(us) = text.parse::<u64>() {
        return us.checked_mul(1000);
    }
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(len);
        let unit_len =
            behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, after) = behind.split_at(unit_len);
        let unit = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * unit;
        rest = after;
    }
    #[allow(clippy::cast_possible_truncation, reason = "parts of a nanosecond")]
    (0.0..1e18).contains(&sum).then_some(sum as u64)
}

/// The number of a trace in hex.
pub(super) fn trace_id(text: &str) -> Option<u128> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, ns) in [
            ("100ms", 100_000_000),
            ("1.5s", 1_500_000_000),
            ("1m2s", 62_000_000_000),
            ("5us", 5_000),
            ("5µs", 5_000),
            ("250", 250_000),
            ("1h", 3_600_000_000_000),
        ] {
            assert_eq!(duration_ns(text), Some(ns), "{text}");
        }
        for text in ["ms", "1x", "1.2.3s", "-1s", "s1", "99999999999999h"] {
            assert_eq!(duration_ns(text), None, "{text}");
        }
    }

    /// As Grafana's data source asks.
    #[test]
    fn a_search_as_grafana_sends_it() {
        let text = "service=shop&operation=GET%20%2Foffer&start=1700000000000000&end=1700003600000000\
            &limit=20&minDuration=100ms&maxDuration=1s&tags=%7B%22error%22%3A%22true%22%2C\
            %22http.status_code%22%3A503%7D&tag=a:b";
        let query = Parameters::of(text).search().unwrap();
        assert_eq!(query.service.as_deref(), Some("shop"));
        assert_eq!(query.operation.unwrap().0, "GET /offer");
        assert!(query.is_error && query.limit == 20 && query.least_ns == 100_000_000);
        assert_eq!(query.most_ns, Some(1_000_000_000));
        assert_eq!(query.window.unwrap().start, 1_700_000_000_000_000_000);
        let tags: Vec<_> = query.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(tags, [("http.status_code", "503"), ("a", "b")]);
    }

    #[test]
    fn odd_parameters_are_refused_or_none() {
        for text in ["tags=x", "minDuration=x", "tag=x", "tags=[]"] {
            assert!(Parameters::of(text).search().is_err(), "{text}");
        }
        let query = Parameters::of("limit=999999&service=&operation=all&%zz&&=").search().unwrap();
        assert_eq!((query.limit, query.service, query.operation), (LIMIT_MAX, None, None));
        let window = Parameters::of("from=50&until=40").window(["from", "until"], 100);
        assert_eq!(window, 50..50);
        assert_eq!(trace_id("abc"), Some(0xabc));
        for text in ["", "xyz", "+1", &"f".repeat(33)] {
            assert_eq!(trace_id(text), None, "{text}");
        }
    }
}
