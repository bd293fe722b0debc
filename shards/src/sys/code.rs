//! The process's own code and constants in memory.

use std::fs;

/// Takes the pages of the program that the start has touched out of the process; what is used again
/// comes back from the page cache, 64 KiB at a fault. Parsing flags, building help and reading
/// settings touch two thirds of the program, and an idle sidecar would be charged for them for ever.
///
/// Failing changes nothing, and is not worth a line in a log.
pub fn release_start_code() {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    for (start, end) in unwritten(&maps) {
        // SAFETY: the range is one whole mapping of a file that nobody may write to, and no page of
        // which is the process's own (the kernel counts none as anonymous): every one is as it is in
        // the file. Dropping them loses nothing: the kernel reads the same bytes from the same file
        // at the next access. What was relocated and then closed to writing has pages of its own,
        // and is not among these ranges. Nobody unmaps them, or lets them be written to, meanwhile.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
}

/// The mappings of files that are closed to writing and have no page that is not the file's.
fn unwritten(maps: &str) -> Vec<(usize, usize)> {
    let (mut found, mut at) = (Vec::new(), None);
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("Anonymous:") if words.next() == Some("0") => found.extend(at.take()),
            // The other lines of a mapping have names that end so.
            Some(word) if !word.ends_with(':') => at = file_range(line),
            _ => {}
        }
    }
    found
}

/// The range of a mapping of a file: `start-end r-xp offset device inode path`.
fn file_range(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, permissions) = (words.next()?, words.next()?);
    let (inode, path) = (words.nth(2)?, words.next()?);
    if !["r-xp", "r--p"].contains(&permissions) || inode == "0" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(head: &str, anonymous_kb: u32) -> String {
        format!("{head}\nSize: 4 kB\nRss: 4 kB\nAnonymous: {anonymous_kb} kB\nVmFlags: rd mr\n")
    }

    #[test]
    fn only_what_is_as_it_is_in_the_file() {
        for (head, anonymous_kb, range) in [
            ("55d0-55e0 r-xp 000eb000 fe:00 5432783 /bin/netra", 0, Some((0x55d0, 0x55e0))),
            ("55d0-55e0 r--p 00000000 fe:00 5432783 /bin/netra", 0, Some((0x55d0, 0x55e0))),
            // Relocated, and closed afterwards.
            ("55d0-55e0 r--p 00430000 fe:00 5432783 /bin/netra", 540, None),
            ("55d0-55e0 r-xp 000eb000 fe:00 5432783 /bin/netra", 4, None),
            ("55d0-55e0 r-xp 00000000 00:00 0 [vdso]", 0, None),
            ("55d0-55e0 r-xp 00000000 00:00 0", 0, None),
            ("55d0-55e0 rwxp 00000000 fe:00 5432783 /bin/netra", 0, None),
            ("55d0-55e0 rw-p 00430000 fe:00 5432783 /bin/netra", 0, None),
        ] {
            let other = map("1000-2000 rw-p 00000000 00:00 0 [heap]", 4);
            let maps = [&*other, &map(head, anonymous_kb), &other].concat();
            assert_eq!(unwritten(&maps), Vec::from_iter(range), "{head}");
        }
        assert_eq!(unwritten(""), []);
        assert_eq!(unwritten("Anonymous: 0 kB\n"), []);
    }

    /// Constants, code and what was relocated are as they were.
    #[test]
    fn the_process_goes_on() {
        static NAMES: [&str; 2] = ["one", "two"];
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(unwritten(&smaps).len() >= 2, "{smaps}");
        release_start_code();
        assert_eq!("1".parse::<u8>(), Ok(1));
        assert_eq!(NAMES.concat(), "onetwo");
    }
}
