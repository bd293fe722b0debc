//! The commands in a document, and a shell's words in them.

use std::{fs, path::Path};

/// Where our documents are; all `.md` of these folders, without those below.
const FOLDERS: &[&str] = &["", "docs", "docker", "docker/kubernetes", "hosts", "loadtest", "tests"];
/// What was true on its day.
const HISTORY: &[&str] = &["CHANGELOG.md"];

/// A command, as somebody would copy it.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// File and line.
    pub(crate) place: String,
    pub(crate) text: String,
    /// What its block has exported above it.
    pub(crate) exported: Vec<(String, String)>,
    /// It stands in a block of code, and not in a sentence.
    pub(crate) is_block: bool,
    /// The block that it stands in.
    pub(crate) block: String,
}

/// One program with its words; of a pipe or list each has its own.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Simple {
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) words: Vec<String>,
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every command of every document.
pub(crate) fn all() -> Vec<Said> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> =
            files.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
        files.sort();
        for path in files {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
            if !HISTORY.contains(&name) {
                found.extend(of(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 150, "the documents have moved: {}", found.len());
    found
}

/// The commands of one document: all lines of indented blocks, and of fences without a name of a
/// language (`text` is for what is no command); and what stands in sentences as code.
pub(crate) fn of(name: &str, text: &str) -> Vec<Said> {
    let mut found = Vec::new();
    let (mut block, mut first) = (Vec::new(), 0);
    let (mut paragraph, mut begun) = (String::new(), 0);
    let mut fence: Option<&str> = None;
    let mut was_blank = true;
    for (number, line) in text.lines().chain([""]).enumerate() {
        let number = number + 1;
        let is_indented = line.starts_with("    ") && (was_blank || !block.is_empty());
        let is_fence = line.starts_with("```");
        let is_code = match fence {
            _ if is_fence => false,
            Some(language) => ["", "sh"].contains(&language),
            None => is_indented,
        };
        if is_code {
            if block.is_empty() {
                first = number;
            }
            block.push(line);
        } else if !block.is_empty() {
            lines(name, first, &block, &mut found);
            block.clear();
        }
        if is_fence {
            fence = if fence.is_some() { None } else { Some(line.trim_start_matches('`').trim()) };
        } else if fence.is_none() && !is_code {
            if line.trim().is_empty() || line.starts_with('|') {
                spans(name, begun, &paragraph, &mut found);
                paragraph.clear();
            }
            if paragraph.is_empty() {
                begun = number;
            }
            paragraph.push_str(line.trim());
            paragraph.push(' ');
        }
        was_blank = line.trim().is_empty();
    }
    spans(name, begun, &paragraph, &mut found);
    found
}

/// The commands of a block; one that ends with a backslash goes on.
fn lines(name: &str, first: usize, block: &[&str], found: &mut Vec<Said>) {
    let mut exported = Vec::new();
    let mut text = String::new();
    let mut begun = 0;
    for (index, line) in block.iter().enumerate() {
        if text.is_empty() {
            begun = first + index;
        }
        text.push_str(line.trim());
        if let Some(stem) = text.strip_suffix('\\') {
            text = stem.to_owned();
            continue;
        }
        let said = Said {
            place: format!("{name}:{begun}"),
            text: std::mem::take(&mut text),
            exported: exported.clone(),
            is_block: true,
            block: block.join("\n"),
        };
        for simple in split(&said.text) {
            if simple.words.first().is_some_and(|word| word == "export") {
                exported.extend(simple.words[1..].iter().filter_map(|word| variable(word)));
            }
        }
        if !split(&said.text).is_empty() {
            found.push(said);
        }
    }
}

/// What stands in backticks.
fn spans(name: &str, line: usize, paragraph: &str, found: &mut Vec<Said>) {
    for text in paragraph.split('`').skip(1).step_by(2) {
        found.push(Said {
            place: format!("{name}:{line}"),
            text: text.replace("\\|", "|"),
            exported: Vec::new(),
            is_block: false,
            block: String::new(),
        });
    }
}

/// `NAME=VALUE`.
fn variable(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then(|| (name.to_owned(), value.to_owned()))
}

enum Token {
    Word(String),
    /// Another program begins.
    Break,
    /// A file follows.
    Redirect,
}

/// The programs of a line. Comments are none, and neither are files that are read and written.
pub(crate) fn split(line: &str) -> Vec<Simple> {
    let (mut found, mut simple) = (Vec::new(), Simple::default());
    let mut is_file = false;
    for token in tokens(line).into_iter().chain([Token::Break]) {
        match token {
            Token::Break => {
                if simple != Simple::default() {
                    found.push(std::mem::take(&mut simple));
                }
            }
            Token::Redirect => is_file = true,
            Token::Word(_) if std::mem::take(&mut is_file) => {}
            Token::Word(word) => match variable(&word) {
                Some(pair) if simple.words.is_empty() => simple.variables.push(pair),
                _ => simple.words.push(word),
            },
        }
    }
    found.into_iter().map(unwrapped).collect()
}

/// Without what says as whom and where: the program that is meant.
fn unwrapped(mut simple: Simple) -> Simple {
    loop {
        let skipped = match simple.words.first().map(String::as_str) {
            Some("sudo" | "env") => 1,
            Some("setpriv") => {
                simple.words[1..].iter().take_while(|w| w.starts_with("--")).count() + 1
            }
            // `nsenter -t PID -n PROGRAM`
            Some("nsenter") if simple.words.len() > 4 => 4,
            _ => return simple,
        };
        simple.words.drain(..skipped);
        while let Some(pair) = simple.words.first().and_then(|word| variable(word)) {
            simple.variables.push(pair);
            simple.words.remove(0);
        }
    }
}

fn tokens(line: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let quoted = word.get_or_insert_default();
                quoted.extend(chars.by_ref().take_while(|end| *end != c));
            }
            '$' if chars.peek() == Some(&'(') => {
                let quoted = word.get_or_insert_default();
                quoted.push('$');
                quoted.extend(chars.by_ref().take_while(|end| *end != ')'));
                quoted.push(')');
            }
            '#' if word.is_none() => break,
            '|' | '&' | ';' => {
                found.extend(word.take().map(Token::Word));
                found.push(Token::Break);
            }
            '<' | '>' => {
                found.extend(word.take().map(Token::Word));
                found.push(Token::Redirect);
            }
            c if c.is_whitespace() => found.extend(word.take().map(Token::Word)),
            c => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word.map(Token::Word));
    found
}

#[test]
fn a_line_is_read_as_a_shell_reads_it() {
    let line = "A=1 sudo B=2 x -H 'a | b' --c=\"$(cat d)\" < f | kubectl apply -f - # why";
    let [first, second] = &split(line)[..] else { panic!("{line}") };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(first.variables, [pair("A", "1"), pair("B", "2")]);
    assert_eq!(first.words, ["x", "-H", "a | b", "--c=$(cat d)"]);
    assert_eq!(second.words, ["kubectl", "apply", "-f", "-"]);
    let line = "setpriv --reuid=1 --clear-groups env C=3 netra --service-name shop &";
    assert_eq!(split(line)[0].words, ["netra", "--service-name", "shop"]);
    assert_eq!(split(line)[0].variables, [pair("C", "3")]);
    assert_eq!(split("# nothing"), []);
}

#[test]
fn commands_are_found_in_blocks_and_sentences() {
    let text = "a `x\ny` b\n\n    one \\\n      two\n    three\n\n```\nexport A=1\nfour\n```\n```text\nno\n```\n| `five` |\n";
    let found = of("d.md", text);
    let said: Vec<_> = found.iter().map(|it| (&*it.place, &*it.text)).collect();
    let wanted = [
        ("d.md:1", "x y"),
        ("d.md:4", "one two"),
        ("d.md:6", "three"),
        ("d.md:9", "export A=1"),
        ("d.md:10", "four"),
        ("d.md:15", "five"),
    ];
    assert_eq!(said, wanted);
    assert_eq!(found[4].exported, [("A".to_owned(), "1".to_owned())]);
}
