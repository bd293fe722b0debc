//! Bytes that know where they belong: a long stream in which every chunk differs from every other,
//! so that a lost, doubled, swapped or altered byte shows. Both ends make it; the reader compares
//! every byte, which says more than a hash (it says where).

use std::io::{self, Read, Write};
use std::sync::OnceLock;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

const CHUNK: usize = 64 << 10;
const BASE: usize = 1 << 20;

/// Deterministic bytes without pattern (xorshift64*).
pub fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn base() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| random(1, BASE))
}

/// A stream of `len` bytes, different for each `seed`.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    pub seed: u64,
    pub len: u64,
}

impl Stream {
    fn chunk(self, index: u64) -> Vec<u8> {
        let mix = index.wrapping_mul(7919) ^ self.seed.wrapping_mul(104_729);
        let start = usize::try_from(mix % (BASE - CHUNK) as u64).expect("below 1 MiB");
        let mut chunk = base()[start..start + CHUNK].to_vec();
        chunk[..8].copy_from_slice(&index.to_le_bytes());
        chunk[8..16].copy_from_slice(&self.seed.to_le_bytes());
        let left = self.len.saturating_sub(index * CHUNK as u64);
        chunk.truncate(usize::try_from(left).unwrap_or(CHUNK).min(CHUNK));
        chunk
    }

    fn chunks(self) -> impl Iterator<Item = Vec<u8>> {
        (0..self.len.div_ceil(CHUNK as u64)).map(move |index| self.chunk(index))
    }

    /// Writes all of it.
    pub fn send(self, to: &mut impl Write) -> io::Result<()> {
        self.chunks().try_for_each(|chunk| to.write_all(&chunk))
    }

    /// Reads all of it and compares; the error names the first wrong chunk.
    pub fn verify(self, from: &mut impl Read) -> io::Result<()> {
        self.verify_with(from, |_| ())
    }

    /// The same, telling the bytes seen so far after every chunk.
    pub fn verify_with(self, from: &mut impl Read, mut seen: impl FnMut(u64)) -> io::Result<()> {
        let mut got = vec![0; CHUNK];
        let mut total = 0;
        for (index, expected) in self.chunks().enumerate() {
            let got = &mut got[..expected.len()];
            from.read_exact(got)?;
            if got != expected {
                let at = got.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(0);
                let what = format!("byte {} of {self:?} is wrong", index * CHUNK + at);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            total += expected.len() as u64;
            seen(total);
        }
        Ok(())
    }
}
