//! Spans as they arrive, whatever they were written in: a batch is one body of text, and records that
//! point into it. A protocol whose strings stand in one piece on the wire copies none of them.

/// A piece of a batch's body, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    at: u32,
    len: u32,
}

/// The value of a tag.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<T> {
    Text(T),
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// What a span or a process has, in the order in which it was told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item<T> {
    /// A key and its value; behind an event, that event's.
    Tag(T, Value<T>),
    /// Something that happened at a time, in nanoseconds since 1970.
    Event(u64, T),
    /// Another span that this one follows: trace and span.
    Link(u128, u64),
}

/// What kind of work a span is, as OpenTelemetry numbers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Kind {
    #[default]
    Internal = 1,
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

impl Kind {
    pub(crate) fn of_number(number: u64) -> Self {
        match number {
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Internal,
        }
    }

    pub(crate) fn of_name(name: &str) -> Self {
        match name {
            "server" => Self::Server,
            "client" => Self::Client,
            "producer" => Self::Producer,
            "consumer" => Self::Consumer,
            _ => Self::Internal,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }

    /// Whether it asks somebody else.
    pub(crate) fn asks(self) -> bool {
        matches!(self, Self::Client | Self::Producer)
    }

    /// Whether it answers somebody else.
    pub(crate) fn answers(self) -> bool {
        matches!(self, Self::Server | Self::Consumer)
    }
}

/// A span without its texts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Head {
    pub(crate) trace: u128,
    pub(crate) id: u64,
    /// 0: it has none.
    pub(crate) parent: u64,
    /// Nanoseconds since 1970.
    pub(crate) start_ns: u64,
    pub(crate) duration_ns: u64,
    pub(crate) kind: Kind,
    pub(crate) is_error: bool,
    pub(crate) name: Text,
    /// Index into the batch's processes.
    pub(crate) process: u32,
    pub(crate) items: (u32, u32),
    /// Something of it was too long, or too many.
    pub(crate) is_cut: bool,
}

/// Who sent spans.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    pub(crate) service: Text,
    items: (u32, u32),
}

/// What one span, one process and one batch may have; the rest is left out and told.
pub(crate) const TEXT_MAX: usize = 4096;
pub(crate) const NAME_MAX: usize = 512;
pub(crate) const ITEMS_MAX: u32 = 256;
pub(crate) const SPANS_MAX: usize = 200_000;

/// Spans of one message.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    body: Vec<u8>,
    pub(crate) processes: Vec<Process>,
    pub(crate) spans: Vec<Head>,
    items: Vec<Item<Text>>,
    /// Where the items of what is being read begin.
    begun: u32,
    is_cut: bool,
    /// Spans that are none: without an id or of a trace without one.
    pub(crate) refused: u64,
}

impl Batch {
    /// A batch of spans whose texts stand in `body`.
    pub(crate) fn of(body: Vec<u8>) -> Self {
        Self { body, ..Self::default() }
    }

    /// What it weighs in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.body.capacity()
            + self.spans.capacity() * size_of::<Head>()
            + self.items.capacity() * size_of::<Item<Text>>()
            + self.processes.capacity() * size_of::<Process>()
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn text(&self, text: Text) -> &str {
        let bytes = self.body.get(text.at as usize..(text.at + text.len) as usize);
        // Every text was looked at when it was taken.
        str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }

    /// A text that stands in the body: cut at `max` bytes, and written anew where it is no UTF-8.
    pub(crate) fn place(&mut self, at: usize, len: usize, max: usize) -> Text {
        let end = at.saturating_add(len).min(self.body.len());
        let bytes = &self.body[at.min(end)..end];
        let kept = &bytes[..bytes.len().min(max)];
        self.is_cut |= kept.len() < bytes.len();
        match str::from_utf8(kept) {
            Ok(_) => piece(at, kept.len()),
            Err(error) if error.error_len().is_none() && kept.len() < bytes.len() => {
                piece(at, error.valid_up_to())
            }
            Err(_) => {
                let text = String::from_utf8_lossy(kept).into_owned();
                self.add(&text, max * 3)
            }
        }
    }

    /// A text that stands nowhere yet.
    pub(crate) fn add(&mut self, text: &str, max: usize) -> Text {
        let kept = &text[..text.floor_char_boundary(max)];
        self.is_cut |= kept.len() < text.len();
        let at = self.body.len();
        if at + kept.len() > u32::MAX as usize {
            return Text::default();
        }
        self.body.extend_from_slice(kept.as_bytes());
        piece(at, kept.len())
    }

    /// What follows belongs to the next span or process.
    pub(crate) fn begin(&mut self) {
        self.begun = count(self.items.len());
        self.is_cut = false;
    }

    pub(crate) fn put(&mut self, item: Item<Text>) {
        if count(self.items.len()) - self.begun < ITEMS_MAX {
            self.items.push(item);
        } else {
            self.is_cut = true;
        }
    }

    pub(crate) fn tag(&mut self, key: Text, value: Value<Text>) {
        self.put(Item::Tag(key, value));
    }

    /// The items since `begin` are of this process.
    pub(crate) fn end_process(&mut self, service: Text) -> u32 {
        let items = (self.begun, count(self.items.len()));
        self.processes.push(Process { service, items });
        count(self.processes.len() - 1)
    }

    /// The items since `begin` are of this span.
    pub(crate) fn end_span(&mut self, head: Head) {
        if head.trace == 0 || head.id == 0 || self.spans.len() >= SPANS_MAX {
            self.items.truncate(self.begun as usize);
            self.refused += 1;
            return;
        }
        let items = (self.begun, count(self.items.len()));
        self.spans.push(Head { items, is_cut: head.is_cut | self.is_cut, ..head });
    }

    pub(crate) fn items(&self, head: &Head) -> &[Item<Text>] {
        self.slice(head.items)
    }

    pub(crate) fn process_items(&self, process: &Process) -> &[Item<Text>] {
        self.slice(process.items)
    }

    fn slice(&self, (from, until): (u32, u32)) -> &[Item<Text>] {
        self.items.get(from as usize..until as usize).unwrap_or_default()
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn piece(at: usize, len: usize) -> Text {
    Text { at: count(at), len: count(len) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A span for tests of others.
    #[derive(Clone, Debug)]
    pub(crate) struct Made {
        pub(crate) service: &'static str,
        pub(crate) name: String,
        pub(crate) ids: (u128, u64, u64),
        pub(crate) kind: Kind,
        pub(crate) at_us: (u64, u64),
        pub(crate) is_error: bool,
        pub(crate) tags: Vec<(&'static str, String)>,
        pub(crate) process: Vec<(&'static str, &'static str)>,
    }

    pub(crate) fn made(service: &'static str, kind: Kind, ids: (u128, u64, u64)) -> Made {
        Made {
            service,
            name: "work".into(),
            ids,
            kind,
            at_us: (0, 100),
            is_error: false,
            tags: vec![],
            process: vec![],
        }
    }

    /// When tests begin, in nanoseconds.
    pub(crate) const BEGIN: u64 = 1_700_000_000_000_000_000;

    pub(crate) fn batch(spans: &[Made]) -> Batch {
        let mut batch = Batch::default();
        for made in spans {
            batch.begin();
            for (key, value) in &made.process {
                let (key, value) = (batch.add(key, 99), batch.add(value, 99));
                batch.tag(key, Value::Text(value));
            }
            let service = batch.add(made.service, NAME_MAX);
            let process = batch.end_process(service);
            batch.begin();
            for (key, value) in &made.tags {
                let (key, value) = (batch.add(key, 99), batch.add(value, TEXT_MAX));
                batch.tag(key, Value::Text(value));
            }
            let name = batch.add(&made.name, NAME_MAX);
            batch.end_span(Head {
                trace: made.ids.0,
                id: made.ids.1,
                parent: made.ids.2,
                start_ns: BEGIN + made.at_us.0 * 1000,
                duration_ns: made.at_us.1 * 1000,
                kind: made.kind,
                is_error: made.is_error,
                name,
                process,
                ..Head::default()
            });
        }
        batch
    }

    #[test]
    fn texts_are_cut_at_characters_and_mended() {
        let mut batch = Batch::of("aé\u{ff}b".as_bytes().to_vec());
        let whole = batch.place(0, 6, 99);
        assert_eq!(batch.text(whole), "aéÿb");
        assert!(!batch.is_cut);
        let cut = batch.place(0, 6, 2);
        assert_eq!((batch.text(cut), batch.is_cut), ("a", true));
        let mut odd = Batch::of(b"a\xff\xfeb".to_vec());
        let mended = odd.place(0, 4, 99);
        assert_eq!(odd.text(mended), "a\u{fffd}\u{fffd}b");
        let outside = odd.place(99, 4, 99);
        assert_eq!(odd.text(outside), "");
    }

    #[test]
    fn what_is_too_many_is_left_out_and_marked() {
        let mut batch = Batch::default();
        batch.begin();
        let text = batch.add("k", 9);
        for _ in 0..=ITEMS_MAX {
            batch.tag(text, Value::Bool(true));
        }
        batch.end_span(Head { trace: 1, id: 1, ..Head::default() });
        batch.begin();
        batch.end_span(Head { trace: 0, id: 1, ..Head::default() });
        batch.begin();
        batch.end_span(Head { trace: 1, id: 2, ..Head::default() });
        assert_eq!(batch.items(&batch.spans[0]).len(), ITEMS_MAX as usize);
        assert!(batch.spans[0].is_cut && !batch.spans[1].is_cut);
        assert_eq!((batch.spans.len(), batch.refused), (2, 1));
    }
}
