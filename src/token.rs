//! The token of orders, in a file that others cannot read.

use nix::unistd::geteuid;
use std::{
    fmt,
    fs::{self, File},
    hint::black_box,
    io::Read,
    os::unix::fs::MetadataExt,
};

/// A shorter one could be guessed over loopback.
const BYTES_LEAST: usize = 16;
const BYTES_MAX: usize = 4096;

/// What NETRA_ADMIN_TOKEN_FILE may be, in words.
pub(crate) const ALLOWED: &str = "a file of this user or of root, with 16 to 4096 visible ASCII \
    characters on one line, that others cannot read and only its owner can write (mode 0600; 0440 \
    is what a Secret with fsGroup has)";

/// Never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(Box<[u8]>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads a file; None when it is not what is allowed.
    pub(crate) fn read(path: &str) -> Option<Self> {
        // A pipe would hold up the start.
        fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let file = File::open(path).ok()?;
        let about = file.metadata().ok()?;
        let is_private = about.mode() & 0o037 == 0;
        let is_trusted = [0, geteuid().as_raw()].contains(&about.uid());
        if !(about.is_file() && is_private && is_trusted) {
            return None;
        }
        let mut text = String::new();
        file.take(BYTES_MAX as u64 + 2).read_to_string(&mut text).ok()?;
        Self::of(text.trim_end_matches(['\r', '\n']))
    }

    pub(crate) fn of(text: &str) -> Option<Self> {
        let is_good = (BYTES_LEAST..=BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_good.then(|| Self(text.as_bytes().into()))
    }

    /// Takes as long whatever is shown: every byte that is shown is looked at.
    pub(crate) fn is(&self, shown: &str) -> bool {
        let own = self.0.iter().cycle();
        let differ = shown.bytes().zip(own).fold(0, |all, (one, own)| black_box(all | (one ^ own)));
        black_box(differ) == 0 && shown.len() == self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, os::unix::fs::PermissionsExt, path::PathBuf, process};

    const GOOD: &str = "0123456789abcdef";

    #[test]
    fn only_the_whole_token_is_it() {
        let token = Token::of(GOOD).unwrap();
        assert!(token.is(GOOD));
        for other in ["", "0", "0123456789abcdeF", "0123456789abcdef0123456789abcdef"] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn files_that_others_could_read_or_write_are_refused() {
        let path: PathBuf = env::temp_dir().join(format!("netra-token-{}", process::id()));
        let name = path.to_str().unwrap();
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Token::read(name)
        };
        for mode in [0o600, 0o400, 0o440, 0o640] {
            assert_eq!(write(&format!("{GOOD}\n"), mode), Token::of(GOOD), "{mode:o}");
        }
        for mode in [0o644, 0o604, 0o660, 0o602, 0o601] {
            assert_eq!(write(GOOD, mode), None, "{mode:o}");
        }
        for text in ["", "short", "0123456789 abcdef", "0123456789abcdef\nx", &"a".repeat(5000)] {
            assert_eq!(write(text, 0o600), None, "{text}");
        }
        fs::remove_file(&path).unwrap();
        for path in [name, "/", "/dev/null", ""] {
            assert_eq!(Token::read(path), None, "{path}");
        }
    }
}
