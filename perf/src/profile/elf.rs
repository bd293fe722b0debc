//! What a program's file says of itself, read a piece at a time: how much of it is names, and the names of
//! functions where there is no room to read debug information.

use super::nearest::Nearest;
use std::{fs::File, io, os::unix::fs::FileExt};

/// Symbols that are read in one go: 60 KiB.
const TOGETHER: u64 = 2560;
const SYMBOL_BYTES: u64 = 24;
/// The longest name that is read.
const NAME_BYTES_MAX: usize = 4096;
/// SHT_SYMTAB.
const SYMBOLS: u32 = 2;
/// STT_FUNC.
const FUNCTION: u8 = 2;
/// SHF_ALLOC: it is mapped when the program runs.
const MAPPED: u64 = 2;
/// More sections than this no program has.
const SECTIONS_MAX: u16 = 1024;

/// A function of the table.
#[derive(Clone, Copy, Debug)]
struct Function {
    /// Where its name begins, in the table of strings.
    name: u32,
    end: u64,
}

/// Where a section stands in the file.
#[derive(Clone, Copy, Debug)]
struct Section {
    kind: u32,
    flags: u64,
    link: u32,
    offset: u64,
    bytes: u64,
}

/// The functions in which these addresses of an ELF file lie, in their order and as the linker calls them;
/// empty for those that lie in none.
///
/// # Errors
/// It cannot be read, or is no ELF file of 64 bits, lowest byte first.
pub(super) fn functions(
    file: &File,
    addresses: impl IntoIterator<Item = u64>,
) -> io::Result<Vec<(u64, String)>> {
    let mut nearest = Nearest::new(addresses);
    let sections = sections(file)?;
    let table = sections.iter().find(|section| section.kind == SYMBOLS);
    let strings = table.and_then(|table| sections.get(usize::try_from(table.link).ok()?));
    if let (Some(table), false) = (table, nearest.is_empty()) {
        read_symbols(file, table, &mut nearest)?;
    }
    let name = |(address, function): (u64, Option<Function>)| {
        let function = function.filter(|function| address < function.end);
        let name = function.zip(strings).and_then(|(it, strings)| name(file, strings, it.name));
        (address, name.unwrap_or_default())
    };
    Ok(nearest.found().map(name).collect())
}

/// Bytes of names and debug information, which nobody needs to run it.
pub(super) fn names_bytes(file: &File) -> io::Result<u64> {
    let sections = sections(file)?;
    let names = sections.iter().filter(|section| section.flags & MAPPED == 0);
    Ok(names.fold(0, |sum: u64, section| sum.saturating_add(section.bytes)))
}

fn sections(file: &File) -> io::Result<Vec<Section>> {
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    if head[..6] != *b"\x7fELF\x02\x01" {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let (at, bytes) = (word(&head, 40), u64::from(half(&head, 58)));
    let count = half(&head, 60).min(SECTIONS_MAX);
    let section = |number: u16| {
        let mut row = [0; 64];
        file.read_exact_at(&mut row, at.saturating_add(u64::from(number) * bytes))?;
        let (kind, link) = (quarter(&row, 4), quarter(&row, 40));
        let (flags, offset, bytes) = (word(&row, 8), word(&row, 24), word(&row, 32));
        Ok(Section { kind, flags, link, offset, bytes })
    };
    (0..count).map(section).collect()
}

fn read_symbols(file: &File, table: &Section, nearest: &mut Nearest<Function>) -> io::Result<()> {
    let mut piece = vec![0; usize::try_from(TOGETHER * SYMBOL_BYTES).unwrap_or(0)];
    let mut at = 0;
    while at < table.bytes {
        let bytes = usize::try_from((table.bytes - at).min(TOGETHER * SYMBOL_BYTES)).unwrap_or(0);
        file.read_exact_at(&mut piece[..bytes], table.offset.saturating_add(at))?;
        for symbol in piece[..bytes].chunks_exact(24) {
            let (start, size) = (word(symbol, 8), word(symbol, 16));
            if symbol[4] & 15 == FUNCTION && size > 0 {
                let (name, end) = (quarter(symbol, 0), start.saturating_add(size));
                nearest.offer(start, || Function { name, end });
            }
        }
        at += bytes as u64;
    }
    Ok(())
}

fn name(file: &File, strings: &Section, at: u32) -> Option<String> {
    let mut text = [0; NAME_BYTES_MAX];
    let left = strings.bytes.checked_sub(at.into())?;
    let most = usize::try_from(left).map_or(NAME_BYTES_MAX, |left| left.min(NAME_BYTES_MAX));
    let len = file.read_at(&mut text[..most], strings.offset.checked_add(at.into())?).ok()?;
    let end = text[..len].iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&text[..end]).into_owned())
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn quarter(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(quarter(bytes, at)) | u64::from(quarter(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn refused(bytes: &[u8]) -> bool {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("netra-elf.{}.{number}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        let read = functions(&File::open(&path).unwrap(), [1, 2]);
        fs::remove_file(&path).unwrap();
        read.is_err()
    }

    #[test]
    fn what_is_no_program_is_refused_and_a_broken_one_ends() {
        assert!(refused(b"") && refused(b"#!/bin/sh\n") && refused(&[0; 4096]));
        let mut head = fs::read("/proc/self/exe").unwrap();
        head.truncate(4096);
        assert!(refused(&head), "its sections are cut off");
        // All sections stand at the head itself, which says that they are as large as can be.
        head[40..48].fill(0);
        let _ = refused(&head);
    }
}
