//! Any header lines: what is read can be written and read again as the same context.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::trace::{Format, Formats, extract, inject};

const NAMES: [&[u8]; 9] = [
    b"uber-trace-id",
    b"traceparent",
    b"b3",
    b"x-b3-traceid",
    b"x-b3-spanid",
    b"x-b3-parentspanid",
    b"x-b3-sampled",
    b"x-b3-flags",
    b"jaeger-debug-id",
];

// Lines of a number, which chooses the name, and a value.
fuzz_target!(|input: &[u8]| {
    let lines = input.split(|&byte| byte == b'\n').filter_map(|line| {
        let (&name, value) = line.split_first()?;
        Some((NAMES[usize::from(name) % NAMES.len()], value))
    });
    let found = extract(lines);
    let Some(context) = found.context else {
        assert_eq!(found.format, None);
        return;
    };
    assert!(context.trace_id != 0 && found.debug_id.is_none());
    let all = Formats::UBER.with(Format::W3c).with(Format::B3).with(Format::B3Multi);
    let child = context.child(context.span_id | 1);
    for context in [context, child] {
        let mut written = Vec::new();
        inject(&context, all, |name, value| {
            assert!(value.iter().all(u8::is_ascii_graphic));
            written.push((name.to_owned(), value.to_vec()));
        });
        let lines = written.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        let again = extract(lines);
        // Flags go out in hexadecimal and come in in decimal, as the Go client has it.
        if context.flags.0 > 9 {
            continue;
        }
        let again = again.context.expect("what was written");
        let random = context.random;
        assert_eq!(netra_codecs::trace::TraceContext { random, ..again }, context);
    }
});
