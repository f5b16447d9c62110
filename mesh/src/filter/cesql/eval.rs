//! Walks the tree for one event.
//!
//! Every part has a value, also where something is wrong (section 3.3): an operator or function whose operand is in error is not
//! computed, its value is the zero value of its type. So one error decides everything around it, as the test kit demands.
//! AND and OR look at their right operand only where the left one does not decide; IN stops at the first equal element.
//!
//! Texts are borrowed from the event and the expression. What has to be made (casts, CONCAT, derived attributes) is appended to
//! one buffer that the caller keeps, so that nothing is allocated once it has grown.

use std::fmt::Write as _;

use super::ast::{Id, Link, List, Node, Operator, Tree};
use super::error::{ErrorKind, EvalError};
use super::functions::Type;
use crate::event::{AttributeRef, Found, StoredEvent};

/// A value while it is computed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Val<'a> {
    Boolean(bool),
    Integer(i32),
    Text(&'a str),
    /// A stretch of the buffer.
    Made(usize, usize),
}

/// A value: fine, or beside an error.
pub(super) type Outcome<'a> = Result<Val<'a>, Val<'a>>;

pub(super) const FALSE: Val<'static> = Val::Boolean(false);
pub(super) const ZERO: Val<'static> = Val::Integer(0);
pub(super) const EMPTY: Val<'static> = Val::Text("");

impl Val<'_> {
    pub(super) fn type_of(self) -> Type {
        match self {
            Self::Boolean(_) => Type::Boolean,
            Self::Integer(_) => Type::Integer,
            Self::Text(_) | Self::Made(..) => Type::String,
        }
    }
}

/// What becomes of errors.
pub(super) enum Errors {
    /// The first one ends the evaluation; only its kind is kept.
    First(Option<ErrorKind>),
    /// All are kept, in the order in which they came.
    All(Vec<EvalError>),
}

pub(super) struct Run<'a, 'm> {
    pub(super) tree: &'a Tree,
    pub(super) event: &'a StoredEvent,
    pub(super) made: &'m mut String,
    pub(super) errors: Errors,
}

impl<'a> Run<'a, '_> {
    /// Notes an error; `why` is only asked for where somebody will read it.
    pub(super) fn fail(&mut self, kind: ErrorKind, at: Id, why: impl FnOnce(&Self) -> String) {
        match &mut self.errors {
            Errors::First(first) => *first = first.or(Some(kind)),
            Errors::All(_) => {
                let error = EvalError { kind, span: self.tree.span(at), why: why(self) };
                if let Errors::All(all) = &mut self.errors {
                    all.push(error);
                }
            }
        }
    }

    /// Whether nothing more needs to be known.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.errors, Errors::First(Some(_)))
    }

    /// The text of a String.
    pub(super) fn text_of(&self, value: Val<'a>) -> &str {
        match value {
            Val::Text(text) => text,
            Val::Made(start, end) => self.made.get(start..end).unwrap_or_default(),
            Val::Boolean(_) | Val::Integer(_) => "",
        }
    }

    /// A value for people.
    fn shown(&self, value: Val<'a>) -> String {
        match value {
            Val::Boolean(value) => value.to_string(),
            Val::Integer(value) => value.to_string(),
            text => {
                let text = self.text_of(text);
                let cut: String = text.chars().take(40).collect();
                let more = if cut.len() < text.len() { "…" } else { "" };
                format!("'{cut}{more}'")
            }
        }
    }

    pub(super) fn eval(&mut self, id: Id) -> Outcome<'a> {
        let tree = self.tree;
        match tree.node(id) {
            Node::Boolean(value) => Ok(Val::Boolean(value)),
            Node::Integer(value) => Ok(Val::Integer(value)),
            Node::String(text, _) => Ok(Val::Text(tree.text(text))),
            Node::Attribute(name) => self.attribute(tree.text(name), id),
            Node::Exists(name) => {
                let mark = self.made.len();
                let exists = self.event.find(tree.text(name), self.made).is_some();
                self.made.truncate(mark);
                Ok(Val::Boolean(exists))
            }
            Node::Not(operand) => match self.boolean(operand) {
                Some(value) => Ok(Val::Boolean(!value)),
                None => Err(FALSE),
            },
            Node::Negate(operand) => match self.integer(operand) {
                Some(value) => self.number(value.checked_neg(), id),
                None => Err(ZERO),
            },
            Node::Chain(first, links) => self.chain(first, tree.links(links)),
            Node::Like { operand, pattern, negated, .. } => {
                let matches = match self.eval(operand) {
                    Ok(Val::Text(text)) => tree.pattern(pattern).is_some_and(|pattern| pattern.matches(text)),
                    Ok(value) => {
                        let text = self.cast_text(value);
                        tree.pattern(pattern).is_some_and(|pattern| pattern.matches(self.text_of(text)))
                    }
                    Err(_) => return Err(FALSE),
                };
                Ok(Val::Boolean(matches != negated))
            }
            Node::In { operand, set, negated } => self.is_in(operand, set, negated),
            Node::Call(function, arguments) => self.call(id, function, tree.list(arguments)),
            Node::Unknown(name, arguments) => {
                self.fail(ErrorKind::MissingFunction, id, |run| {
                    let count = run.tree.list(arguments).len();
                    format!("there is no function {} that takes {count} arguments", run.tree.text(name))
                });
                Err(FALSE)
            }
        }
    }

    fn attribute(&mut self, name: &'a str, id: Id) -> Outcome<'a> {
        let start = self.made.len();
        // What one attribute adds is bounded as the event is.
        if !self.has_room(id, 0) {
            return Err(FALSE);
        }
        let value = match self.event.find(name, self.made) {
            Some(Found::There(value)) => value,
            Some(Found::Made(_)) => return Ok(Val::Made(start, self.made.len())),
            None => {
                self.fail(ErrorKind::MissingAttribute, id, |_| format!("the event has no attribute {name}"));
                return Err(FALSE);
            }
        };
        match value {
            AttributeRef::Boolean(value) => Ok(Val::Boolean(value)),
            AttributeRef::Integer(value) => Ok(Val::Integer(value)),
            AttributeRef::Binary(_) => {
                let _ = write!(self.made, "{value}"); // writing to a String cannot fail
                Ok(Val::Made(start, self.made.len()))
            }
            AttributeRef::String(text)
            | AttributeRef::Uri(text)
            | AttributeRef::UriRef(text)
            | AttributeRef::Timestamp(text) => Ok(Val::Text(text)),
        }
    }

    // Casts (section 3.7). Each evaluates its part; none says that an error was noted.

    pub(super) fn boolean(&mut self, id: Id) -> Option<bool> {
        let value = self.eval(id).ok()?;
        self.cast_boolean(value, id)
    }

    pub(super) fn integer(&mut self, id: Id) -> Option<i32> {
        let value = self.eval(id).ok()?;
        self.cast_integer(value, id)
    }

    pub(super) fn text(&mut self, id: Id) -> Option<Val<'a>> {
        let value = self.eval(id).ok()?;
        Some(self.cast_text(value))
    }

    fn cast_boolean(&mut self, value: Val<'a>, at: Id) -> Option<bool> {
        let cast = match value {
            Val::Boolean(value) => Some(value),
            Val::Integer(value) => Some(value != 0),
            text => as_boolean(self.text_of(text)),
        };
        if cast.is_none() {
            self.fail(ErrorKind::Cast, at, |run| format!("{} is neither true nor false", run.shown(value)));
        }
        cast
    }

    fn cast_integer(&mut self, value: Val<'a>, at: Id) -> Option<i32> {
        let cast = match value {
            Val::Boolean(value) => Some(i32::from(value)),
            Val::Integer(value) => Some(value),
            text => self.text_of(text).parse().ok(),
        };
        if cast.is_none() {
            self.fail(ErrorKind::Cast, at, |run| format!("{} is no whole number of 32 bits", run.shown(value)));
        }
        cast
    }

    fn cast_text(&mut self, value: Val<'a>) -> Val<'a> {
        match value {
            Val::Boolean(true) => Val::Text("true"),
            Val::Boolean(false) => Val::Text("false"),
            Val::Integer(value) => {
                let start = self.made.len();
                let _ = write!(self.made, "{value}"); // writing to a String cannot fail
                Val::Made(start, self.made.len())
            }
            text => text,
        }
    }

    /// Whether two values are equal once the first has the type of the second; nothing when it cannot.
    fn equal(&mut self, cast: Val<'a>, to: Val<'a>, at: Id) -> Option<bool> {
        Some(match to {
            Val::Boolean(to) => self.cast_boolean(cast, at)? == to,
            Val::Integer(to) => self.cast_integer(cast, at)? == to,
            to => {
                let cast = self.cast_text(cast);
                self.text_of(cast) == self.text_of(to)
            }
        })
    }

    fn number(&mut self, result: Option<i32>, at: Id) -> Outcome<'a> {
        match result {
            Some(value) => Ok(Val::Integer(value)),
            None => {
                self.fail(ErrorKind::Math, at, |_| "the result is not one of 32 bits with a sign".to_owned());
                Err(ZERO)
            }
        }
    }

    fn chain(&mut self, first: Id, links: &[Link]) -> Outcome<'a> {
        let mut left = self.eval(first);
        let mut at = first;
        for link in links {
            if self.is_over() {
                return Err(FALSE);
            }
            left = match link.operator {
                Operator::And | Operator::Or | Operator::Xor => self.logic(left, at, *link),
                Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
                    self.arithmetic(left, at, *link)
                }
                _ => self.compare(left, at, *link),
            };
            at = link.operand;
        }
        left
    }

    fn logic(&mut self, left: Outcome<'a>, at: Id, link: Link) -> Outcome<'a> {
        let left = left.ok().and_then(|left| self.cast_boolean(left, at));
        // A left operand in error counts as false.
        match (link.operator, left) {
            (Operator::And, Some(false)) => return Ok(FALSE),
            (Operator::And, None) => return Err(FALSE),
            (Operator::Or, Some(true)) => return Ok(Val::Boolean(true)),
            _ if self.is_over() => return Err(FALSE),
            _ => {}
        }
        let right = self.boolean(link.operand);
        match (left, right) {
            (Some(left), Some(right)) if link.operator == Operator::Xor => Ok(Val::Boolean(left != right)),
            (Some(_), Some(right)) => Ok(Val::Boolean(right)),
            _ => Err(FALSE),
        }
    }

    fn compare(&mut self, left: Outcome<'a>, at: Id, link: Link) -> Outcome<'a> {
        // What most filters ask, without the way around.
        if let (Ok(Val::Text(left)), Operator::Equal, Node::String(right, _)) =
            (left, link.operator, self.tree.node(link.operand))
        {
            return Ok(Val::Boolean(left == self.tree.text(right)));
        }
        let right = self.eval(link.operand);
        let (Ok(left), Ok(right)) = (left, right) else { return Err(FALSE) };
        let holds = match link.operator {
            Operator::Equal => self.equal(left, right, at),
            Operator::NotEqual => self.equal(left, right, at).map(|equal| !equal),
            operator => {
                let (left, right) = (self.cast_integer(left, at), self.cast_integer(right, link.operand));
                left.zip(right).map(|(left, right)| match operator {
                    Operator::Less => left < right,
                    Operator::LessOrEqual => left <= right,
                    Operator::Greater => left > right,
                    _ => left >= right,
                })
            }
        };
        holds.map(Val::Boolean).ok_or(FALSE)
    }

    fn arithmetic(&mut self, left: Outcome<'a>, at: Id, link: Link) -> Outcome<'a> {
        let right = self.eval(link.operand);
        let left = left.ok().and_then(|left| self.cast_integer(left, at));
        let right = right.ok().and_then(|right| self.cast_integer(right, link.operand));
        let (Some(left), Some(right)) = (left, right) else { return Err(ZERO) };
        if right == 0 && matches!(link.operator, Operator::Divide | Operator::Remainder) {
            self.fail(ErrorKind::Math, link.operand, |_| "division by zero".to_owned());
            return Err(ZERO);
        }
        let result = match link.operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide => left.checked_div(right),
            // The remainder of the smallest number by -1 is 0, though the quotient is none.
            _ => Some(left.wrapping_rem(right)),
        };
        self.number(result, link.operand)
    }

    fn is_in(&mut self, operand: Id, set: List, negated: bool) -> Outcome<'a> {
        let left = self.eval(operand);
        let mut failed = left.is_err();
        for id in self.tree.list(set) {
            if self.is_over() {
                return Err(FALSE);
            }
            match (left, self.eval(*id)) {
                (Ok(left), Ok(element)) => match self.equal(element, left, *id) {
                    Some(true) if !failed => return Ok(Val::Boolean(!negated)),
                    Some(_) => {}
                    None => failed = true,
                },
                _ => failed = true,
            }
        }
        if failed { Err(FALSE) } else { Ok(Val::Boolean(negated)) }
    }
}

pub(super) fn as_boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}
