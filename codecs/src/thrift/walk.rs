//! Through a struct of Thrift, whatever is in it, in any pieces.

use crate::codec::{Reason, size};
use crate::limits::Limits;

/// Structs and containers within one another that are followed.
const DEPTH_MAX: usize = 16;

/// Where in a struct: counters of what is still to come, and no bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    around: [Around; DEPTH_MAX],
    depth: u8,
    state: State,
    is_compact: bool,
    /// The type of the field or of the elements that are being read; of a map also the values'.
    kinds: [u8; 2],
    /// A number that is being read, and how many bytes of it have been.
    number: u64,
    digits: u8,
    /// Bytes that are known to be of a string, or of values of one size.
    bulk: u64,
    bad: Option<Reason>,
}

/// What holds the value that is being read.
#[derive(Clone, Copy, Debug, Default)]
struct Around {
    /// Elements still to come, those that are keys and those that are values; None in a struct.
    left: Option<std::num::NonZeroU32>,
    /// Types of the next element and of the one behind it.
    kinds: [u8; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The type of a field, or the end of the struct.
    #[default]
    Field,
    FieldId,
    /// A number of the compact encoding.
    Varint,
    /// The length of a string.
    Len,
    /// The types and the size of a list or set.
    List,
    ListSize,
    /// The types and the size of a map, in either order.
    MapSize,
    MapKinds,
    Bulk,
}

/// How far it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// Through all of the input.
    More,
    /// To the end, behind so many bytes.
    End(usize),
    /// It is no struct, as the byte at this place shows; shown again, it does so again.
    Bad(Reason, usize),
}

/// Whether the struct goes on.
type Goes = Result<(), Stop>;

enum Stop {
    End,
    Bad(Reason),
}

/// What a type means for reading on.
enum Shape {
    /// So many bytes.
    Fixed(u64),
    /// A number of the compact encoding.
    Varint,
    Text,
    Struct,
    List,
    Map,
    None,
}

impl Walk {
    pub(super) fn is_under_way(&self) -> bool {
        self.depth > 0
    }

    /// A struct begins.
    pub(super) fn begin(&mut self, is_compact: bool) {
        self.is_compact = is_compact;
        self.around[0] = Around::default();
        self.depth = 1;
        self.state = State::Field;
    }

    pub(super) fn passable(&self) -> u64 {
        if self.depth > 0 && self.state == State::Bulk { self.bulk } else { 0 }
    }

    /// Takes note of bytes that passed. What follows the last of them is found with the next.
    pub(super) fn pass(&mut self, count: u64) {
        self.bulk = self.bulk.saturating_sub(count);
    }

    pub(super) fn run(&mut self, input: &[u8], bulk_max: u64) -> Walked {
        if let Some(reason) = self.bad {
            return Walked::Bad(reason, 0);
        }
        let mut at = 0;
        while at < input.len() {
            let before = at;
            let goes = if self.state == State::Bulk {
                let count = self.bulk.min((input.len() - at) as u64);
                self.bulk -= count;
                at += size(count);
                // What follows the last of them is found with the next, as where they passed unseen.
                let goes_on = self.bulk > 0 || at == input.len();
                if goes_on { Ok(()) } else { self.end_value() }
            } else {
                at += 1;
                self.take(input[at - 1], bulk_max)
            };
            match goes {
                Ok(()) => {}
                Err(Stop::End) => return Walked::End(at),
                Err(Stop::Bad(reason)) => {
                    self.bad = Some(reason);
                    return Walked::Bad(reason, before);
                }
            }
        }
        Walked::More
    }

    /// How far it goes, and whether to the end. What is bad shows again with the next bytes.
    pub(super) fn run_on(&mut self, input: &[u8], limits: &Limits) -> (usize, bool) {
        match self.run(input, limits.message_bytes_max) {
            Walked::More => (input.len(), false),
            Walked::End(count) => (count, true),
            Walked::Bad(_, at) => (at, false),
        }
    }

    fn take(&mut self, byte: u8, bulk_max: u64) -> Goes {
        let state = self.state;
        match state {
            State::Field if byte == 0 => {
                self.depth -= 1;
                if self.depth == 0 { Err(Stop::End) } else { self.end_value() }
            }
            State::Field if !self.is_compact => {
                self.kinds[0] = byte;
                self.read_number(State::FieldId);
                Ok(())
            }
            State::Field => {
                self.kinds[0] = byte & 0x0f;
                if byte >> 4 != 0 {
                    return self.begin_field();
                }
                self.read_number(State::FieldId);
                Ok(())
            }
            State::FieldId if !self.number_ends(byte, 2)? => Ok(()),
            State::FieldId => self.begin_field(),
            State::Varint if !self.number_ends(byte, 0)? => Ok(()),
            State::Varint => self.end_value(),
            State::Len if !self.number_ends(byte, 4)? => Ok(()),
            State::Len => self.begin_bulk(self.number, bulk_max),
            State::List if self.is_compact => {
                self.kinds[0] = byte & 0x0f;
                if byte >> 4 != 0x0f {
                    return self.begin_list((byte >> 4).into(), bulk_max);
                }
                self.read_number(State::ListSize);
                Ok(())
            }
            State::List => {
                self.kinds[0] = byte;
                self.read_number(State::ListSize);
                Ok(())
            }
            State::ListSize if !self.number_ends(byte, 4)? => Ok(()),
            State::ListSize => self.begin_list(self.number, bulk_max),
            State::MapSize => self.take_map_size(byte, bulk_max),
            State::MapKinds => self.take_map_kinds(byte, bulk_max),
            State::Bulk => Ok(()),
        }
    }

    fn read_number(&mut self, state: State) {
        (self.state, self.number, self.digits) = (state, 0, 0);
    }

    /// Adds a byte to the number; returns whether it is whole. It has `len` bytes, or ends by
    /// itself in the compact encoding.
    fn number_ends(&mut self, byte: u8, len: u8) -> Result<bool, Stop> {
        if !self.is_compact {
            self.number = self.number << 8 | u64::from(byte);
            self.digits += 1;
            return Ok(self.digits == len);
        }
        if self.digits == 10 {
            return Err(Stop::Bad(Reason::Malformed));
        }
        self.number |= u64::from(byte & 0x7f).wrapping_shl(7 * u32::from(self.digits));
        self.digits += 1;
        Ok(byte < 0x80)
    }

    fn shape(&self, kind: u8, in_field: bool) -> Shape {
        if self.is_compact {
            return match kind {
                1 | 2 if in_field => Shape::Fixed(0),
                1..=3 => Shape::Fixed(1),
                4..=6 => Shape::Varint,
                7 => Shape::Fixed(8),
                8 => Shape::Text,
                9 | 10 => Shape::List,
                11 => Shape::Map,
                12 => Shape::Struct,
                13 => Shape::Fixed(16),
                _ => Shape::None,
            };
        }
        match kind {
            2 | 3 => Shape::Fixed(1),
            6 => Shape::Fixed(2),
            8 => Shape::Fixed(4),
            4 | 10 => Shape::Fixed(8),
            11 => Shape::Text,
            12 => Shape::Struct,
            13 => Shape::Map,
            14 | 15 => Shape::List,
            16 => Shape::Fixed(16),
            _ => Shape::None,
        }
    }

    fn begin_field(&mut self) -> Goes {
        self.begin_value(self.kinds[0], true)
    }

    fn begin_value(&mut self, kind: u8, in_field: bool) -> Goes {
        match self.shape(kind, in_field) {
            Shape::Fixed(0) => return self.end_value(),
            Shape::Fixed(len) => (self.state, self.bulk) = (State::Bulk, len),
            Shape::Varint => self.read_number(State::Varint),
            Shape::Text => self.read_number(State::Len),
            Shape::List => self.state = State::List,
            Shape::Map if self.is_compact => self.read_number(State::MapSize),
            Shape::Map => self.read_number(State::MapKinds),
            Shape::Struct => return self.enter(Around::default()),
            Shape::None => return Err(Stop::Bad(Reason::Malformed)),
        }
        Ok(())
    }

    fn begin_bulk(&mut self, len: u64, bulk_max: u64) -> Goes {
        if len > bulk_max {
            return Err(Stop::Bad(Reason::TooLarge));
        }
        (self.state, self.bulk) = (State::Bulk, len);
        if len == 0 { self.end_value() } else { Ok(()) }
    }

    fn begin_list(&mut self, size: u64, bulk_max: u64) -> Goes {
        let kind = self.kinds[0];
        match self.shape(kind, false) {
            Shape::Fixed(len) => self.begin_bulk(size.saturating_mul(len), bulk_max),
            _ => self.begin_elements(size, [kind, kind], bulk_max),
        }
    }

    /// The compact encoding says the size of a map first, and the types unless it is empty; the
    /// binary one says both types, then the size.
    fn take_map_size(&mut self, byte: u8, bulk_max: u64) -> Goes {
        if !self.number_ends(byte, 4)? {
            return Ok(());
        }
        if self.is_compact && self.number > 0 {
            self.state = State::MapKinds;
            return Ok(());
        }
        // An empty map of the compact encoding says no types, and needs none.
        let kinds = if self.is_compact { [1, 1] } else { self.kinds };
        self.begin_map(kinds, bulk_max)
    }

    fn take_map_kinds(&mut self, byte: u8, bulk_max: u64) -> Goes {
        if self.is_compact {
            return self.begin_map([byte >> 4, byte & 0x0f], bulk_max);
        }
        self.kinds[usize::from(self.digits)] = byte;
        self.digits += 1;
        if self.digits == 2 {
            self.read_number(State::MapSize);
        }
        Ok(())
    }

    fn begin_map(&mut self, kinds: [u8; 2], bulk_max: u64) -> Goes {
        if let (Shape::Fixed(key), Shape::Fixed(value)) =
            (self.shape(kinds[0], false), self.shape(kinds[1], false))
        {
            return self.begin_bulk(self.number.saturating_mul(key + value), bulk_max);
        }
        self.begin_elements(self.number.saturating_mul(2), kinds, bulk_max)
    }

    fn begin_elements(&mut self, count: u64, kinds: [u8; 2], bulk_max: u64) -> Goes {
        if count > bulk_max {
            return Err(Stop::Bad(Reason::TooLarge));
        }
        let left = u32::try_from(count).map_err(|_| Stop::Bad(Reason::TooLarge))?;
        match std::num::NonZeroU32::new(left) {
            None => self.end_value(),
            left => {
                self.enter(Around { left, kinds })?;
                self.begin_value(kinds[0], false)
            }
        }
    }

    fn enter(&mut self, around: Around) -> Goes {
        match self.around.get_mut(usize::from(self.depth)) {
            Some(place) => *place = around,
            None => return Err(Stop::Bad(Reason::NestedTooDeep)),
        }
        self.depth += 1;
        self.state = State::Field;
        Ok(())
    }

    /// A value has been read, and with it perhaps those that it was the last element of.
    fn end_value(&mut self) -> Goes {
        loop {
            let around = &mut self.around[usize::from(self.depth) - 1];
            let Some(left) = around.left else {
                self.state = State::Field;
                return Ok(());
            };
            around.left = std::num::NonZeroU32::new(left.get() - 1);
            if around.left.is_some() {
                around.kinds.swap(0, 1);
                let kind = around.kinds[0];
                return self.begin_value(kind, false);
            }
            self.depth -= 1;
        }
    }
}
