//! Documents of rules as files: one, or all of a directory, within bounds.

use netra_rules::{Source, TEXT_BYTES_MAX};
use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Files of one directory, at most, those in directories below it included.
const FILES_MAX: usize = 1000;
/// Directories in one another.
const DEPTH_MAX: usize = 4;

/// Why a file's documents cannot be read.
#[derive(Debug)]
pub(super) struct Wrong {
    path: PathBuf,
    what: String,
}

impl Wrong {
    fn new(path: &Path, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

/// The files of a path: itself, or what is in the directory, by name. Names that begin with a dot
/// are none: ConfigMaps keep their generations in such, and link to them.
pub(super) fn list(path: &Path) -> Result<Vec<PathBuf>, Wrong> {
    let mut found = Vec::new();
    let metadata = fs::metadata(path).map_err(|error| Wrong::new(path, error.to_string()))?;
    match metadata.is_dir() {
        true => walk(path, 0, &mut found)?,
        false => found.push(path.to_owned()),
    }
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Wrong> {
    if depth > DEPTH_MAX {
        return Err(Wrong::new(folder, format!("deeper than {DEPTH_MAX} directories")));
    }
    let wrong = |error: io::Error| Wrong::new(folder, error.to_string());
    for entry in fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_document = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
        match fs::metadata(&path) {
            _ if name.starts_with('.') => {}
            Ok(metadata) if metadata.is_dir() => walk(&path, depth + 1, found)?,
            // A link that leads nowhere is a document that cannot be read.
            _ if is_document => found.push(path),
            _ => {}
        }
        if found.len() > FILES_MAX {
            return Err(Wrong::new(folder, format!("more than {FILES_MAX} files of documents")));
        }
    }
    Ok(())
}

/// The texts of all files of a path.
pub(super) fn read(path: &Path) -> Result<Vec<Source>, Vec<Wrong>> {
    let mut room = TEXT_BYTES_MAX;
    let (mut sources, mut wrong) = (Vec::new(), Vec::new());
    for file in list(path).map_err(|wrong| vec![wrong])? {
        match text(&file, room) {
            Ok(text) => {
                room = room.saturating_sub(text.len());
                sources.push(Source { name: file.display().to_string(), text });
            }
            Err(what) => wrong.push(Wrong::new(&file, what)),
        }
    }
    if wrong.is_empty() { Ok(sources) } else { Err(wrong) }
}

/// The text of a file, if there is room for it: what is too large is not read at all.
fn text(file: &Path, room: usize) -> Result<String, String> {
    let metadata = fs::metadata(file).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file".to_owned());
    }
    let too_large = || format!("with it there are more than {TEXT_BYTES_MAX} bytes of documents");
    let limit = room as u64 + 1;
    if metadata.len() >= limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).map_err(|error| error.to_string())?;
    opened.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 >= limit {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("no text in UTF-8: byte {at} is none")
    })
}

/// What of the files of a path can be seen to change, without reading them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape(Result<Vec<(PathBuf, Option<Seen>)>, String>);

type Seen = (u64, u64, i64, i64);

impl Shape {
    pub(super) fn of(path: &Path) -> Self {
        use std::os::unix::fs::MetadataExt;
        let seen = |file: PathBuf| {
            let metadata = fs::metadata(&file).ok();
            let seen = metadata.map(|it| (it.ino(), it.len(), it.mtime(), it.mtime_nsec()));
            (file, seen)
        };
        let files = list(path).map_err(|wrong| wrong.to_string());
        Self(files.map(|files| files.into_iter().map(seen).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("netra-rules-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_config_map_is_what_its_links_lead_to() {
        let folder = folder("links");
        fs::create_dir(folder.join("..2026")).unwrap();
        fs::write(folder.join("..2026/a.yaml"), "a").unwrap();
        symlink("..2026", folder.join("..data")).unwrap();
        symlink("..data/a.yaml", folder.join("a.yaml")).unwrap();
        fs::write(folder.join("notes.txt"), "b").unwrap();
        fs::create_dir(folder.join("more")).unwrap();
        fs::write(folder.join("more/b.yml"), "b").unwrap();
        let before = Shape::of(&folder);
        let texts: Vec<_> = read(&folder).unwrap().into_iter().map(|it| it.text).collect();
        assert_eq!(texts, ["a", "b"]);
        assert_eq!(Shape::of(&folder), before);
        fs::create_dir(folder.join("..2027")).unwrap();
        fs::write(folder.join("..2027/a.yaml"), "c").unwrap();
        symlink("..2027", folder.join("..new")).unwrap();
        fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
        assert_ne!(Shape::of(&folder), before);
        assert_eq!(read(&folder).unwrap()[0].text, "c");
        fs::remove_dir_all(&folder).unwrap();
        assert_ne!(Shape::of(&folder), before);
        assert!(read(&folder).unwrap_err()[0].to_string().contains("No such file"));
    }

    #[test]
    fn what_cannot_be_read_is_said_within_bounds() {
        let folder = folder("wrong");
        let huge = fs::File::create(folder.join("huge.yaml")).unwrap();
        huge.set_len(100 << 20).unwrap();
        fs::write(folder.join("bytes.yaml"), b"a: \xff").unwrap();
        symlink("nowhere", folder.join("gone.yaml")).unwrap();
        symlink("/dev/zero", folder.join("zero.yaml")).unwrap();
        let wrong: Vec<_> = read(&folder).unwrap_err().iter().map(Wrong::to_string).collect();
        for (wrong, expected) in wrong.iter().zip([
            "bytes.yaml: no text in UTF-8: byte 3",
            "gone.yaml: No such file",
            "huge.yaml: with it there are more than 16777216 bytes",
            "zero.yaml: it is no file",
        ]) {
            assert!(wrong.contains(expected), "{wrong}");
        }
        assert_eq!(wrong.len(), 4);
        symlink(&folder, folder.join("round")).unwrap();
        assert!(read(&folder).unwrap_err()[0].to_string().contains("deeper than 4"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
