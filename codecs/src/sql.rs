//! What a text of SQL does to what: `SELECT orders` of `select o.* from orders o where id = 7`.
//!
//! <https://opentelemetry.io/docs/specs/semconv/database/database-spans/#generating-a-summary-of-the-query>:
//! operations and their targets in the order of the text, as they are written there. Nothing else
//! of the text is kept. Literals, numbers, parameters and comments are walked over and never
//! copied, but for a `traceparent` in a comment; what is not understood leaves a target out. A [`Summary`] is fed in any pieces, holds no
//! more than itself, and has no other memory.

mod bytes;
mod carrier;
mod words;

use bytes::{TAG, is_letter, is_part, mix};
use carrier::Carrier;
pub use carrier::{TRACEPARENT, context_of};
use words::{After, Word};
pub use words::{OPERATIONS, OTHER, operation};

/// The longest summary; a word that does not fit ends it.
pub const SUMMARY_MAX: usize = 255;
/// Brackets within brackets that are followed.
const DEPTH_MAX: u8 = 62;
/// Comments within comments that are followed.
const COMMENTS_MAX: u8 = 200;

/// Whose SQL it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Names in double quotes, `$tag$` literals, comments within comments, `E''`.
    #[default]
    Postgresql,
    /// Names in backticks, literals in double quotes, `\'`, `#` comments.
    Mysql,
}

/// Where in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between words.
    Ground,
    /// In a word, perhaps one of several names with dots between them.
    Word,
    /// In a word, within quotes.
    Quoted(u8),
    /// In a literal; whether `\` takes its meaning from what follows.
    Literal { quote: u8, escapes: bool },
    /// Behind `\` in a literal.
    Escaped { quote: u8, escapes: bool },
    /// In a number or a parameter.
    Number,
    /// Behind a minus.
    Minus,
    /// Behind two, where the next byte says whether it is a comment.
    Minuses,
    /// Behind a slash.
    Slash,
    /// In a comment that the line ends.
    Line,
    /// In so many comments; the byte before.
    Comment { depth: u8, before: u8 },
    /// Behind the dollar that may begin a literal.
    Tag,
    /// In such a literal.
    Dollars,
    /// In what may be its end.
    EndTag,
    /// Nothing more is read.
    Over,
}

/// What the next word may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    Nothing,
    /// A statement begins.
    Operation,
    /// Something that the operation is done to.
    Target,
    /// The same, where a bracket is a list of columns.
    TargetNoBracket,
    /// A kind of object, such as `TABLE`.
    Object,
}

/// The summary of a text, while it comes.
#[derive(Clone, Debug)]
pub struct Summary {
    bytes: [u8; SUMMARY_MAX],
    len: u8,
    /// The end of the word under way, which lies behind the summary.
    tail: u8,
    operation: u8,
    dialect: Dialect,
    state: State,
    expect: Expect,
    depth: u8,
    /// The levels of brackets that hold a query, a bit for each.
    queries: u64,
    /// Those within a list of tables.
    lists: u64,
    /// The word under way in capitals, as far as it may be one of the list.
    word: u128,
    word_len: u8,
    is_quoted: bool,
    /// There was no room for all of it.
    is_cut: bool,
    /// What came before.
    before: Before,
    /// The tag of the literal, and of what may be its end.
    tag: u64,
    end_tag: u64,
    /// What its comments carry.
    carrier: Carrier,
}

/// What came before a word, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Something behind which a statement may begin within another: a bracket, `AS`, `EXPLAIN`.
    Opening,
    Distinct,
    Other,
}

impl Default for Summary {
    fn default() -> Self {
        Self::new(Dialect::default())
    }
}

impl Summary {
    /// Of no text yet.
    pub const fn new(dialect: Dialect) -> Self {
        Self {
            bytes: [0; SUMMARY_MAX],
            len: 0,
            tail: 0,
            operation: OTHER,
            dialect,
            state: State::Ground,
            expect: Expect::Operation,
            depth: 0,
            queries: 0,
            lists: 0,
            word: 0,
            word_len: 0,
            is_quoted: false,
            is_cut: false,
            before: Before::Other,
            tag: 0,
            end_tag: 0,
            carrier: Carrier::new(),
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        (self.len, self.operation) = (0, OTHER);
        self.carrier.clear();
        self.next_text();
    }

    /// What has been summed up stays, and another text begins.
    pub fn next_text(&mut self) {
        self.state = State::Ground;
        self.next_statement();
    }

    fn next_statement(&mut self) {
        self.expect = Expect::Operation;
        (self.depth, self.queries, self.lists) = (0, 0, 0);
        self.before = Before::Other;
        self.tail = self.len;
    }

    /// The summary so far; of a whole text once it has ended.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// The `traceparent` that a comment has: the first of the text that is one by its form.
    pub fn traceparent(&self) -> Option<&[u8]> {
        self.carrier.value()
    }

    /// Index in [`OPERATIONS`] of what is done: of the first statement that does more than begin a
    /// transaction or set a savepoint.
    pub fn operation(&self) -> u8 {
        self.operation
    }

    /// Adds a summary that was made before, unless this one ends with it.
    pub fn add(&mut self, summary: &[u8], operation: u8) {
        let is_repeated = self.as_bytes().ends_with(summary);
        self.take_operation(operation);
        self.next_text();
        if !is_repeated && !summary.is_empty() {
            self.is_cut = false;
            self.copy(summary);
            self.commit();
        }
    }

    /// The text is whole.
    pub fn end(&mut self) {
        if self.state == State::Word {
            self.end_word();
        }
        self.state = State::Over;
    }

    /// The next bytes of the text.
    #[inline]
    pub fn push(&mut self, text: &[u8]) {
        let mut at = 0;
        while at < text.len() {
            at += match self.state {
                State::Ground => self.ground(text[at]),
                State::Word => self.word(&text[at..]),
                State::Quoted(quote) => self.quoted(&text[at..], quote),
                State::Literal { quote, escapes } => self.literal(&text[at..], quote, escapes),
                State::Over => return,
                _ => self.rare(&text[at..]),
            };
        }
    }

    #[inline]
    fn ground(&mut self, byte: u8) -> usize {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {}
            _ if is_letter(byte) => {
                self.begin_word();
                return 0;
            }
            b'(' => self.open_bracket(),
            b')' => {
                self.depth = self.depth.saturating_sub(1);
                (self.expect, self.before) = (Expect::Nothing, Before::Opening);
            }
            b',' => {
                let is_list = self.lists >> self.depth & 1 == 1;
                self.expect = if is_list { Expect::Target } else { Expect::Nothing };
                self.before = Before::Other;
            }
            b';' => self.next_statement(),
            b'\'' => self.begin_literal(byte),
            b'"' if self.dialect == Dialect::Mysql => self.begin_literal(byte),
            b'"' => self.begin_quoted(byte),
            b'`' if self.dialect == Dialect::Mysql => self.begin_quoted(byte),
            b'-' => self.state = State::Minus,
            b'/' => self.state = State::Slash,
            b'#' if self.dialect == Dialect::Mysql => self.state = State::Line,
            b'$' if self.dialect == Dialect::Postgresql => {
                self.tag = TAG;
                self.state = State::Tag;
            }
            b'0'..=b'9' => self.begin_number(),
            _ => self.other(),
        }
        1
    }

    /// Something that is no word.
    #[inline]
    fn other(&mut self) {
        // `*` and its kin do not begin a statement, and nor does what stands before one.
        self.expect = Expect::Nothing;
        self.before = Before::Other;
    }

    fn begin_number(&mut self) {
        self.other();
        self.state = State::Number;
    }

    fn begin_literal(&mut self, quote: u8) {
        self.other();
        self.state = State::Literal { quote, escapes: self.dialect == Dialect::Mysql };
    }

    fn begin_word(&mut self) {
        self.tail = self.len;
        (self.word, self.word_len) = (0, 0);
        (self.is_quoted, self.is_cut) = (false, false);
        self.state = State::Word;
    }

    fn begin_quoted(&mut self, quote: u8) {
        self.begin_word();
        self.is_quoted = true;
        self.copy(&[quote]);
        self.state = State::Quoted(quote);
    }

    /// Puts bytes of a word behind the summary.
    #[inline]
    fn copy(&mut self, bytes: &[u8]) {
        if self.is_cut {
            return;
        }
        let mut tail = usize::from(self.tail);
        if self.tail == self.len && self.len > 0 {
            // What does not fit is seen by its end.
            if let Some(place) = self.bytes.get_mut(tail) {
                *place = b' ';
            }
            tail += 1;
        }
        match self.bytes.get_mut(tail..tail + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                tail += bytes.len();
                // No more than SUMMARY_MAX, as there was room.
                self.tail = u8::try_from(tail).unwrap_or(0);
            }
            None => self.is_cut = true,
        }
    }

    /// The word under way belongs to the summary, which it ends if it does not fit.
    fn commit(&mut self) {
        if self.is_cut {
            self.state = State::Over;
        } else {
            self.len = self.tail.max(self.len);
        }
    }

    #[inline]
    fn word(&mut self, text: &[u8]) -> usize {
        let count = text.iter().position(|byte| !is_part(*byte)).unwrap_or(text.len());
        for byte in &text[..count] {
            if self.word_len < words::WORD_MAX {
                self.word |= u128::from(byte.to_ascii_uppercase()) << (8 * self.word_len);
            }
            self.word_len = self.word_len.saturating_add(1);
        }
        if self.expect != Expect::Nothing || self.word_len <= words::WORD_MAX {
            self.copy(&text[..count]);
        }
        let Some(byte) = text.get(count) else { return count };
        match byte {
            b'\'' => {
                // What stands before a literal says what kind it is.
                let is_escaped = self.word == u128::from(b'E') && self.word_len == 1;
                self.begin_literal(b'\'');
                let escapes = is_escaped || self.dialect == Dialect::Mysql;
                self.state = State::Literal { quote: b'\'', escapes };
                count + 1
            }
            b'"' if self.dialect == Dialect::Postgresql => self.quote_within(count, b'"'),
            b'`' if self.dialect == Dialect::Mysql => self.quote_within(count, b'`'),
            _ => {
                self.state = State::Ground;
                self.end_word();
                count
            }
        }
    }

    /// `a."b"`.
    fn quote_within(&mut self, count: usize, quote: u8) -> usize {
        self.is_quoted = true;
        self.state = State::Quoted(quote);
        self.copy(&[quote]);
        count + 1
    }

    /// A quote that is doubled ends the name and begins it again, which comes to the same.
    fn quoted(&mut self, text: &[u8], quote: u8) -> usize {
        let end = memchr::memchr(quote, text);
        let count = end.map_or(text.len(), |end| end + 1);
        if end.is_some() {
            self.state = State::Word;
        }
        if self.expect != Expect::Nothing {
            self.copy(&text[..count]);
        }
        count
    }

    #[inline]
    fn literal(&mut self, text: &[u8], quote: u8, escapes: bool) -> usize {
        let Some(end) = memchr::memchr2(quote, b'\\', text) else { return text.len() };
        let is_end = text[end] == quote;
        self.state = if is_end { State::Ground } else { State::Escaped { quote, escapes } };
        end + 1
    }

    /// The states that few texts come to.
    fn rare(&mut self, text: &[u8]) -> usize {
        let byte = text[0];
        match self.state {
            // Whether the literal ends here, a setting of the server says, which nobody knows.
            State::Escaped { quote, escapes: false } if byte == quote => self.state = State::Over,
            State::Escaped { quote, escapes } => self.state = State::Literal { quote, escapes },
            State::Number if is_part(byte) => {}
            State::Number => return self.back(),
            State::Minus if byte == b'-' && self.dialect == Dialect::Mysql => {
                self.state = State::Minuses;
            }
            State::Minus if byte == b'-' => self.state = State::Line,
            State::Minuses if byte <= b' ' => {
                self.state = State::Line;
                return 0;
            }
            State::Slash if byte == b'*' => {
                self.carrier.begin();
                self.state = State::Comment { depth: 1, before: 0 };
            }
            State::Minus | State::Minuses | State::Slash => {
                self.other();
                return self.back();
            }
            State::Line => match memchr::memchr2(b'\n', b'\r', text) {
                Some(end) => {
                    self.state = State::Ground;
                    return end + 1;
                }
                None => return text.len(),
            },
            State::Comment { depth, before } => self.comment(byte, depth, before),
            State::Tag => return self.begin_tag(byte),
            State::Dollars => match memchr::memchr(b'$', text) {
                Some(end) => {
                    (self.state, self.end_tag) = (State::EndTag, TAG);
                    return end + 1;
                }
                None => return text.len(),
            },
            State::EndTag => match byte {
                b'$' if self.tag == self.end_tag => self.state = State::Ground,
                b'$' => self.end_tag = TAG,
                _ if is_letter(byte) || byte.is_ascii_digit() => {
                    self.end_tag = mix(self.end_tag, byte);
                }
                _ => self.state = State::Dollars,
            },
            _ => {}
        }
        1
    }

    fn back(&mut self) -> usize {
        self.state = State::Ground;
        0
    }

    fn comment(&mut self, byte: u8, depth: u8, before: u8) {
        self.carrier.push(byte);
        self.state = match (before, byte) {
            (b'*', b'/') if depth == 1 => State::Ground,
            (b'*', b'/') => State::Comment { depth: depth - 1, before: 0 },
            (b'/', b'*') if self.dialect == Dialect::Mysql => State::Comment { depth, before: 0 },
            (b'/', b'*') if depth == COMMENTS_MAX => State::Over,
            (b'/', b'*') => State::Comment { depth: depth + 1, before: 0 },
            _ => State::Comment { depth, before: byte },
        };
    }

    /// Behind a dollar: a parameter, or the tag of a literal.
    fn begin_tag(&mut self, byte: u8) -> usize {
        self.other();
        match byte {
            b'$' => self.state = State::Dollars,
            b'0'..=b'9' if self.tag == TAG => self.state = State::Number,
            _ if is_letter(byte) || byte.is_ascii_digit() => self.tag = mix(self.tag, byte),
            _ => return self.back(),
        }
        1
    }

    fn open_bracket(&mut self) {
        if self.depth == DEPTH_MAX {
            self.state = State::Over;
            return;
        }
        self.depth += 1;
        let level = 1 << self.depth;
        (self.queries, self.lists) = (self.queries & !level, self.lists & !level);
        self.before = Before::Opening;
        match self.expect {
            // `(SELECT 1)`, and tables that are joined in brackets.
            Expect::Operation => {}
            Expect::Target => {
                self.queries |= level;
                self.lists |= level;
            }
            _ => self.expect = Expect::Nothing,
        }
    }

    /// A word is whole.
    fn end_word(&mut self) {
        let word = if self.is_quoted { None } else { words::find(self.word, self.word_len) };
        let before = std::mem::replace(&mut self.before, Before::Other);
        match (self.expect, word) {
            (Expect::Operation, Some(Word::Operation(index, after))) => {
                self.begin_operation(index, after);
            }
            (_, Some(Word::Select(index))) => self.begin_operation(index, After::Query),
            (Expect::Object, Some(Word::Table)) => {
                self.commit();
                self.expect = Expect::Target;
            }
            (Expect::Object, Some(Word::Object { has_target })) => {
                self.commit();
                self.expect = if has_target { Expect::Target } else { Expect::Nothing };
            }
            (Expect::Object, Some(Word::Adjective | Word::Skipped | Word::Operation(..)))
            | (Expect::Target | Expect::TargetNoBracket, Some(Word::Table | Word::Skipped)) => {}
            (_, Some(Word::Operation(index, after)))
                if before == Before::Opening && words::is_nested(index) =>
            {
                self.begin_operation(index, after);
            }
            (
                Expect::Target | Expect::TargetNoBracket,
                None | Some(Word::Object { .. } | Word::Adjective),
            ) => {
                self.commit();
                self.expect = Expect::Nothing;
            }
            (Expect::Target | Expect::TargetNoBracket, Some(Word::Operation(index, _)))
                if !words::is_nested(index) =>
            {
                self.commit();
                self.expect = Expect::Nothing;
            }
            (_, word) => self.clause(word, before),
        }
    }

    fn clause(&mut self, word: Option<Word>, before: Before) {
        let level = 1 << self.depth;
        let is_query = self.queries & level != 0;
        self.expect = match word {
            Some(Word::From) if is_query && before != Before::Distinct => {
                self.lists |= level;
                Expect::Target
            }
            Some(Word::Join | Word::Into) if is_query => Expect::Target,
            Some(Word::Using) if is_query => Expect::TargetNoBracket,
            Some(word) if before == Before::Opening && words::is_of_explain(word) => {
                self.before = Before::Opening;
                Expect::Nothing
            }
            Some(Word::Clause | Word::Operation(..)) => {
                self.lists &= !level;
                Expect::Nothing
            }
            Some(Word::Opening) => {
                self.before = Before::Opening;
                Expect::Nothing
            }
            Some(Word::Distinct) => {
                self.before = Before::Distinct;
                Expect::Nothing
            }
            _ => Expect::Nothing,
        };
    }

    fn begin_operation(&mut self, index: u8, after: After) {
        self.commit();
        self.take_operation(index);
        let level = 1 << self.depth;
        self.lists &= !level;
        self.expect = Expect::Nothing;
        match after {
            After::Nothing => {}
            After::Opening => self.before = Before::Opening,
            After::Named => self.expect = Expect::Target,
            After::Query => self.queries |= level,
            After::Target => {
                self.queries |= level;
                self.lists |= level;
                self.expect = Expect::Target;
            }
            After::Object => self.expect = Expect::Object,
        }
    }

    fn take_operation(&mut self, index: u8) {
        if self.operation == OTHER || words::is_opening(self.operation) {
            self.operation = index;
        }
    }
}
