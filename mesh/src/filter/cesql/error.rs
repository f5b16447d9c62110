//! What can be wrong with an expression: before it runs ([`ParseError`]) and while it runs ([`EvalError`]).

use std::fmt;

use thiserror::Error;

/// The kinds of error that the specification names (section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The text is no expression.
    Parse,
    /// Division by zero, or a number that no Integer can hold.
    Math,
    /// A value cannot be made one of the type that is needed.
    Cast,
    /// The event has no such attribute.
    MissingAttribute,
    /// There is no function of this name with so many arguments.
    MissingFunction,
    /// A function cannot do with an argument's value.
    FunctionEvaluation,
    /// Anything else: a limit of ours.
    Generic,
}

impl ErrorKind {
    /// The name, as the specification's test kit writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Math => "math",
            Self::Cast => "cast",
            Self::MissingAttribute => "missingAttribute",
            Self::MissingFunction => "missingFunction",
            Self::FunctionEvaluation => "functionEvaluation",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A stretch of an expression's text, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: u16,
    /// The byte after the last.
    pub end: u16,
}

impl Span {
    /// From the beginning of this one to the end of the other.
    pub(super) fn to(self, other: Self) -> Self {
        Self { start: self.start, end: other.end }
    }
}

/// Why a text is no expression, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {why}")]
pub struct ParseError {
    /// The line and column of the place.
    pub place: Place,
    /// What is wrong there.
    pub why: String,
}

/// A place in a text, for people: counted from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of a byte of `text`.
    #[must_use]
    pub fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column }
    }
}

impl fmt::Display for Place {
    /// The line is said only where it is not the first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 1 {
            write!(f, "line {} ", self.line)?;
        }
        write!(f, "column {}", self.column)
    }
}

/// What went wrong while an expression ran. It has a value none the less.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{kind}: {why}")]
pub struct EvalError {
    /// Which kind of error.
    pub kind: ErrorKind,
    /// The part of the expression.
    pub span: Span,
    /// What is wrong.
    pub why: String,
}
