//! CESQL, the CloudEvents SQL expression language, version 1.0.0.
//!
//! A text is parsed once, to an [`Expression`]; every error is found then and says at which column it is. An expression runs on
//! any event, always ends, and always has a value, beside it the errors that came up. [`Expression::test`] is for filters: the
//! first error decides, and nothing is allocated. [`Expression::evaluate`] is for people: all errors, in words.
//!
//! Limits: the text ([`MAX_BYTES`]), its nesting ([`MAX_DEPTH`]), and what one evaluation may put together by CONCAT and the like
//! ([`MAX_MADE_BYTES`]). A row of operators of one level may be as long as the text.
//!
//! Where the text of the specification leaves a choice, or the official grammar differs from it:
//! - AND, OR and XOR are one level, taken from the left to the right (3.6), where the grammar takes them from the right:
//!   `a OR b AND c` is `(a OR b) AND c`.
//! - a sign is part of a number where an operand is expected, so `4 -1` is 3;
//! - an operator that meets an error in an operand has the zero value of its type; a result that is not one of 32 bits is 0 and a
//!   math error; IN stops at the first equal element.

mod ast;
mod calls;
mod error;
mod eval;
mod functions;
mod lexer;
mod like;
mod parser;
pub mod tck;
#[cfg(test)]
mod tests;

use std::fmt;

pub use error::{ErrorKind, EvalError, ParseError, Place, Span};
pub use functions::Type;

use crate::event::StoredEvent;
use ast::{Node, Operator, Tree};
use eval::{Errors, Run, Val};

/// Longest expression in bytes.
pub const MAX_BYTES: usize = 8192;
/// How deep parentheses, arguments and unary operators may be nested.
pub const MAX_DEPTH: usize = 64;
/// Most bytes of texts that one evaluation may put together.
pub const MAX_MADE_BYTES: usize = 1 << 20;

/// A parsed expression. Displayed, it is one that reads as the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression(Tree);

/// The value of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A Boolean.
    Boolean(bool),
    /// An Integer.
    Integer(i32),
    /// A String.
    String(String),
}

impl Value {
    /// The value's type.
    #[must_use]
    pub fn type_of(&self) -> Type {
        match self {
            Self::Boolean(_) => Type::Boolean,
            Self::Integer(_) => Type::Integer,
            Self::String(_) => Type::String,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::String(text) => text.fmt(f),
        }
    }
}

/// What an expression says of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluation {
    /// The value, also where there are errors.
    pub value: Value,
    /// The errors, in the order in which they came.
    pub errors: Vec<EvalError>,
}

/// Why an expression does not say whether an event is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error came up.
    Error(ErrorKind),
    /// The value is no Boolean.
    NoBoolean(Type),
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong, and at which column.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > MAX_BYTES {
            let why = format!("the expression has {} bytes; {MAX_BYTES} are allowed", text.len());
            return Err(ParseError { place: Place::of(text, 0), why });
        }
        parser::parse(text).map(Self)
    }

    /// The value for an event, with every error that comes up.
    #[must_use]
    pub fn evaluate(&self, event: &StoredEvent) -> Evaluation {
        let mut made = String::new();
        let mut run = Run { tree: &self.0, event, made: &mut made, errors: Errors::All(Vec::new()) };
        let value = match run.eval(self.0.root()) {
            Ok(value) | Err(value) => value,
        };
        let value = match value {
            Val::Boolean(value) => Value::Boolean(value),
            Val::Integer(value) => Value::Integer(value),
            text => Value::String(run.text_of(text).to_owned()),
        };
        let errors = match run.errors {
            Errors::All(errors) => errors,
            Errors::First(_) => Vec::new(),
        };
        Evaluation { value, errors }
    }

    /// Whether the expression is true of an event. `scratch` is room for texts that must be made; its content does not matter,
    /// and nothing is allocated once it has grown.
    ///
    /// # Errors
    /// The first error, or that the value is no Boolean. The event is not wanted then.
    pub fn test(&self, event: &StoredEvent, scratch: &mut String) -> Result<bool, Fault> {
        scratch.clear();
        let mut run = Run { tree: &self.0, event, made: scratch, errors: Errors::First(None) };
        let value = run.eval(self.0.root());
        match (value, run.errors) {
            (_, Errors::First(Some(kind))) => Err(Fault::Error(kind)),
            (Ok(Val::Boolean(value)) | Err(Val::Boolean(value)), _) => Ok(value),
            (Ok(Val::Integer(_)) | Err(Val::Integer(_)), _) => Err(Fault::NoBoolean(Type::Integer)),
            _ => Err(Fault::NoBoolean(Type::String)),
        }
    }

    /// The first call of a function that does not exist, if there is one: whatever needs it is an error for every event.
    #[must_use]
    pub fn missing_function(&self) -> Option<(Span, String)> {
        self.0.nodes().iter().zip(0..).find_map(|(node, id)| match *node {
            Node::Unknown(name, arguments) => {
                let (name, count) = (self.0.text(name), self.0.list(arguments).len());
                Some((self.0.span(id), format!("there is no function {name} that takes {count} arguments")))
            }
            _ => None,
        })
    }

    /// The text that an attribute must have, letter for letter, or the expression is false without an error; what is told of the
    /// leading operands of AND, and of nothing else. The attribute is one that every event has as a String.
    #[must_use]
    pub(super) fn required(&self, attribute: &str) -> Option<&str> {
        let tree = &self.0;
        let equality = |id| match tree.node(id) {
            Node::Chain(left, links) => match (tree.node(left), tree.links(links)) {
                (left, [link]) if link.operator == Operator::Equal => match (left, tree.node(link.operand)) {
                    (Node::Attribute(name), Node::String(text, _)) | (Node::String(text, _), Node::Attribute(name)) => {
                        Some((tree.text(name), tree.text(text)))
                    }
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        if let Some((name, text)) = equality(tree.root()) {
            return (name == attribute).then_some(text);
        }
        let Node::Chain(first, links) = tree.node(tree.root()) else { return None };
        let links = tree.links(links);
        if links.iter().any(|link| link.operator != Operator::And) {
            return None;
        }
        let operands = std::iter::once(first).chain(links.iter().map(|link| link.operand));
        // Behind an operand that may be in error nothing is certain.
        let mut certain = operands.map_while(equality).take_while(|(name, _)| matches!(*name, "type" | "source" | "id"));
        certain.find(|(name, _)| *name == attribute).map(|(_, text)| text)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
