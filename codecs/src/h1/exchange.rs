//! Requests and the responses that answer them, in order.

use std::collections::VecDeque;

use crate::h1::framing::Framing;
use crate::h1::head::{RequestKind, RequestParts};
use crate::h1::reason::Reason;

/// Names an exchange within its connection; counts up from 0 and wraps around.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeId(u32);

/// One request with its final response.
///
/// Times are nanoseconds of the caller's monotonic clock. Body sizes are bytes of the connection:
/// chunk sizes and trailers are counted too.
#[derive(Clone, Debug)]
pub struct Exchange<T> {
    /// Its name.
    pub id: ExchangeId,
    /// What the method means for the response.
    pub kind: RequestKind,
    /// How the request body is framed.
    pub request_framing: Framing,
    /// How the body of the final response is framed; None before its head has come.
    pub response_framing: Option<Framing>,
    /// Status of the final response; None before its head has come.
    pub status: Option<u16>,
    /// Interim responses (1xx, but not 101) so far.
    pub interim_count: u16,
    /// When the request head was whole.
    pub opened_ns: u64,
    /// Bytes of the request body so far.
    pub request_body_bytes: u64,
    /// Bytes of the response body so far.
    pub response_body_bytes: u64,
    /// The caller's own, such as the span in the making.
    pub data: T,
}

/// The exchanges of one connection that wait for the end of their response, oldest first.
///
/// Bounded: past [`Limits::exchanges_max`](crate::limits::Limits::exchanges_max) the connection
/// turns opaque. It is also where the two halves meet: a half that turns opaque seals it, and the
/// other half follows at its next step.
#[derive(Debug)]
pub struct Exchanges<T> {
    open: VecDeque<Exchange<T>>,
    next: u32,
    sealed: Option<Reason>,
    /// The request whose answer decides which protocol comes next.
    switching: Option<ExchangeId>,
}

impl<T> Exchanges<T> {
    /// None yet, and no storage either.
    pub const fn new() -> Self {
        Self { open: VecDeque::new(), next: 0, sealed: None, switching: None }
    }

    /// The number of exchanges that are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no exchange is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many were ever opened, modulo 2³².
    pub fn opened(&self) -> u32 {
        self.next
    }

    /// An exchange that is still open.
    pub fn get_mut(&mut self, id: ExchangeId) -> Option<&mut Exchange<T>> {
        let first = self.open.front()?.id;
        self.open.get_mut(id.0.wrapping_sub(first.0) as usize)
    }

    /// The exchange whose response comes next, or is coming.
    pub fn front_mut(&mut self) -> Option<&mut Exchange<T>> {
        self.open.front_mut()
    }

    /// Why no further exchange will be opened: the connection is opaque, or about to be.
    pub fn sealed(&self) -> Option<Reason> {
        self.sealed
    }

    /// Whether the answer that decides about the protocol is still to come.
    pub fn is_switching(&self) -> bool {
        self.switching.is_some()
    }

    /// Takes the exchanges that will not be finished, oldest first: for the end of a connection.
    pub fn drain(&mut self) -> impl Iterator<Item = Exchange<T>> {
        self.switching = None;
        self.open.drain(..)
    }

    /// Says that nothing more is opened. The first reason stays; returns it.
    pub fn seal(&mut self, reason: Reason) -> Reason {
        *self.sealed.get_or_insert(reason)
    }

    /// Opens the exchange of a request, unless there are `max` already.
    pub(crate) fn open(&mut self, head: &RequestParts, max: u16, now_ns: u64) -> Option<ExchangeId>
    where
        T: Default,
    {
        if self.open.len() >= usize::from(max) {
            return None;
        }
        let id = ExchangeId(self.next);
        self.next = self.next.wrapping_add(1);
        if head.asks_to_switch() {
            self.switching = Some(id);
        }
        if self.open.capacity() == 0 {
            // Clients that pipeline are rare, and a connection keeps this storage while it idles.
            self.open.reserve_exact(1);
        }
        self.open.push_back(Exchange {
            id,
            kind: head.kind,
            request_framing: head.framing,
            response_framing: None,
            status: None,
            interim_count: 0,
            opened_ns: now_ns,
            request_body_bytes: 0,
            response_body_bytes: 0,
            data: T::default(),
        });
        Some(id)
    }

    /// Takes note of the final answer to the oldest exchange.
    pub(crate) fn answer(&mut self, status: u16, framing: Framing) {
        let Some(front) = self.open.front_mut() else { return };
        front.status = Some(status);
        front.response_framing = Some(framing);
        if self.switching == Some(front.id) {
            self.switching = None;
        }
    }

    /// The answer to the oldest exchange is not the one that its client gets: another one is to come.
    pub(crate) fn withhold(&mut self) {
        let Some(front) = self.open.front_mut() else { return };
        (front.status, front.response_framing, front.response_body_bytes) = (None, None, 0);
    }

    /// Takes the oldest exchange: its response is whole.
    pub(crate) fn finish(&mut self) -> Option<Exchange<T>> {
        self.open.pop_front()
    }
}

impl<T> Default for Exchanges<T> {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(size_of::<Exchange<()>>() <= 80);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{HeadReader, ResponseHalf, ResponseStep};
    use crate::limits::Limits;

    fn open(exchanges: &mut Exchanges<u8>, head: &[u8], max: u16) -> Option<ExchangeId> {
        let mut reader = HeadReader::new(Limits::DEFAULT);
        exchanges.open(&reader.read_request(head).unwrap(), max, 7)
    }

    #[test]
    fn first_in_first_out_and_bounded() {
        let mut exchanges = Exchanges::new();
        let get = b"GET / HTTP/1.1\r\n\r\n";
        let ids: Vec<_> = (0..3).map(|_| open(&mut exchanges, get, 3).unwrap()).collect();
        assert_eq!(open(&mut exchanges, get, 3), None);
        exchanges.get_mut(ids[1]).unwrap().data = 42;
        exchanges.answer(200, Framing::Length(0));
        let first = exchanges.finish().unwrap();
        assert_eq!((first.id, first.status, first.opened_ns), (ids[0], Some(200), 7));
        assert!(exchanges.get_mut(ids[0]).is_none());
        let rest: Vec<_> = exchanges.drain().map(|exchange| (exchange.id, exchange.data)).collect();
        assert_eq!(rest, [(ids[1], 42), (ids[2], 0)]);
        assert!(exchanges.is_empty() && exchanges.opened() == 3);
        assert!(exchanges.finish().is_none());
    }

    #[test]
    fn another_answer_takes_the_place_of_one_that_is_withheld() {
        let (mut exchanges, mut reader) =
            (Exchanges::<u8>::new(), HeadReader::new(Limits::DEFAULT));
        let id = open(&mut exchanges, b"GET / HTTP/1.1\r\n\r\n", 3).unwrap();
        let mut half = ResponseHalf::new();
        let mut bytes = &b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nno"[..];
        while let ResponseStep::Head { consumed: len, .. } | ResponseStep::Body(len) =
            half.step(bytes, &mut reader, &mut exchanges)
        {
            bytes = &bytes[len..];
        }
        assert_eq!(exchanges.front_mut().unwrap().response_body_bytes, 2);
        half.withhold(&mut exchanges);
        let front = exchanges.front_mut().unwrap();
        let left = (front.id, front.status, front.response_framing, front.response_body_bytes);
        assert_eq!(left, (id, None, None, 0));
        let next = b"HTTP/1.1 204 Well\r\n\r\n";
        let step = half.step(next, &mut reader, &mut exchanges);
        assert!(matches!(step, ResponseStep::Head { .. }));
        let step = half.step(b"", &mut reader, &mut exchanges);
        assert!(matches!(step, ResponseStep::Finish(done) if done.status == Some(204)));
    }

    #[test]
    fn names_survive_the_wrap() {
        let mut exchanges = Exchanges::new();
        exchanges.next = u32::MAX;
        let get = b"GET / HTTP/1.1\r\n\r\n";
        let ids: Vec<_> = (0..2).map(|_| open(&mut exchanges, get, 3).unwrap()).collect();
        assert_eq!(exchanges.get_mut(ids[1]).unwrap().id, ids[1]);
        exchanges.finish();
        assert!(exchanges.get_mut(ids[0]).is_none() && exchanges.get_mut(ids[1]).is_some());
    }

    #[test]
    fn the_answer_decides_about_the_protocol() {
        let mut exchanges = Exchanges::new();
        let upgrade = b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n";
        open(&mut exchanges, b"GET / HTTP/1.1\r\n\r\n", 9).unwrap();
        open(&mut exchanges, upgrade, 9).unwrap();
        exchanges.answer(200, Framing::Length(0));
        exchanges.finish();
        assert!(exchanges.is_switching());
        exchanges.answer(200, Framing::Length(0));
        assert!(!exchanges.is_switching());
        assert_eq!(exchanges.seal(Reason::Upgraded), Reason::Upgraded);
        assert_eq!(exchanges.seal(Reason::Tls), Reason::Upgraded);
    }
}
