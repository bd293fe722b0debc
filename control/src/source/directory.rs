//! A directory of documents, such as git-sync or a ConfigMap keeps it. It is looked at once a second:
//! what is swapped by a link is seen as well as what is written in place.

use super::{Tell, documents};
use crate::world::{Document, World};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Files that are read, at most, and the bytes of one.
const FILES_MAX: usize = 10_000;
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Folders in folders, at most.
const DEPTH_MAX: usize = 8;

/// What tells whether a file has changed.
type Print = BTreeMap<PathBuf, (u64, u64, i64, i64)>;

/// Tells what is in the directory, and again whenever that has changed. While it cannot be read,
/// what it had stands.
pub(crate) async fn watch(path: PathBuf, tell: Tell) {
    let mut last: Option<Print> = None;
    let mut said = None;
    loop {
        let looked = look(&path);
        match looked {
            Ok(print) if last.as_ref() != Some(&print) => {
                let world = read(&path, &print);
                last = Some(print);
                said = None;
                if tell.send(world).await.is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(why) => {
                let stands = match last {
                    Some(_) => "what was read before stands",
                    None => "nothing has been read yet; it is looked for every second",
                };
                let why = format!("{}: {why}; {stands}", path.display());
                if said.as_ref() != Some(&why) {
                    eprintln!("netra-control: {why}");
                    said = Some(why);
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Every file of documents, with what tells whether it has changed.
fn look(path: &Path) -> io::Result<Print> {
    let mut print = Print::new();
    let mut folders = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
            // A file that is gone by now is of the next look.
            let (false, Ok(about)) = (is_hidden, fs::metadata(&path)) else { continue };
            let is_document =
                path.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json");
            if about.is_dir() && depth < DEPTH_MAX {
                folders.push((path, depth + 1));
            } else if about.is_file() && is_document && print.len() < FILES_MAX {
                print.insert(path, (about.ino(), about.len(), about.mtime(), about.mtime_nsec()));
            }
        }
    }
    Ok(print)
}

fn read(root: &Path, print: &Print) -> World {
    let mut world = World::default();
    for (path, (_, len, ..)) in print {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        if *len > FILE_BYTES_MAX {
            world.troubles.push(format!("{name}: {len} bytes; allowed are {FILE_BYTES_MAX}"));
            continue;
        }
        let read = fs::read_to_string(path).map_err(|why| why.to_string());
        match read.and_then(|text| documents(&text)) {
            Ok(values) => take(&name, values, &mut world),
            Err(why) => world.troubles.push(format!("{name}: {why}")),
        }
    }
    world
}

/// Files may have several documents: each has a place of its own.
pub(crate) fn take(name: &str, values: Vec<serde_json::Value>, world: &mut World) {
    let count = values.len();
    for (at, value) in values.into_iter().enumerate() {
        let place = if count == 1 { name.to_owned() } else { format!("{name}#{}", at + 1) };
        match Document::new(&place, value) {
            Some(document) => world.documents.push(Arc::new(document)),
            None => world.troubles.push(format!("{place}: kind or metadata.name is missing")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_links_and_lists_are_read_and_what_is_wrong_is_said() {
        let root = std::env::temp_dir().join(format!("netra-control-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("..data")).unwrap();
        let router = |name: &str| format!("kind: MetaRouter\nmetadata: {{name: {name}}}\n");
        fs::write(root.join("..data/a.yaml"), format!("{}---\n{}", router("a"), router("b")))
            .unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", root.join("a.yaml")).unwrap();
        fs::write(root.join("list.json"), r#"{"kind":"List","items":[{"kind":"Router","metadata":{"name":"c","namespace":"shop"}}]}"#).unwrap();
        fs::write(root.join("bad.yaml"), "a: [\n").unwrap();
        fs::write(root.join("none.yaml"), "a: b\n").unwrap();
        fs::write(root.join("left.txt"), "a: b\n").unwrap();
        let first = look(&root).unwrap();
        let world = read(&root, &first);
        let places: Vec<_> =
            world.documents.iter().map(|it| (it.place.as_str(), it.name.as_str())).collect();
        assert_eq!(places, [("a.yaml#1", "a"), ("a.yaml#2", "b"), ("list.json", "c")]);
        assert_eq!(world.documents[2].namespace, "shop");
        assert_eq!(world.troubles.len(), 2, "{:?}", world.troubles);
        // As a ConfigMap is swapped.
        fs::create_dir(root.join("..new")).unwrap();
        fs::write(root.join("..new/a.yaml"), router("d")).unwrap();
        fs::remove_file(root.join("a.yaml")).unwrap();
        std::os::unix::fs::symlink("..new/a.yaml", root.join("a.yaml")).unwrap();
        let second = look(&root).unwrap();
        assert_ne!(first, second);
        assert_eq!(read(&root, &second).documents[0].name, "d");
        fs::remove_dir_all(&root).unwrap();
    }
}
