use super::*;

#[test]
fn queries_by_policy() {
    use Query::{Drop, Keep, Names};
    for (target, keep, names, drop) in [
        ("/a", "/a", "/a", "/a"),
        ("/a?", "/a?", "/a?", "/a"),
        ("/a?b=1&c=2", "/a?b=1&c=2", "/a?b=..&c=..", "/a"),
        // What has no value may be one.
        ("/a?token", "/a?token", "/a?..", "/a"),
        ("/a?dG9rZW4=", "/a?dG9rZW4=", "/a?..", "/a"),
        ("/a?dG9rZQ==&b=1", "/a?dG9rZQ==&b=1", "/a?..&b=..", "/a"),
        ("/a?=x&&b=c=d", "/a?=x&&b=c=d", "/a?=..&&b=..", "/a"),
        ("/a?b=1;c=2", "/a?b=1;c=2", "/a?b=..", "/a"),
        ("/a?b=/c?d=e", "/a?b=/c?d=e", "/a?b=..", "/a"),
        ("/a?b=c@d://e", "/a?b=c@d://e", "/a?b=..", "/a"),
        ("*", "*", "*", "*"),
        ("http://me:pw@h/a?b=1", "http://***@h/a?b=1", "http://***@h/a?b=..", "http://***@h/a"),
        ("http://me@h?b", "http://***@h?b", "http://***@h?..", "http://***@h"),
        ("http://h/@x", "http://h/@x", "http://h/@x", "http://h/@x"),
    ] {
        for (policy, shown) in [(Keep, keep), (Names, names), (Drop, drop)] {
            let masked = policy.target(target.as_bytes());
            assert_eq!(String::from_utf8_lossy(&masked), shown, "{policy:?} {target}");
            let again = policy.target(&masked).into_owned();
            assert_eq!(again, &*masked, "masked twice is masked once: {target}");
        }
    }
    assert_eq!(Keep.query(b"a=1").as_deref(), Some(&b"a=1"[..]));
    assert_eq!(Names.query(b"a=1&b").as_deref(), Some(&b"a=..&.."[..]));
    assert_eq!(Drop.query(b"a=1"), None);
}

#[test]
fn urls_lose_users_values_and_fragments() {
    for (text, shown) in [
        ("", ""),
        ("plain text?with=signs@h", "plain text?with=signs@h"),
        ("http://c:14268/api/traces", "http://c:14268/api/traces"),
        ("http://c/api?token=s3cret", "http://c/api?token=.."),
        ("http://c/api?s3cret", "http://c/api?.."),
        ("http://me:s3cret@c:80/x", "http://***@c:80/x"),
        ("http://s3cret@[::1]:80/x", "http://***@[::1]:80/x"),
        ("http://[::1]:80/x@y", "http://[::1]:80/x@y"),
        ("http://[::1]/x@y", "http://[::1]/x@y"),
        // Passwords that nobody escaped.
        ("http://me:s3/cret@c/x", "http://***@c/x"),
        ("http://me:s3?cr#et@c/x", "http://***@c/x"),
        ("http://c/x#s3cret", "http://c/x#.."),
        ("remote (http://m/?service=shop); or not", "remote (http://m/?service=..); or not"),
        (
            "no answer from http://c/?t=s3cret&u=1 within 5s",
            "no answer from http://c/?t=..&u=.. within 5s",
        ),
        ("\"http://c/?t=s3cret\" and <http://d/?s3cret>", "\"http://c/?t=..\" and <http://d/?..>"),
        (
            "endpoint=http://me:s3cret@h/s,pollingIntervalMs=5",
            "endpoint=http://***@h/s,pollingIntervalMs=5",
        ),
    ] {
        let masked = urls(text).into_owned();
        assert_eq!(masked, shown);
        assert_eq!(urls(&masked), shown, "masked twice is masked once");
    }
    for (text, shown) in [
        ("m:5778", "m:5778"),
        ("me:s3cret@m:5778", "***@m:5778"),
        ("m:5778/?t=s3cret", "m:5778/?t=.."),
        ("http://me:s3cret@m/", "http://***@m/"),
    ] {
        assert_eq!(url(text), shown);
    }
}

/// What a terminal obeys, what turns text around, and what ends a line for some.
const UNSEEN: [char; 14] = [
    '\0',
    '\n',
    '\u{1b}',
    '\u{7f}',
    '\u{80}',
    '\u{9b}',
    '\u{9f}',
    '\u{61c}',
    '\u{200f}',
    '\u{2028}',
    '\u{202e}',
    '\u{2066}',
    '\u{feff}',
    '\u{e0041}',
];

#[test]
fn nothing_unseen_is_left_in_any_form() {
    for c in UNSEEN {
        let text = format!("a{c}b");
        let mut quoted = String::new();
        push_quoted(&mut quoted, &text);
        let mut value = String::from("key=");
        push_value(&mut value, &text);
        let others = serde_json::to_string(&text).unwrap();
        for form in [&*line(&text), &quoted, &value, &*json(&others)] {
            assert!(!form.contains(is_unseen), "{form:?}");
            assert!(form.contains("a\\") && form.contains('b'), "{form}");
        }
        for form in [&quoted, &*json(&others), value.strip_prefix("key=").unwrap()] {
            assert_eq!(serde_json::from_str::<String>(form).unwrap(), text, "{form}");
        }
    }
    for (text, shown) in
        [("caf\u{e9} \u{1f980}", "caf\u{e9} \u{1f980}"), ("a\u{9b}b\r\n", "a\\u009bb\\r\\n")]
    {
        assert_eq!(line(text), shown);
    }
    assert_eq!(json("{\n \"a\": 1\n}\n"), "{\n \"a\": 1\n}\n");
}

#[test]
fn values_are_quoted_where_they_must_be() {
    for (text, shown) in [
        ("shop", "shop"),
        ("", "\"\""),
        ("a b", "\"a b\""),
        ("a=b", "\"a=b\""),
        ("a\"\\", "\"a\\\"\\\\\""),
        ("caf\u{e9}", "caf\u{e9}"),
    ] {
        let mut out = String::new();
        push_value(&mut out, text);
        assert_eq!(out, shown);
    }
}

#[test]
fn command_lines_keep_what_is_no_secret() {
    let shown = |name: &str, value: &str| match name {
        "password" => Some(format!("<{}>", value.len())),
        "port" => Some(value.to_owned()),
        _ => None,
    };
    for (line, masked) in [
        ("netra --port 1 --password s3cret", "netra --port 1 --password <6>"),
        ("netra -password s3cret -port=1", "netra -password <6> -port=1"),
        ("netra --password=s3=cret x", "netra --password=<7> x"),
        // A value that looks like a flag is a value.
        ("netra --password --port 1", "netra --password <6> 1"),
        ("netra --password", "netra --password"),
        ("netra --other http://me:pw@h/?t=1", "netra --other http://***@h/?t=.."),
        ("netra --other=http://me:pw@h/", "netra --other=http://***@h/"),
    ] {
        assert_eq!(arguments(line.split(' '), shown).join(" "), masked);
    }
}

/// Signs that mean something to somebody, in any order.
#[test]
fn whatever_stands_around_a_secret_it_does_not_get_out() {
    const SIGNS: [&str; 14] =
        ["a", "b1", ":", "/", "?", "#", "&", "=", "%", "[", "]", ";", "\u{e9}", "."];
    let mut state = 7u64;
    let mut word = |signs: &[&str]| -> String {
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap() % below
        };
        (0..next(6)).map(|_| signs[next(signs.len())]).collect()
    };
    for _ in 0..20_000 {
        let (any, plain) = (word(&SIGNS), word(&SIGNS[..2]));
        for text in [
            format!("http://{plain}:s3cret{any}@{plain}.host/{any}"),
            format!("http://s3cret{plain}@{plain}.host{any}"),
            format!("http://host/{plain}?{plain}=s3cret{any}"),
            format!("http://host/{plain}?{plain}=1&s3cret&{any}"),
            format!("{plain} http://host/{plain}#{any}s3cret"),
        ] {
            let masked = urls(&text).into_owned();
            assert!(!masked.contains("s3cret"), "{text} -> {masked}");
            assert!(
                !url(text.strip_prefix("http://").unwrap_or(&text)).contains("s3cret"),
                "{text}"
            );
        }
        let target = format!("/{plain}?{any}&{plain}=s3cret{any}");
        let masked = Query::Names.target(target.as_bytes()).into_owned();
        assert!(!String::from_utf8_lossy(&masked).contains("s3cret"), "{target}");
    }
}
