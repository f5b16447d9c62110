//! What functions do with their arguments (section 3.5). Parts of a text are taken without copying it.

use super::MAX_MADE_BYTES;
use super::ast::Id;
use super::error::ErrorKind;
use super::eval::{EMPTY, FALSE, Outcome, Run, Val, ZERO, as_boolean};
use super::functions::{Function, Type};

impl<'a> Run<'a, '_> {
    pub(super) fn call(&mut self, id: Id, function: Function, arguments: &[Id]) -> Outcome<'a> {
        match (function, arguments) {
            (Function::Concat, parts) => self.concat(id, None, parts),
            (Function::ConcatWs, [separator, parts @ ..]) => {
                let separator = self.text(*separator);
                if self.is_over() {
                    return Err(EMPTY);
                }
                match separator {
                    Some(separator) => self.concat(id, Some(separator), parts),
                    None => {
                        let _ = self.concat(id, None, parts);
                        Err(EMPTY)
                    }
                }
            }
            (Function::Int, [x]) => self.integer(*x).map(Val::Integer).ok_or(ZERO),
            (Function::Bool, [x]) => self.boolean(*x).map(Val::Boolean).ok_or(FALSE),
            (Function::String, [x]) => self.text(*x).ok_or(EMPTY),
            (Function::IsInt | Function::IsBool, [x]) => {
                let Ok(value) = self.eval(*x) else { return Err(FALSE) };
                let casts = match value.type_of() {
                    Type::String if function == Function::IsInt => self.text_of(value).parse::<i32>().is_ok(),
                    Type::String => as_boolean(self.text_of(value)).is_some(),
                    _ => true,
                };
                Ok(Val::Boolean(casts))
            }
            (Function::Abs, [x]) => match self.integer(*x) {
                Some(i32::MIN) => {
                    self.fail(ErrorKind::Math, id, |_| "the absolute value is not one of 32 bits with a sign".to_owned());
                    Err(Val::Integer(i32::MAX))
                }
                Some(value) => Ok(Val::Integer(value.abs())),
                None => Err(ZERO),
            },
            (Function::Length, [x]) => match self.text(*x) {
                Some(text) => Ok(Val::Integer(count(self.text_of(text)))),
                None => Err(ZERO),
            },
            (Function::Lower | Function::Upper, [x]) => match self.text(*x) {
                Some(text) => self.change_case(id, text, function == Function::Upper),
                None => Err(EMPTY),
            },
            (Function::Trim, [x]) => match self.text(*x) {
                Some(value) => {
                    let text = self.text_of(value);
                    let from = text.len() - text.trim_start().len();
                    let to = from + text.trim().len();
                    Ok(part(value, from, to))
                }
                None => Err(EMPTY),
            },
            (Function::Left | Function::Right, [x, length]) => {
                let (text, length) = (self.text(*x), self.integer(*length));
                let (Some(text), Some(length)) = (text, length) else { return Err(EMPTY) };
                self.end(id, text, length, function == Function::Right)
            }
            (Function::Substring, [x, position, rest @ ..]) => {
                let (text, position) = (self.text(*x), self.integer(*position));
                let length = rest.first().map(|length| self.integer(*length));
                let (Some(text), Some(position)) = (text, position) else { return Err(EMPTY) };
                match length {
                    None => self.substring(id, text, position, None),
                    Some(Some(length)) => self.substring(id, text, position, Some(length)),
                    Some(None) => Err(EMPTY),
                }
            }
            // The parser counts arguments.
            _ => Err(FALSE),
        }
    }

    /// Appends the parts to the buffer, each behind what it made itself.
    fn concat(&mut self, id: Id, separator: Option<Val<'a>>, parts: &[Id]) -> Outcome<'a> {
        // What a part makes lies in between, so the result is put together in a row of its own behind it all.
        let mut result: Option<(usize, usize)> = None;
        let mut failed = false;
        for (i, part) in parts.iter().enumerate() {
            if self.is_over() {
                return Err(EMPTY);
            }
            let Some(value) = self.text(*part) else {
                failed = true;
                continue;
            };
            if failed {
                continue;
            }
            let start = match result {
                // The row goes on where it ends, unless something was made behind it.
                Some((start, end)) if end == self.made.len() => start,
                Some((start, end)) => {
                    if !self.has_room(id, end - start) {
                        return Err(EMPTY);
                    }
                    let moved = self.made.len();
                    self.made.extend_from_within(start..end);
                    moved
                }
                None => self.made.len(),
            };
            for value in separator.filter(|_| i > 0).into_iter().chain([value]) {
                let length = self.text_of(value).len();
                if !self.has_room(id, length) {
                    return Err(EMPTY);
                }
                match value {
                    Val::Made(start, end) => self.made.extend_from_within(start..end),
                    value => self.made.push_str(if let Val::Text(text) = value { text } else { "" }),
                }
            }
            result = Some((start, self.made.len()));
        }
        match result {
            _ if failed => Err(EMPTY),
            Some((start, end)) => Ok(Val::Made(start, end)),
            None => Ok(EMPTY),
        }
    }

    /// Whether so many bytes more may be made.
    pub(super) fn has_room(&mut self, id: Id, more: usize) -> bool {
        let room = self.made.len() + more <= MAX_MADE_BYTES;
        if !room {
            self.fail(ErrorKind::Generic, id, |_| format!("the texts made are longer than {MAX_MADE_BYTES} bytes"));
        }
        room
    }

    fn change_case(&mut self, id: Id, value: Val<'a>, upper: bool) -> Outcome<'a> {
        let changes = |c: char| if upper { c.to_uppercase().ne([c]) } else { c.to_lowercase().ne([c]) };
        let text = self.text_of(value);
        if !text.chars().any(changes) {
            return Ok(value);
        }
        let length = if upper {
            text.chars().flat_map(char::to_uppercase).map(char::len_utf8).sum()
        } else {
            text.chars().flat_map(char::to_lowercase).map(char::len_utf8).sum()
        };
        if !self.has_room(id, length) {
            return Err(EMPTY);
        }
        let start = self.made.len();
        let mut at = 0;
        while let Some(c) = self.text_of(value).get(at..).and_then(|rest| rest.chars().next()) {
            at += c.len_utf8();
            if upper {
                self.made.extend(c.to_uppercase());
            } else {
                self.made.extend(c.to_lowercase());
            }
        }
        Ok(Val::Made(start, self.made.len()))
    }

    fn end(&mut self, id: Id, value: Val<'a>, length: i32, right: bool) -> Outcome<'a> {
        let Ok(length) = usize::try_from(length) else {
            self.fail(ErrorKind::FunctionEvaluation, id, |_| format!("the length {length} is negative"));
            return Err(value);
        };
        let text = self.text_of(value);
        Ok(if right {
            let skipped = text.chars().count().saturating_sub(length);
            part(value, byte_of(text, skipped), text.len())
        } else {
            part(value, 0, byte_of(text, length))
        })
    }

    fn substring(&mut self, id: Id, value: Val<'a>, position: i32, length: Option<i32>) -> Outcome<'a> {
        let text = self.text_of(value);
        let all = text.chars().count();
        let distance = usize::try_from(position.unsigned_abs()).unwrap_or(usize::MAX);
        if distance > all {
            self.fail(ErrorKind::FunctionEvaluation, id, |_| {
                format!("the position {position} is outside of a text of {all} characters")
            });
            return Err(EMPTY);
        }
        let length = match length.map(usize::try_from) {
            None => all,
            Some(Ok(length)) => length,
            Some(Err(_)) => {
                self.fail(ErrorKind::FunctionEvaluation, id, |_| "the length is negative".to_owned());
                return Err(EMPTY);
            }
        };
        if position == 0 {
            return Ok(EMPTY);
        }
        let skipped = if position > 0 { distance - 1 } else { all - distance };
        let from = byte_of(text, skipped);
        let to = from + byte_of(text.get(from..).unwrap_or_default(), length);
        Ok(part(value, from, to))
    }
}

/// Bytes `from` to `to` of a String.
fn part(value: Val<'_>, from: usize, to: usize) -> Val<'_> {
    match value {
        Val::Text(text) => Val::Text(text.get(from..to).unwrap_or_default()),
        Val::Made(start, _) => Val::Made(start + from, start + to),
        other => other,
    }
}

/// The byte at which the character of this number begins; the end where there are fewer.
fn byte_of(text: &str, characters: usize) -> usize {
    text.char_indices().nth(characters).map_or(text.len(), |(at, _)| at)
}

/// The number of characters; a text of so many that no Integer holds it does not fit an event.
fn count(text: &str) -> i32 {
    i32::try_from(text.chars().count()).unwrap_or(i32::MAX)
}
