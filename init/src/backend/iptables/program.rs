//! Which program a name means, and what it gets of our environment.
//!
//! What we start can change the rules of this network namespace. Whoever starts us with privileges
//! that they do not have themselves (file capabilities) must not choose the program, nor tell it
//! by a variable which library to load: iptables has one for its own (`XTABLES_LIBDIR`), the
//! loader has more.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sys;

/// Where programs are looked for, and what they get as their own `PATH`.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// The one variable that is passed on: iptables locks this file, as the user it runs as.
const LOCK_FILE: &str = "XTABLES_LOCKFILE";

/// The first program of this name.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = if sys::is_started_with_more_privileges() { None } else { env::var("PATH").ok() };
    folders(path.as_deref()).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

/// Those of `path`, then those of the system. What is not absolute depends on where we were
/// started and is left out.
fn folders(path: Option<&str>) -> impl Iterator<Item = PathBuf> {
    path.unwrap_or_default()
        .split(':')
        .chain(SYSTEM_PATH.split(':'))
        .map(PathBuf::from)
        .filter(|folder| folder.is_absolute())
}

/// Starts a program with nothing of our environment but the name of the lock file.
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", SYSTEM_PATH);
    if let Some(file) = env::var_os(LOCK_FILE) {
        command.env(LOCK_FILE, file);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_depend_on_where_we_are_are_left_out() {
        let system: Vec<PathBuf> = SYSTEM_PATH.split(':').map(PathBuf::from).collect();
        assert_eq!(folders(None).collect::<Vec<_>>(), system);
        let mine: Vec<PathBuf> = folders(Some("::.:bin:../x:/mine:")).collect();
        assert_eq!(mine[0], Path::new("/mine"));
        assert_eq!(mine[1..], system);
    }
}
