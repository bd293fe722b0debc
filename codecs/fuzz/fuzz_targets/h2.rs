//! Any bytes of either way behind a preface, in any pieces: what goes on is what came, and with
//! fields put in every block can be read by the next one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netra_codecs::Limits;
use netra_codecs::codec::Way;
use netra_codecs::h1::HeadPatch;
use netra_codecs::h2::{Http2, PREFACE, Scratch, Step, mend};

const LIMITS: Limits = Limits { streams_max: 5, head_bytes_max: 2000, ..Limits::DEFAULT };

// A control byte says who sends how many of the bytes behind it.
fuzz_target!(|script: &[u8]| {
    let whole = play(script, usize::MAX, false);
    assert_eq!(play(script, 1, false), whole);
    assert_eq!(play(script, 3, false), whole);
    assert_eq!(whole, came(script));
    let edited = play(script, usize::MAX, true);
    assert_eq!(play(script, 1, true), edited);
    let mut next = Sidecar::default();
    next.show(Way::Request, &edited[0]);
    assert_eq!(next.sent[0].len() + next.http.held_len(Way::Request), edited[0].len());
});

fn parts(script: &[u8]) -> impl Iterator<Item = (Way, &[u8])> {
    let mut rest = script;
    std::iter::from_fn(move || {
        let (&control, after) = rest.split_first()?;
        let (part, after) = after.split_at(usize::from(control >> 1).min(after.len()));
        rest = after;
        Some((Way::BOTH[usize::from(control & 1)], part))
    })
}

fn came(script: &[u8]) -> [Vec<u8>; 2] {
    let mut came = [PREFACE.to_vec(), Vec::new()];
    parts(script).for_each(|(way, part)| came[way as usize].extend_from_slice(part));
    came
}

fn play(script: &[u8], size: usize, edits: bool) -> [Vec<u8>; 2] {
    let mut sidecar = Sidecar { edits, ..Sidecar::default() };
    sidecar.show(Way::Request, PREFACE);
    for (way, part) in parts(script) {
        part.chunks(size.min(part.len().max(1))).for_each(|piece| sidecar.show(way, piece));
    }
    for way in Way::BOTH {
        if sidecar.http.held_len(way) > 0 {
            sidecar.sent[way as usize].extend_from_slice(sidecar.http.held(way));
        }
    }
    assert!(sidecar.http.open_count() <= usize::from(LIMITS.streams_max));
    sidecar.sent
}

#[derive(Default)]
struct Sidecar {
    http: Http2<()>,
    scratch: Scratch,
    edits: bool,
    sent: [Vec<u8>; 2],
}

impl Sidecar {
    fn show(&mut self, way: Way, mut rest: &[u8]) {
        loop {
            let taken = match self.http.step(way, rest, &mut self.scratch, &LIMITS, 0) {
                Step::Need => return,
                Step::Opaque(_, held) => {
                    if self.http.held_len(way) > 0 {
                        self.sent[way as usize].extend_from_slice(self.http.held(way));
                    }
                    self.http.let_go(way);
                    self.sent[way as usize].extend_from_slice(&rest[held..]);
                    return;
                }
                Step::Request(taken, Some(_)) if self.edits => {
                    let held = self.http.held(way);
                    let frames = if taken.is_held { held } else { &rest[..taken.consumed] };
                    let section = &self.scratch.section;
                    let mut patch = HeadPatch::new();
                    let fields = section.request().unwrap().fields();
                    let _ = patch.set(fields, b"traceparent", b"00-1-2-01");
                    let out = &mut self.sent[way as usize];
                    mend(frames, section, &patch, self.http.server(), out);
                    rest = &rest[taken.consumed..];
                    continue;
                }
                Step::Pass(taken) | Step::Request(taken, _) | Step::Response(taken, _) => taken,
                Step::Finished { taken, .. } => taken,
            };
            let bytes = if taken.is_held { self.http.held(way) } else { &rest[..taken.consumed] };
            self.sent[way as usize].extend_from_slice(bytes);
            rest = &rest[taken.consumed..];
        }
    }
}
