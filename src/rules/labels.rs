//! Labels of this service's workload: said by a setting, or by a file of Kubernetes' downward API.

use crate::texts::labels as parse;
use std::{fs::File, io::Read, path::Path};

/// What of a file is read: some hundred labels.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Labels, and what is wrong with where they come from.
pub(super) fn read(said: &str) -> (Vec<(String, String)>, Option<String>) {
    if !said.starts_with('/') {
        return (parse(said).unwrap_or_default(), None);
    }
    let mut text = String::new();
    let opened = File::open(Path::new(said));
    let read = opened.and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    match (read, parse(&text)) {
        (Err(error), _) => (Vec::new(), Some(format!("{said}: {error}"))),
        (Ok(_), None) => {
            (Vec::new(), Some(format!("{said}: allowed are lines of label=\"value\"")))
        }
        (Ok(_), Some(labels)) => (labels, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_from_a_setting_and_from_a_file() {
        let two = || vec![("app".to_owned(), "a".to_owned()), ("x.y/z-1".into(), "b_2".into())];
        for (text, expected) in [
            ("", Some(Vec::new())),
            ("app=a, x.y/z-1=b_2", Some(two())),
            ("app=\"a\"\nx.y/z-1=\"b_2\"\n", Some(two())),
            ("app=", Some(vec![("app".into(), String::new())])),
            ("app", None),
            ("=a", None),
            ("a b=c", None),
            ("app=\"a", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        let path = std::env::temp_dir().join(format!("netra-labels-{}", std::process::id()));
        let path_text = path.to_str().unwrap();
        std::fs::write(&path, "app=\"a\"\nx.y/z-1=\"b_2\"").unwrap();
        assert_eq!(read(path_text), (two(), None));
        std::fs::write(&path, "app").unwrap();
        assert!(read(path_text).1.unwrap().contains("allowed are lines"));
        std::fs::remove_file(&path).unwrap();
        assert!(read(path_text).1.unwrap().contains("No such file"));
    }
}
