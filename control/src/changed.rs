//! Files that are read again when they have changed.

use std::{fs, path::Path, time::SystemTime};

/// When a file was changed last; None where nobody can tell.
pub(crate) fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|it| it.modified()).ok()
}
