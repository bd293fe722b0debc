//! Lists of reasons: a variant, its label, and what both mean, written once.

/// Makes the enum `Reason` of variants and their label values, with the words of its documentation.
macro_rules! reasons {
    ($($of:literal)+; $($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        $(#[doc = $of])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in order of declaration; the index is `reason as usize`.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The label value, in snake case.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl std::fmt::Display for Reason {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        #[cfg(test)]
        mod tests {
            use super::Reason;

            #[test]
            fn names_are_labels_and_differ() {
                let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
                let is_label = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
                };
                assert!(names.iter().all(|name| name.bytes().all(is_label)));
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), Reason::ALL.len());
                for (index, reason) in Reason::ALL.iter().enumerate() {
                    assert_eq!(*reason as usize, index);
                }
            }
        }
    };
}

pub(crate) use reasons;
