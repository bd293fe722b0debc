//! Folded text: one line for each stack, outermost first, and its count. What flame graph tools
//! read.

use super::Profile;
use std::collections::BTreeMap;

impl Profile {
    /// By the first of its values.
    pub fn to_folded(&self) -> String {
        let mut lines: BTreeMap<String, i64> = BTreeMap::new();
        for row in &self.rows {
            // A semicolon would be read as a step of the stack.
            let path: Vec<String> = row.path().map(|name| name.replace(';', ":")).collect();
            *lines.entry(path.join(";")).or_default() += row.values.first().copied().unwrap_or(0);
        }
        lines.into_iter().map(|(path, count)| format!("{path} {count}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn stacks_run_from_the_thread_to_the_leaf() {
        let folded = super::super::example().to_folded();
        assert_eq!(folded, "shard-0;main;inlined_into<T>;leaf 3\nshard-0;main;other:odd 1\n");
    }
}
