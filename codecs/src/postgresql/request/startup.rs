//! The packets before the first message, which have no type.

use super::super::{CANCEL, STARTUP};
use super::{DATABASE_MAX, Field, Negotiation, Phase, RequestSide, Which, head_event};
use crate::codec::{Event, Head, Kind, Reason, size};

/// The longest packet before the first message that servers take.
const STARTUP_MAX: u32 = 10_000;
const CANCEL_CODE: u32 = 80_877_102;
const SSL_CODE: u32 = 80_877_103;
const GSS_CODE: u32 = 80_877_104;

/// The names of parameters, as far as they are looked for.
const DATABASE: u64 = u64::from_le_bytes(*b"database");
const USER: u64 = u64::from_le_bytes(*b"user\0\0\0\0");

impl RequestSide {
    /// Reads what a connection begins with.
    #[cold]
    pub(super) fn advance_startup(&mut self, input: &[u8], head: &mut Head) -> Event {
        let mut at = 0;
        if self.phase == Phase::Startup {
            at = self.start.fill(input, 8);
            match self.start.bytes[..usize::from(self.start.len)] {
                // No packet is so long that its length begins otherwise.
                [0, ..] | [0x16] => {}
                [0x16, 0x03, ..] => return Event::Not(Reason::Tls),
                _ => return Event::Not(Reason::NotThisProtocol),
            }
            if self.start.len < 8 {
                return Event::Need;
            }
            let &[a, b, c, d, code @ ..] = &self.start.bytes;
            let len = u32::from_be_bytes([a, b, c, d]);
            if !(8..=STARTUP_MAX).contains(&len) {
                return Event::Not(Reason::NotThisProtocol);
            }
            self.left = u64::from(len) - 8;
            self.start.len = 0;
            self.has_begun = true;
            self.phase = match u32::from_be_bytes(code) {
                SSL_CODE | GSS_CODE if self.left > 0 => return Event::Not(Reason::Malformed),
                SSL_CODE => {
                    self.negotiation = Some(Negotiation::Tls);
                    return Event::Skip(at);
                }
                GSS_CODE => {
                    self.negotiation = Some(Negotiation::Gss);
                    return Event::Skip(at);
                }
                CANCEL_CODE => Phase::Cancel,
                0x0003_0000..=0x0003_ffff => {
                    self.texts().database_len = 0;
                    self.field = Field::Parameter { word: 0, len: 0 };
                    Phase::Parameters
                }
                0x0002_0000..=0x0002_ffff => return Event::Not(Reason::Unsupported),
                _ => return Event::Not(Reason::NotThisProtocol),
            };
        }
        let count = size(self.left).min(input.len() - at);
        if self.phase == Phase::Parameters {
            self.read_parameters(&input[at..at + count]);
        }
        (at, self.left) = (at + count, self.left - count as u64);
        if self.left > 0 {
            return Event::Body(at);
        }
        *head = if self.phase == Phase::Cancel {
            self.phase = Phase::Startup;
            self.tell(Kind::Oneway, CANCEL, Which::None)
        } else {
            self.phase = Phase::Messages;
            self.keep_database();
            self.tell(Kind::Handshake, STARTUP, Which::None)
        };
        head_event(at, true)
    }

    fn keep_database(&mut self) {
        if let Some(texts) = &self.texts {
            let database = &texts.told[..texts.database_len];
            if *self.database != *database {
                self.database = database.into();
            }
        }
    }

    /// Pairs of name and value. The database is called as the user unless it is said.
    fn read_parameters(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.field = match (self.field, *byte) {
                (Field::Parameter { len: 0, .. }, 0) => Field::Rest,
                (Field::Parameter { word, len: 8 }, 0) if word == DATABASE => {
                    self.texts().database_len = 0;
                    Field::Value { is_database: true }
                }
                (Field::Parameter { word, len: 4 }, 0) if word == USER => {
                    Field::Value { is_database: self.texts().database_len == 0 }
                }
                (Field::Parameter { .. }, 0) => Field::Value { is_database: false },
                (Field::Parameter { word, len }, byte) => {
                    let shift = 8 * u32::from(len.min(7));
                    let word = if len < 8 { word | u64::from(byte) << shift } else { 0 };
                    Field::Parameter { word, len: len.saturating_add(1) }
                }
                (Field::Value { .. }, 0) => Field::Parameter { word: 0, len: 0 },
                (field @ Field::Value { is_database: true }, byte) => {
                    let texts = self.texts();
                    if texts.database_len < DATABASE_MAX {
                        texts.told[texts.database_len] = byte;
                        texts.database_len += 1;
                    }
                    field
                }
                (field, _) => field,
            };
        }
    }
}
