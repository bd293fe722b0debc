//! Any routing value and host: a target is one of the value's own, and never the host itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::route::{Target, cookie_value, find_target};

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(2, |&byte| byte == b'\n');
    let (host, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let routed = find_target(value, host);
    if let Some(target) = routed.target {
        assert!(target.port != 0 && !target.host().is_empty());
        let shown = target.to_string();
        assert_eq!(Target::parse(shown.as_bytes()), Some(target));
        let text = value.to_ascii_lowercase();
        let name = target.host().to_ascii_lowercase();
        assert!(text.windows(name.len()).any(|window| window == name.as_bytes()));
    }
    assert!(routed.malformed as usize <= value.len() + 1);
    if let Some(found) = cookie_value(value, host) {
        assert!(found.len() < value.len() && !found.contains(&b';'));
    }
});
