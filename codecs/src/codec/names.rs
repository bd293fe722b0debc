//! Names out of tables in which each stands with what is known of it.

/// The names of a table, in its order: operations are places in it.
pub(crate) const fn names<T, const N: usize>(table: &[(&'static str, T)]) -> [&'static str; N] {
    assert!(table.len() == N);
    let mut names = [""; N];
    let mut index = 0;
    while index < N {
        names[index] = table[index].0;
        index += 1;
    }
    names
}
