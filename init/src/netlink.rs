//! Netlink to nf_tables: messages with attributes, transactions, dumps; and to the links of this
//! network namespace. No allocation is shared with the kernel and nothing here knows our rules.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, RawFd};

use crate::sys;

/// `struct nlmsghdr`
const NLMSGHDR_LEN: usize = 16;
/// `struct nfgenmsg`
const NFGENMSG_LEN: usize = 4;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
/// Ask for an answer although nothing failed.
pub(crate) const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Make it if it is not there.
pub(crate) const NLM_F_CREATE: u16 = 0x400;
/// Make it only if it is not there.
pub(crate) const NLM_F_EXCL: u16 = 0x200;
/// Delete it only if it is empty.
pub(crate) const NLM_F_NONREC: u16 = 0x100;
/// Put it behind the others.
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Larger than any part of a dump the kernel sends.
const READ_BYTES: usize = 128 * 1024;
/// Room for the largest transaction our limits allow.
const BUFFER_BYTES: i32 = 8 * 1024 * 1024;
/// A dump that changed under our eyes is read again, but not for ever.
const DUMP_TRIES_MAX: usize = 8;

/// Attributes under construction. Lengths are patched when a nested attribute ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attrs {
    bytes: Vec<u8>,
}

impl Attrs {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds an attribute with these bytes.
    pub(crate) fn bytes(mut self, kind: u16, payload: &[u8]) -> Self {
        self.push(kind, payload);
        self
    }

    /// Adds a big endian number, as nf_tables wants them.
    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a string with its NUL.
    pub(crate) fn str(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds an attribute made of attributes.
    pub(crate) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.bytes)
    }

    /// The attributes as bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn push(&mut self, kind: u16, payload: &[u8]) {
        let len = u16::try_from(4 + payload.len()).expect("limits keep attributes below 64 KiB");
        self.bytes.extend(len.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// An attribute that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attr<'a> {
    pub(crate) kind: u16,
    pub(crate) is_nested: bool,
    pub(crate) payload: &'a [u8],
}

/// Walks attributes; ends at the first that does not fit.
pub(crate) fn attrs(mut bytes: &[u8]) -> impl Iterator<Item = Attr<'_>> {
    std::iter::from_fn(move || {
        let len = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)?;
        let payload = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        let is_nested = kind & NLA_F_NESTED != 0;
        Some(Attr { kind: kind & NLA_TYPE_MASK, is_nested, payload })
    })
}

/// The first attribute of a kind.
pub(crate) fn attr(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attrs(bytes).find(|attr| attr.kind == kind).map(|attr| attr.payload)
}

/// The first attribute of a kind as text.
pub(crate) fn attr_str(bytes: &[u8], kind: u16) -> Option<&str> {
    let payload = attr(bytes, kind)?;
    std::str::from_utf8(payload.strip_suffix(&[0]).unwrap_or(payload)).ok()
}

/// A request of nf_tables.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// What it does, for errors.
    pub(crate) label: String,
    /// `NFT_MSG_*`
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    /// Address family of the table.
    pub(crate) family: u8,
    pub(crate) attrs: Attrs,
}

/// Why a transaction failed, and at which message. Nothing of it was done.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) label: String,
    pub(crate) source: io::Error,
}

/// A socket to nf_tables.
#[derive(Debug)]
pub(crate) struct Netfilter {
    socket: File,
}

impl AsRawFd for Netfilter {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Netfilter {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = sys::netlink_socket(libc::NETLINK_NETFILTER)?;
        sys::grow_buffers(&socket, BUFFER_BYTES);
        Ok(Self { socket })
    }

    /// Does all messages or none.
    pub(crate) fn transact(&self, messages: &[Message]) -> std::result::Result<(), Refused> {
        self.batch(messages, true)
    }

    /// Looks whether all messages could be done: a batch without its end is taken back.
    pub(crate) fn check(&self, messages: &[Message]) -> std::result::Result<(), Refused> {
        self.batch(messages, false)
    }

    fn batch(&self, messages: &[Message], is_done: bool) -> std::result::Result<(), Refused> {
        let refused = |label: &str, source| Refused { label: label.to_owned(), source };
        let mut bytes = Vec::new();
        encode(&mut bytes, BATCH_BEGIN, NLM_F_REQUEST, 0, 0, SUBSYSTEM, &[]);
        let last = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        for (sequence, message) in (1..).zip(messages) {
            let kind = SUBSYSTEM << 8 | message.kind;
            // One answer proves that the transaction was read to its end.
            let ack = if sequence == last { NLM_F_ACK } else { 0 };
            let flags = NLM_F_REQUEST | message.flags | ack;
            let attrs = message.attrs.as_bytes();
            encode(&mut bytes, kind, flags, sequence, message.family, 0, attrs);
        }
        if is_done {
            encode(&mut bytes, BATCH_END, NLM_F_REQUEST, last.saturating_add(1), 0, SUBSYSTEM, &[]);
        }
        let label = |sequence: u32| match (sequence as usize).checked_sub(1) {
            Some(index) => messages.get(index).map_or("end of transaction", |m| m.label.as_str()),
            None => "commit",
        };
        match (&self.socket).write(&bytes) {
            Ok(len) if len == bytes.len() => {}
            Ok(_) => return Err(refused("send", io::ErrorKind::WriteZero.into())),
            Err(source) => return Err(refused("send", source)),
        }
        let mut is_acknowledged = false;
        let mut first_error = None;
        read_all(&self.socket, |reply| {
            if let Some(code) = reply.error_code() {
                is_acknowledged |= code == 0 && reply.sequence == last;
                if code != 0 && first_error.is_none() {
                    first_error = Some((reply.sequence, code));
                }
            }
        })
        .map_err(|source| refused("answer", source))?;
        match first_error {
            Some((sequence, code)) => {
                Err(refused(label(sequence), io::Error::from_raw_os_error(code)))
            }
            None if is_acknowledged || messages.is_empty() => Ok(()),
            None => Err(refused("answer", io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Reads all objects of a kind: their attributes. What is not there reads as nothing.
    pub(crate) fn dump(&self, kind: u16, family: u8, attrs: &Attrs) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        encode(&mut bytes, SUBSYSTEM << 8 | kind, flags, 1, family, 0, attrs.as_bytes());
        let found = dump(&self.socket, &bytes)?;
        let attrs = |object: Vec<u8>| object.get(NFGENMSG_LEN..).map(<[u8]>::to_vec);
        Ok(found.into_iter().filter_map(attrs).collect())
    }
}

/// A socket to the links, addresses and routes.
#[derive(Debug)]
pub(crate) struct Route {
    socket: File,
}

impl Route {
    pub(crate) fn open() -> io::Result<Self> {
        sys::netlink_socket(libc::NETLINK_ROUTE).map(|socket| Self { socket })
    }

    /// Reads all objects of a kind: a header of `header_len` bytes and attributes.
    pub(crate) fn dump(&self, kind: u16, header_len: usize) -> io::Result<Vec<Vec<u8>>> {
        dump(&self.socket, &Self::encode(kind, NLM_F_DUMP, &vec![0; header_len]))
    }

    /// Makes, changes or deletes something; `body` is a header and attributes.
    pub(crate) fn change(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        (&self.socket).write_all(&Self::encode(kind, NLM_F_ACK | flags, body))?;
        let mut answer = None;
        read_all(&self.socket, |reply| answer = answer.or(reply.error_code()))?;
        match answer {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn encode(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        header(&mut bytes, body.len(), kind, NLM_F_REQUEST | flags, 1);
        bytes.extend(body);
        bytes
    }
}

/// Sends the request of a dump and reads all objects: what is behind the header of each message.
fn dump(socket: &File, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    for _ in 0..DUMP_TRIES_MAX {
        match dump_once(socket, request) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

fn dump_once(mut socket: &File, request: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    socket.write_all(request)?;
    let mut found = Vec::new();
    let mut outcome = Ok(());
    read_all(socket, |reply| {
        if reply.flags & NLM_F_DUMP_INTR != 0 {
            outcome = Err(io::ErrorKind::Interrupted.into());
        }
        match reply.error_code() {
            Some(0 | libc::ENOENT) => {}
            Some(libc::EINTR) => outcome = Err(io::ErrorKind::Interrupted.into()),
            Some(code) => outcome = Err(io::Error::from_raw_os_error(code)),
            None => found.push(reply.payload.to_vec()),
        }
    })?;
    outcome.map(|()| found)
}

fn read_all(mut socket: &File, mut each: impl FnMut(&Reply<'_>)) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let len = match socket.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        replies(&buffer[..len]).for_each(|reply| each(&reply));
    }
}

struct Reply<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Reply<'_> {
    /// The errno of an error, an acknowledgement or the end of a dump; `None` for an object.
    fn error_code(&self) -> Option<i32> {
        if !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        let code = self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
        Some(-code)
    }
}

fn replies(mut bytes: &[u8]) -> impl Iterator<Item = Reply<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(read_u32(bytes, 0)?).ok()?;
        let reply = Reply {
            kind: read_u16(bytes, 4)?,
            flags: read_u16(bytes, 6)?,
            sequence: read_u32(bytes, 8)?,
            payload: bytes.get(NLMSGHDR_LEN..len)?,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(reply)
    })
}

fn encode(
    bytes: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    attrs: &[u8],
) {
    header(bytes, NFGENMSG_LEN + attrs.len(), kind, flags, sequence);
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(attrs);
}

/// The header of a message with so many bytes behind it.
fn header(bytes: &mut Vec<u8>, body_len: usize, kind: u16, flags: u16, sequence: u32) {
    let len = u32::try_from(NLMSGHDR_LEN + body_len).expect("limits keep messages small");
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]); // Port id: the kernel fills it.
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let inner = Attrs::new().u32(1, 7).str(2, "abcd");
        let outer = Attrs::new().nest(5, &inner).bytes(6, &[1]);
        let all: Vec<_> = attrs(outer.as_bytes()).collect();
        assert_eq!((all.len(), all[0].kind, all[0].is_nested), (2, 5, true));
        assert_eq!(attr(all[0].payload, 1), Some(&[0, 0, 0, 7][..]));
        assert_eq!(attr_str(all[0].payload, 2), Some("abcd"));
        assert_eq!((all[1].kind, all[1].payload), (6, &[1][..]));
    }

    #[test]
    fn cut_short_attributes_end_the_walk() {
        let bytes = Attrs::new().u32(1, 7).u32(2, 8);
        for len in 0..bytes.as_bytes().len() {
            assert!(attrs(&bytes.as_bytes()[..len]).count() <= 1);
            assert!(replies(&bytes.as_bytes()[..len]).count() <= 1);
        }
        assert_eq!(attrs(&[0, 0, 0, 0]).count(), 0, "a length of zero must not loop");
    }
}
