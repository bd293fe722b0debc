//! The process's own code in memory.

use std::fs;

/// Takes the pages of code that the start has touched out of the process; what is used again comes
/// back from the page cache, 64 KiB at a fault. Parsing flags, building help and reading settings
/// touch two thirds of the program, and an idle sidecar would be charged for them for ever.
///
/// Failing changes nothing, and is not worth a line in a log.
pub fn release_start_code() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for (start, end) in maps.lines().filter_map(code_range) {
        // SAFETY: the range is one whole mapping of a file, readable and executable and never
        // written to (no w, and code has no relocations: it would be marked as text relocations,
        // which rustc's linkers refuse). Dropping its pages loses nothing: the kernel reads the
        // same bytes from the same file at the next access. Nobody unmaps code meanwhile.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
}

/// The range of a mapping of code from a file: `start-end r-xp offset device inode path`.
fn code_range(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    let (inode, path) = (words.nth(2)?, words.next()?);
    if permissions != "r-xp" || inode == "0" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_from_files() {
        for (line, range) in [
            ("55d0-55e0 r-xp 000eb000 fe:00 5432783 /bin/netra", Some((0x55d0, 0x55e0))),
            ("55d0-55e0 r-xp 00000000 00:00 0 [vdso]", None),
            ("55d0-55e0 r-xp 00000000 00:00 0", None),
            ("55d0-55e0 r--p 00000000 fe:00 5432783 /bin/netra", None),
            ("55d0-55e0 rwxp 00000000 fe:00 5432783 /bin/netra", None),
            ("55d0-55e0 rw-p 00430000 fe:00 5432783 /bin/netra", None),
            ("", None),
        ] {
            assert_eq!(code_range(line), range, "{line}");
        }
    }

    #[test]
    fn the_process_goes_on() {
        release_start_code();
        assert_eq!("1".parse::<u8>(), Ok(1));
    }
}
