//! The examples of docs/RULES.md: each says rules, and what becomes of messages by them.

use netra_rules::{Documents, Expectations, Source};
use std::{fs, path::Path};

/// The blocks of YAML of the page, with the lines that they begin in.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line) {
            (None, "```yaml") => open = Some((number + 2, String::new())),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), line) => *text += &format!("{line}\n"),
            (None, _) => {}
        }
    }
    blocks
}

#[test]
fn every_example_does_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/RULES.md");
    let blocks = blocks(&fs::read_to_string(page).unwrap());
    assert!(blocks.len() >= 12 && blocks.len().is_multiple_of(2), "{} blocks", blocks.len());
    let mut wrong = Vec::new();
    for pair in blocks.chunks(2) {
        let [rules, tests] = pair else { unreachable!() };
        let source = |(line, text): &(usize, String)| Source {
            name: format!("RULES.md from line {line}"),
            text: text.clone(),
        };
        let expectations = Expectations::read(&source(tests)).unwrap_or_else(|it| panic!("{it}"));
        let documents = Documents::read(&[source(rules)]);
        let results = expectations.run(&documents, &[]).unwrap_or_else(|it| panic!("{it}"));
        assert!(!results.is_empty(), "nothing is expected from line {}", tests.0);
        let results = results.into_iter().filter(|result| !result.wrong.is_empty());
        wrong.extend(
            results
                .map(|result| format!("{} at {}: {:#?}", result.name, result.place, result.wrong)),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
