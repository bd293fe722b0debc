//! Documents from nowhere: whatever the text, reading ends, says what is wrong within bounds, and
//! never panics.

use netra_rules::{Context, Documents, Source};

/// A small generator of its own: the seed says it all.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below.max(1)
    }
}

/// The documents of docs/RULES.md: all kinds are there.
fn seeds() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/RULES.md");
    let page = std::fs::read_to_string(page).unwrap();
    let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(str::to_owned).collect()
}

fn compile(text: String) -> usize {
    let documents = Documents::read(&[Source { name: "a".into(), text }]);
    let compiled = documents.compile(&Context { own_name: "demo".into(), ..Context::default() });
    assert_eq!(compiled.table.is_some(), compiled.troubles.is_good());
    for trouble in compiled.troubles.errors().iter().chain(compiled.troubles.warnings()) {
        assert!(trouble.what.len() < 2000, "{trouble}");
    }
    compiled.troubles.errors().len()
}

#[test]
fn damaged_documents_are_judged_and_never_panic() {
    let seeds = seeds();
    let words = [
        "null",
        "{}",
        "[]",
        "*x",
        "&x ",
        "1e999",
        "-1",
        "\"",
        "'",
        "---\n",
        "\u{feff}",
        "é",
        "? ",
        ": ",
        "- ",
        "exact",
        "regex: \"(((\"",
        "99999999999999999999",
        "0",
        "true",
        "\t",
        "|\n",
        "!!str ",
        "weight: 100",
        "subset: v9",
        "{{{{",
        "a: b\n",
    ];
    let mut good = 0;
    for seed in 0..3000_u64 {
        let mut random = Random(seed);
        let mut text = seeds[random.next(seeds.len())].clone();
        for _ in 0..=random.next(4) {
            let mut at = random.next(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            match random.next(4) {
                0 => text.truncate(at),
                1 => text.insert_str(at, words[random.next(words.len())]),
                2 => {
                    let mut end = (at + random.next(40)).min(text.len());
                    while !text.is_char_boundary(end) {
                        end -= 1;
                    }
                    text.replace_range(at..end.max(at), words[random.next(words.len())]);
                }
                _ => {
                    let more = seeds[random.next(seeds.len())].clone();
                    text.insert_str(at, &more);
                }
            }
        }
        good += usize::from(compile(text) == 0);
    }
    assert!(good > 10 && good < 2000, "{good} of 3000 are good: the damage does not do its work");
}

#[test]
fn bombs_and_floods_are_bounded() {
    let flood: String =
        (0..50_000).map(|it| format!("apiVersion: x/v1\nkind: K{it}\n---\n")).collect();
    assert_eq!(compile(flood), 0);
    let wrong: String = (0..50_000).map(|_| "a: b\n---\n").collect();
    assert_eq!(compile(wrong), 100);
    assert_eq!(compile(" ".repeat(17 << 20)), 1);
    assert_eq!(compile(format!("a: {}", "[".repeat(1 << 20))), 1);
    let names: String = (0..100_000).map(|it| format!("a{it}: 1\n")).collect();
    assert_eq!(compile(names), 1);
    let long = format!("apiVersion: netra.io/v1alpha1\nkind: {}\n", "K".repeat(1 << 20));
    assert_eq!(compile(long), 1);
}
