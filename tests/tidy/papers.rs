//! What the repository says of itself is in the repository: a clone stands alone.

use super::root;
use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

/// Not written here, or not to be read: what is built, recorded, generated and given.
const LEFT_OUT: &[&str] = &["target", ".git", "data", "corpus", "Cargo.lock", "LICENSE"];

/// Every text file, as (path from the root, text).
fn texts() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if LEFT_OUT.iter().any(|name| path.ends_with(name)) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, text));
            }
        }
    }
    assert!(found.len() > 300, "the walk has lost its way: {}", found.len());
    found
}

/// The words of a line that may be paths.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    line.split(move |c| !is_path(c)).map(|word| word.trim_end_matches('.'))
}

/// Each word of each line of each text, with where it stands.
fn each_word(mut check: impl FnMut(&str, &str, &str)) {
    for (name, text) in texts() {
        for (number, line) in text.lines().enumerate() {
            let place = format!("{name}:{}", number + 1);
            words(line).for_each(|word| check(line, &place, word));
        }
    }
}

/// Where a path leads, without asking the disk; None when it leaves the repository.
fn resolve(folder: &Path, path: &str) -> Option<PathBuf> {
    let mut at = folder.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir if !at.pop() => return None,
            Component::Normal(name) => at.push(name),
            _ => {}
        }
    }
    Some(at)
}

/// From where a path in this file may be meant: its folder, its crate, the root.
fn bases(name: &str) -> impl Iterator<Item = &Path> {
    let is_base = |at: &&Path| {
        *at == Path::new(name).parent().unwrap() || root().join(at).join("Cargo.toml").exists()
    };
    Path::new(name).ancestors().skip(1).filter(is_base)
}

#[test]
fn no_path_leaves_the_repository() {
    each_word(|_, place, word| {
        let name = place.split(':').next().unwrap();
        let is_up = word.starts_with("../") || word.contains("/../");
        // `//../x` follows a scheme, `.../x` is for people.
        let word = word.trim_start_matches('/');
        // In code, `../x` may be a value that a test makes up.
        let is_short = name.ends_with(".rs") && word.trim_start_matches("../").find('/').is_none();
        if !is_up || is_short || word.starts_with(".../") || name == "tests/tidy/papers.rs" {
            return;
        }
        let is_there = bases(name)
            .filter_map(|base| resolve(base, word))
            .any(|path| path.starts_with("target") || root().join(path).exists());
        assert!(is_there, "{place}: {word} leads out of the repository, or nowhere");
    });
}

#[test]
fn no_document_is_named_that_is_not_here() {
    let here: BTreeSet<String> =
        texts().iter().filter_map(|(name, _)| name.rsplit('/').next().map(str::to_owned)).collect();
    each_word(|line, place, word| {
        // Tests write documents, too.
        let is_said = !place.contains(".rs:") || line.trim_start().starts_with("//");
        let document = word.rsplit('/').next().unwrap_or_default();
        let is_one = document.strip_suffix(".md").is_some_and(|stem| !stem.is_empty());
        assert!(!is_one || !is_said || here.contains(document), "{place}: there is no {document}");
    });
}

/// A file with a folder before its name, in the paper for those who change netra; decisions tell of
/// files that were.
#[test]
fn source_files_that_papers_name_are_there() {
    let mut count = 0;
    each_word(|_, place, word| {
        let is_paper = place.starts_with("docs/ARCHITECTURE.md");
        let is_source = word.strip_suffix(".rs").is_some_and(|path| path.contains('/'));
        if !is_paper || !is_source {
            return;
        }
        count += 1;
        let is_there = ["", "shards/src"].iter().any(|base| root().join(base).join(word).exists());
        assert!(is_there, "{place}: there is no {word}");
    });
    assert!(count > 50, "only {count} were looked for");
}

#[test]
fn decisions_have_a_number_each() {
    let mut taken = BTreeSet::new();
    for (name, text) in texts() {
        let Some(file) = name.strip_prefix("docs/adr/") else { continue };
        let (number, _) = file.split_once('-').expect("NUMBER-name.md");
        assert!(taken.insert(number.to_owned()), "{name}: two decisions have this number");
        assert!(text.starts_with(&format!("# {number} ")), "{name} begins with another number");
    }
}

#[test]
fn no_path_of_a_machine_is_named() {
    // In parts, for this file is read as well.
    let homes = ["work", "home", "root", "Users"].map(|name| format!("/{name}/"));
    each_word(|_, place, word| {
        let is_one = homes.iter().any(|home| word.starts_with(home));
        assert!(!is_one, "{place}: {word} is of one machine");
    });
}

/// What GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || "-_".contains(c) => c.to_lowercase().next(),
        _ => None,
    };
    heading.trim_start_matches('#').trim().chars().filter_map(kept).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for (name, text) in texts().iter().filter(|(name, _)| name.ends_with(".md")) {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => PathBuf::from(name),
                path => resolve(Path::new(name).parent().unwrap(), path).unwrap(),
            };
            let target = root().join(target);
            assert!(target.exists(), "{name}: {link} is not there");
            if !heading.is_empty() {
                let text = fs::read_to_string(target).unwrap();
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|line| anchor(line) == heading), "{name}: no {link}");
            }
        }
    }
    assert!(count > 30, "{count}");
}

/// An exception that nobody has to look at again is a rule.
#[test]
fn exceptions_for_dependencies_say_why_and_until_when() {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let mut list = "";
    let mut before = "";
    let mut count = 0;
    for line in text.lines() {
        if let Some((name, "[")) = line.split_once(" = ") {
            list = name;
        }
        let is_exception = ["ignore", "exceptions", "skip", "skip-tree"].contains(&list);
        if is_exception && line.trim_start().starts_with('{') {
            count += 1;
            let said = if list == "exceptions" { before } else { line };
            let day = said.split("until 20").nth(1).unwrap_or_default().as_bytes();
            let is_day = day.len() > 7 && day[2] == b'-' && day[5] == b'-';
            assert!(is_day, "no `until YYYY-MM-DD` for {line}");
        }
        before = line;
    }
    assert!(count >= 5, "{count}");
}

/// What is said to hold is shown by tests that there are.
#[test]
fn threats_name_tests_that_are_here() {
    let mut here = BTreeSet::new();
    for (_, text) in super::sources() {
        let names =
            text.lines().filter_map(|line| line.trim().split_once("fn ")?.1.split_once('('));
        here.extend(names.map(|(name, _)| name.to_owned()));
    }
    let text = fs::read_to_string(root().join("docs/THREATS.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.contains("| shown by |"));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [tries, holds, shown] = cells[..] else { panic!("not three cells: {row}") };
        assert!(!holds.is_empty() && !shown.is_empty(), "nothing shows it: {tries}");
        for name in shown.split('`').skip(1).step_by(2).filter(|name| !name.contains(' ')) {
            assert!(here.contains(name), "there is no test {name}, which is to show: {tries}");
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}

/// The drawings of docs/ARCHITECTURE.md: `FILE.rs FUNCTION`, of `shards/src/`.
#[test]
fn drawings_name_functions_that_are_there() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let drawings = text.split("```").skip(1).step_by(2);
    let mut count = 0;
    for line in drawings.flat_map(str::lines) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for pair in words.windows(2).filter(|pair| pair[0].ends_with(".rs")) {
            count += 1;
            let file = root().join("shards/src").join(pair[0]);
            let code = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", pair[0]));
            let heads = [format!("fn {}(", pair[1]), format!("fn {}<", pair[1])];
            assert!(
                heads.iter().any(|head| code.contains(head)),
                "{} has no fn {}",
                pair[0],
                pair[1]
            );
        }
    }
    assert!(count > 20, "{count} functions: have the drawings moved?");
}
