//! Blocks of fields against other people's encoders and decoders.

use super::wire::{END_HEADERS, END_STREAM, HEADERS, Sidecar, begin, frame};
use netra_codecs::codec::Way;
use netra_codecs::h2::{Http2, Scratch, Step};

/// Fields of a block as a section lays them out, from a list.
fn laid_out(list: &[(String, String)]) -> Vec<(String, String)> {
    let of = |name: &str| list.iter().find(|it| it.0 == name).map(|it| it.1.clone());
    let host = of(":authority").map(|it| ("host".to_owned(), it));
    let has_host = host.is_some();
    let fields = list.iter().filter(|it| !(it.0.starts_with(':') || has_host && it.0 == "host"));
    host.into_iter().chain(fields.cloned()).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

/// A connection that reads blocks of one encoder.
struct Reader {
    sidecar: Sidecar,
    stream: u32,
}

impl Reader {
    fn new() -> Self {
        let mut sidecar = Sidecar::new();
        sidecar.ask(begin());
        Self { sidecar, stream: 1 }
    }

    /// The fields of a block, if it can be read.
    fn read(&mut self, block: &[u8]) -> Option<Vec<(String, String)>> {
        let frame = frame(HEADERS, END_HEADERS | END_STREAM, self.stream, block);
        self.stream += 2;
        let Sidecar { http, scratch, limits, .. } = &mut self.sidecar;
        match http.step(Way::Request, &frame, scratch, limits, 0) {
            Step::Opaque(..) => return None,
            Step::Request(..) | Step::Pass(_) => {}
            other => panic!("{other:?}"),
        }
        http.drain().for_each(drop);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = scratch.section.fields();
        Some(fields.iter().map(|(name, value)| (text(name), text(value))).collect())
    }
}

/// Stories of the HTTP/2 Japan Community (MIT): headers of real sites, as three encoders write them.
#[test]
fn stories() {
    let blocks = read_stories(include_str!("../data/hpack-stories.txt"));
    assert!(blocks > 150, "{blocks}");
}

/// The same by the encoder of Python's hpack, of fields by chance, with tables whose size changes.
#[test]
fn stories_of_python() {
    let blocks = read_stories(include_str!("../data/hpack-python.txt"));
    assert_eq!(blocks, 24 * 6);
}

/// Reads all stories of a text; how many blocks they had.
fn read_stories(text: &str) -> usize {
    let (mut reader, mut blocks) = (Reader::new(), 0);
    let mut block = Vec::new();
    let mut list: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain(["story end"]) {
        let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let is_mark = !line.contains('\t') && matches!(word, "story" | "block");
        if !is_mark {
            let (name, value) = line.split_once('\t').unwrap();
            list.push((name.into(), value.into()));
            continue;
        }
        if !block.is_empty() {
            assert_eq!(reader.read(&block), Some(laid_out(&list)), "block {blocks}");
            blocks += 1;
            (block, list) = (Vec::new(), Vec::new());
        }
        match word {
            "block" => block = hex(rest),
            _ => reader = Reader::new(),
        }
    }
    blocks
}

/// RFC 7541, appendices C.3 to C.6: two clients and two servers, with Huffman and without.
#[test]
fn examples_of_the_standard() {
    let first = "828684410f7777772e6578616d706c652e636f6d";
    let plain = [
        first,
        "828684be58086e6f2d6361636865",
        "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
    ];
    let coded = [
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ];
    for blocks in [plain, coded] {
        let mut reader = Reader::new();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let host = field("host", "www.example.com");
        assert_eq!(reader.read(&hex(blocks[0])).unwrap(), std::slice::from_ref(&host));
        let no_cache = field("cache-control", "no-cache");
        assert_eq!(reader.read(&hex(blocks[1])).unwrap(), [host.clone(), no_cache]);
        let custom = field("custom-key", "custom-value");
        assert_eq!(reader.read(&hex(blocks[2])).unwrap(), [host, custom]);
        let head = reader.sidecar.scratch.section.request().unwrap();
        assert_eq!((head.method(), head.target()), (&b"GET"[..], &b"/index.html"[..]));
    }
}

/// Random blocks, whole and damaged: this decoder and another read the same, or neither does.
#[test]
fn two_decoders_agree() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..3000 {
        let mut reader = Reader::new();
        let mut other = loona_hpack::Decoder::new();
        for _ in 0..8 {
            let mut block = random.block();
            if random.below(4) == 0 {
                for _ in 0..=random.below(3) {
                    let at = random.below(block.len());
                    block[at] = u8::try_from(random.below(256)).unwrap();
                }
            }
            if says_size(&block) {
                // They differ in how large a table they follow, and that is tested elsewhere.
                continue;
            }
            let theirs = other.decode(&block);
            let ours = reader.read(&block);
            let Ok(theirs) = theirs else {
                assert!(ours.is_none(), "{block:02x?} is refused by one");
                refused += 1;
                break;
            };
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            let list: Vec<_> = theirs.into_iter().map(|(n, v)| (text(n), text(v))).collect();
            let is_ordered = list.iter().skip_while(|it| it.0.starts_with(':'));
            let times = |name: &str| list.iter().filter(|it| it.0 == name).count();
            let is_once = [":method", ":path", ":authority"].into_iter().all(|it| times(it) < 2);
            if is_ordered.clone().any(|it| it.0.starts_with(':'))
                || list.iter().any(|it| it.0.is_empty())
                || !is_once
            {
                // No section is made of such; tables have to agree all the same.
                assert!(ours.is_some(), "{block:02x?}");
                continue;
            }
            let ours = ours.unwrap_or_else(|| panic!("{block:02x?} {list:?}"));
            assert_eq!(without_host(ours), without_host(laid_out(&list)), "{block:02x?}");
            read += 1;
        }
    }
    assert!(read > 3000 && refused > 300, "{read} {refused}");
}

/// The authority is called so here, and may be empty.
fn without_host(list: Vec<(String, String)>) -> Vec<(String, String)> {
    list.into_iter().filter(|it| it.0 != "host").collect()
}

fn says_size(block: &[u8]) -> bool {
    block.iter().any(|byte| byte & 0xe0 == 0x20)
}

/// Bytes of chance, the same each time.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % count as u64).unwrap()
    }

    fn string(&mut self, out: &mut Vec<u8>) {
        if self.below(3) == 0 {
            // Codes of five bits, and whatever the rest of the byte is.
            let odd = [0xff, 0x63][self.below(2)];
            let coded = [0x1f, 0x07, if self.below(20) == 0 { odd } else { 0x1f }][self.below(3)];
            out.extend([0x81, coded]);
            return;
        }
        let len = self.below(20);
        out.push(u8::try_from(len).unwrap());
        for _ in 0..len {
            out.push(b"abcdefghijklmnopqrstuvwxyz_ABCDEFG"[self.below(34)]);
        }
    }

    fn block(&mut self) -> Vec<u8> {
        let mut block = Vec::new();
        for _ in 0..=self.below(12) {
            match self.below(4) {
                0 if self.below(4) != 0 => {
                    block.push(0x80 | u8::try_from(8 + self.below(54)).unwrap())
                }
                0 => block.push(0x80 | u8::try_from(62 + self.below(2)).unwrap()),
                kind => {
                    let (first, bits) = [(0x40, 6), (0x00, 4), (0x10, 4)][kind - 1];
                    let index = self.below(2) * self.below((1 << bits) - 1);
                    block.push(first | u8::try_from(index).unwrap());
                    if index == 0 {
                        self.string(&mut block);
                    }
                    self.string(&mut block);
                }
            }
        }
        block
    }
}

/// A size that is too large to follow, or in the middle of a block, is none that can be read.
#[test]
fn sizes_of_tables() {
    for (block, is_read) in [
        (&[0x20, 0x82, 0x84, 0x86][..], true),
        (&[0x3f, 0xe1, 0x1f, 0x82, 0x84, 0x86], true),
        (&[0x20, 0x3f, 0xe1, 0x1f, 0x82, 0x84], true),
        (&[0x3f, 0xe0, 0xff, 0x03, 0x82, 0x84], true),
        (&[0x3f, 0xe1, 0xff, 0x03, 0x82, 0x84], false),
        (&[0x82, 0x20, 0x84], false),
        (&[0x3f, 0xff, 0xff, 0xff, 0xff, 0x7f], false),
    ] {
        assert_eq!(Reader::new().read(block).is_some(), is_read, "{block:x?}");
    }
    let scratch = Scratch::default();
    assert!(size_of_val(&Http2::<u64>::new()) <= 512 && scratch.section.request().is_none());
}
