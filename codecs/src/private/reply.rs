//! What the client of a request that is refused is told, made of a template.

use super::description::{Description, Number, Order, Unfit};
use crate::codec::{Frame, Head, Kind, Outcome, Refusal, Replied, Way, Why, size};

/// An answer, but for what is put into it: the id of its request, its length, and what is said here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The message.
    pub bytes: Box<[u8]>,
    /// The status by why it is refused; where there is none, the message has one.
    pub status: Vec<(Why, u64)>,
    /// Places of the header that are as they are in the request: where, and how many bytes.
    pub copy: Vec<(u32, u32)>,
    /// Where the text goes, which is for people to read.
    pub text: Option<TextPlace>,
}

/// Where a text is put between the bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextPlace {
    /// Before this byte; at the end where it is as long as the message.
    pub at: u32,
    /// Bytes of the length before it, 0 where it has none.
    pub prefix: u8,
}

/// No text has more bytes.
const TEXT_MAX: usize = 512;
/// Bytes of a template at most.
pub(super) const REPLY_MAX: usize = 4096;

impl Description {
    /// Writes what the client of a request is told in the place of an answer.
    pub(super) fn reply(
        &self,
        request: &[u8],
        refusal: &Refusal<'_>,
        out: &mut Vec<u8>,
    ) -> Replied {
        let begin = out.len();
        let made = self.reply.as_ref().and_then(|reply| self.make(reply, request, refusal, out));
        match made {
            Some(()) => Replied::Sent,
            None => {
                out.truncate(begin);
                Replied::MustClose
            }
        }
    }

    fn make(
        &self,
        reply: &Reply,
        request: &[u8],
        refusal: &Refusal<'_>,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let begin = out.len();
        out.extend_from_slice(&reply.bytes);
        let message = &mut out[begin..];
        for (at, len) in &reply.copy {
            let place = *at as usize..*at as usize + *len as usize;
            message.get_mut(place.clone())?.copy_from_slice(request.get(place)?);
        }
        if let Some(id) = self.id {
            put(message, id, self.order, id.of(request, self.order)?)?;
        }
        if let Some(status) = &self.status {
            let said = reply.status.iter().find(|(why, _)| *why == refusal.why);
            said.map_or(Some(()), |(_, it)| put(message, status.number, self.order, *it))?;
        }
        if let Some(place) = reply.text {
            let at = begin + place.at as usize;
            let tail = out.split_off(at.min(out.len()));
            self.put_text(place, refusal, out);
            out.extend_from_slice(&tail);
        }
        self.put_length(&mut out[begin..])
    }

    fn put_text(&self, place: TextPlace, refusal: &Refusal<'_>, out: &mut Vec<u8>) {
        let most = if place.prefix == 1 { u8::MAX.into() } else { usize::MAX };
        let text = refusal.line().take(most);
        let len = text.clone().count() as u64;
        let number = Number { at: 0, width: place.prefix };
        let mut prefix = [0; 8];
        // A text is no longer than its prefix can say.
        let _ = put(&mut prefix, number, self.order, len);
        out.extend_from_slice(&prefix[..usize::from(place.prefix)]);
        out.extend(text);
    }

    /// The length is told by one number, or has to be right as it stands.
    fn put_length(&self, message: &mut [u8]) -> Option<()> {
        let [part] = self.length.parts.as_slice() else { return Some(()) };
        let counted = (message.len() as u64)
            .checked_sub(self.uncounted())?
            .checked_sub(self.length.trailer.into())?;
        let times = u64::from(part.times);
        if counted % times != 0 {
            return None;
        }
        put(message, part.number, self.order, counted / times)
    }

    /// Whether what it makes can be read as an answer that says no.
    pub(super) fn check_reply(&self) -> Result<(), Unfit> {
        let Some(reply) = &self.reply else { return Ok(()) };
        let unfit = |what: &str| Err(Unfit(format!("reply {what}")));
        if reply.bytes.len() < self.header as usize || reply.bytes.len() > REPLY_MAX {
            return unfit(&format!("has to have a header at least, and {REPLY_MAX} bytes at most"));
        }
        if self.length.trailer > 0 {
            return unfit("cannot be: nobody knows what stands in the trailer of a message");
        }
        if self.status.is_none() && !reply.status.is_empty() {
            return unfit("has a status, and answers have none");
        }
        if reply.copy.iter().any(|(at, len)| at.saturating_add(*len) > self.header) {
            return unfit("copies what lies behind the header");
        }
        if reply.text.is_some_and(|it| it.at < self.header || it.at as usize > reply.bytes.len()) {
            return unfit("has its text before the header's end, or behind its own");
        }
        let request = vec![0; self.header as usize];
        for why in Why::ALL {
            let mut made = Vec::new();
            for text in ["", &"x".repeat(TEXT_MAX)] {
                made.clear();
                let refusal = Refusal { why: *why, text, is_alone: true };
                if self.reply(&request, &refusal, &mut made) != Replied::Sent {
                    return unfit("has a number that does not fit into its bytes");
                }
                self.check_made(&made, *why)?;
            }
        }
        Ok(())
    }

    fn check_made(&self, made: &[u8], why: Why) -> Result<(), Unfit> {
        let unfit = |what: &str| Err(Unfit(format!("reply {what}")));
        let mut head = Head::default();
        match self.frame(made) {
            Frame::Total(total) if size(total) == made.len() => {}
            Frame::Total(total) => {
                return unfit(&format!("has {} bytes and says {total}", made.len()));
            }
            _ => return unfit("is no message of the protocol"),
        }
        match self.head(Way::Response, made, &mut head) {
            Ok(()) if head.kind == Kind::Response => {}
            _ => return unfit("is no answer, by its kind"),
        }
        match self.status.is_some() && head.outcome == Outcome::Ok {
            true => unfit(&format!(
                "says that all is well, by its status, to a request that is refused as {}: its \
                 `status` has to name another value for that, or its `bytes` one for all",
                why.name()
            )),
            false => Ok(()),
        }
    }
}

/// Writes a number, if it fits.
fn put(message: &mut [u8], number: Number, order: Order, value: u64) -> Option<()> {
    let (at, width) = (number.at as usize, usize::from(number.width));
    let place = message.get_mut(at..at + width)?;
    let bytes = value.to_be_bytes();
    let (above, bytes) = bytes.split_at(bytes.len() - width);
    if above.iter().any(|byte| *byte != 0) {
        return None;
    }
    place.copy_from_slice(bytes);
    if order == Order::Little {
        place.reverse();
    }
    Some(())
}
