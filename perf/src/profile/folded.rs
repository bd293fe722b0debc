//! Folded text: one line for each stack, outermost first, and its count. What flame graph tools
//! read.

use super::Profile;
use std::fmt::Write;

impl Profile {
    /// By the first of its values.
    pub fn to_folded(&self) -> String {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|one, two| one.path().cmp(two.path()));
        let mut out = String::new();
        // Stacks whose names are the same are one line, though their addresses differ.
        for same in rows.chunk_by(|one, two| one.path().eq(two.path())) {
            for (at, name) in same[0].path().enumerate() {
                let step = if at > 0 { ";" } else { "" };
                // A semicolon would be read as a step of the stack.
                let _ = write!(out, "{step}{}", name.replace(';', ":"));
            }
            let count: i64 = same.iter().filter_map(|row| row.values.first()).sum();
            let _ = writeln!(out, " {count}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn stacks_run_from_the_thread_to_the_leaf() {
        let folded = super::super::example().to_folded();
        assert_eq!(folded, "shard-0;main;inlined_into<T>;leaf 3\nshard-0;main;other:odd 1\n");
        let mut twice = super::super::example();
        twice.rows.extend(super::super::example().rows);
        assert_eq!(
            twice.to_folded(),
            "shard-0;main;inlined_into<T>;leaf 6\nshard-0;main;other:odd 2\n"
        );
    }
}
