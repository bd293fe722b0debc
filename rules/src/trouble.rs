//! What is wrong with documents, all of it in one list.

use crate::yaml::Spot;
use std::{fmt, sync::Arc};

/// Entries of a list, at most; how many more there are is said.
const LISTED_MAX: usize = 100;

/// Where something is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file, as the caller calls it.
    pub file: Arc<str>,
    /// Its line, from 1; 0 where the whole file is meant.
    pub line: u32,
    /// Its column, from 1.
    pub column: u32,
}

impl Place {
    pub(crate) fn new(file: &Arc<str>, spot: Spot) -> Self {
        Self { file: Arc::clone(file), line: spot.line, column: spot.column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// One thing that is wrong, or worth a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Where.
    pub place: Place,
    /// What, with the value and what is allowed.
    pub what: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// All that is wrong with documents, and all that their authors should know.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    errors: Vec<Trouble>,
    errors_more: usize,
    warnings: Vec<Trouble>,
    warnings_more: usize,
}

impl Troubles {
    /// What keeps the documents from being obeyed.
    pub fn errors(&self) -> &[Trouble] {
        &self.errors
    }

    /// What is obeyed otherwise than its author may think.
    pub fn warnings(&self) -> &[Trouble] {
        &self.warnings
    }

    /// How many errors and warnings are not listed.
    pub fn more(&self) -> (usize, usize) {
        (self.errors_more, self.warnings_more)
    }

    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.errors.is_empty()
    }

    /// Adds an error.
    pub fn error(&mut self, place: Place, what: impl Into<String>) {
        match self.errors.len() < LISTED_MAX {
            true => self.errors.push(Trouble { place, what: what.into() }),
            false => self.errors_more += 1,
        }
    }

    /// Adds a warning, once.
    pub fn warn(&mut self, place: Place, what: impl Into<String>) {
        let warning = Trouble { place, what: what.into() };
        match self.warnings.len() < LISTED_MAX {
            _ if self.warnings.contains(&warning) => {}
            true => self.warnings.push(warning),
            false => self.warnings_more += 1,
        }
    }

    /// In the order of files and lines.
    pub(crate) fn sort(&mut self) {
        self.errors.sort_by(|one, two| one.place.cmp(&two.place));
        self.warnings.sort_by(|one, two| one.place.cmp(&two.place));
    }
}

impl fmt::Display for Troubles {
    /// The errors, one to a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}")?;
        }
        match self.errors_more {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}
