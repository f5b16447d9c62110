//! Tokens to a tree: recursive descent, one token ahead.
//!
//! From the tightest: functions and literals; NOT and minus; LIKE, IN; `* / %`; `+ -`; comparisons; AND, OR and XOR, which are
//! one level (section 3.6). Nesting is bounded, and a row of operators of one level is read in a loop.

use super::MAX_DEPTH;
use super::ast::{Id, Level, Link, Node, Operator, Tree};
use super::error::{ParseError, Span};
use super::functions::Function;
use super::lexer::{Lexer, Token, TokenKind};
use super::like::Pattern;
use crate::event::check_attribute_name;

/// Words that are no names.
const KEYWORDS: [&str; 9] = ["AND", "OR", "XOR", "NOT", "LIKE", "IN", "EXISTS", "TRUE", "FALSE"];

/// Reads a whole text, which is not longer than a [`Span`] can tell.
pub(super) fn parse(text: &str) -> Result<Tree, ParseError> {
    let mut lexer = Lexer::new(text);
    let token = lexer.next()?;
    let mut parser = Parser { lexer, token, tree: Tree::default(), depth: 0, rewrapped: 0 };
    let root = parser.expression()?;
    match parser.token.kind {
        TokenKind::End => {}
        TokenKind::Close => return Err(parser.wrong("this ) closes nothing")),
        TokenKind::Text { .. } => {
            return Err(parser.wrong("an operator is missing before this string; inside of one a quote is written \\'"));
        }
        _ => return Err(parser.wrong("an operator is missing before this")),
    }
    parser.tree.finish(root);
    Ok(parser.tree)
}

struct Parser<'t> {
    lexer: Lexer<'t>,
    /// The next token.
    token: Token<'t>,
    tree: Tree,
    depth: usize,
    /// How often LIKE or IN stood right behind another one, in the whole text.
    rewrapped: usize,
}

impl<'t> Parser<'t> {
    fn take(&mut self) -> Result<Token<'t>, ParseError> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn wrong(&self, why: impl Into<String>) -> ParseError {
        self.lexer.error(self.token.span.start.into(), why)
    }

    /// One level deeper, unless that is too deep.
    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth == MAX_DEPTH {
            return Err(self.too_deep());
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn too_deep(&self) -> ParseError {
        self.wrong(format!("the expression is nested more than {MAX_DEPTH} deep"))
    }

    fn expression(&mut self) -> Result<Id, ParseError> {
        self.deeper(|parser| parser.binary(Level::Logic))
    }

    /// Operands with operators of this level between them.
    fn binary(&mut self, level: Level) -> Result<Id, ParseError> {
        let operand = |parser: &mut Self| match level.tighter() {
            Some(tighter) => parser.binary(tighter),
            None => parser.postfix(),
        };
        let first = operand(self)?;
        let mut links = Vec::new();
        while let Some(operator) = operator(self.token.kind).filter(|operator| operator.level() == level) {
            self.take()?;
            links.push(Link { operator, operand: operand(self)? });
        }
        let Some(last) = links.last() else { return Ok(first) };
        let span = self.tree.span(first).to(self.tree.span(last.operand));
        let links = self.tree.add_links(&links);
        Ok(self.tree.add(Node::Chain(first, links), span))
    }

    /// An operand with LIKE and IN behind it.
    fn postfix(&mut self) -> Result<Id, ParseError> {
        let mut operand = self.unary()?;
        let mut wrapped = false;
        loop {
            let negated = self.token.kind.is("NOT");
            if negated {
                self.take()?;
            }
            let like = self.token.kind.is("LIKE");
            if !like && !self.token.kind.is("IN") {
                if negated {
                    return Err(self.wrong("LIKE or IN is missing after this NOT"));
                }
                return Ok(operand);
            }
            // Each wraps what stands before it, so a row of them deepens the tree.
            self.rewrapped += usize::from(wrapped);
            if self.rewrapped > MAX_DEPTH {
                return Err(self.too_deep());
            }
            wrapped = true;
            self.take()?;
            operand = if like { self.like(operand, negated)? } else { self.set(operand, negated)? };
        }
    }

    fn like(&mut self, operand: Id, negated: bool) -> Result<Id, ParseError> {
        let TokenKind::Text { raw, double } = self.token.kind else {
            return Err(self.wrong("the pattern of LIKE must be a string, as in 'a%'"));
        };
        let end = self.take()?.span;
        let pattern = self.tree.add_pattern(Pattern::new(&unescape(raw, double)));
        let span = self.tree.span(operand).to(end);
        Ok(self.tree.add(Node::Like { operand, pattern, double, negated }, span))
    }

    fn set(&mut self, operand: Id, negated: bool) -> Result<Id, ParseError> {
        if self.token.kind != TokenKind::Open {
            return Err(self.wrong("IN needs a list, as in ('a', 'b')"));
        }
        self.take()?;
        if self.token.kind == TokenKind::Close {
            return Err(self.wrong("the list of IN must not be empty"));
        }
        let (items, end) = self.items()?;
        let set = self.tree.add_list(&items);
        let span = self.tree.span(operand).to(end);
        Ok(self.tree.add(Node::In { operand, set, negated }, span))
    }

    /// Expressions with commas between them, and the parenthesis that closes them.
    fn items(&mut self) -> Result<(Vec<Id>, Span), ParseError> {
        let mut items = Vec::new();
        if self.token.kind == TokenKind::Close {
            return Ok((items, self.take()?.span));
        }
        loop {
            items.push(self.expression()?);
            match self.token.kind {
                TokenKind::Comma => self.take()?,
                TokenKind::Close => return Ok((items, self.take()?.span)),
                TokenKind::End => return Err(self.wrong("a closing ) is missing")),
                _ => return Err(self.wrong("a comma or a closing ) is missing before this")),
            };
        }
    }

    fn unary(&mut self) -> Result<Id, ParseError> {
        let start = self.token;
        if start.kind.is("NOT") {
            self.take()?;
            let operand = self.deeper(Self::unary)?;
            let span = start.span.to(self.tree.span(operand));
            return Ok(self.tree.add(Node::Not(operand), span));
        }
        if !matches!(start.kind, TokenKind::Minus | TokenKind::Plus) {
            return self.primary();
        }
        self.take()?;
        // A sign right before digits belongs to the number, where an operand is expected.
        if let TokenKind::Digits(digits) = self.token.kind
            && self.token.span.start == start.span.end
        {
            let end = self.take()?.span;
            return self.integer(digits, start.kind == TokenKind::Minus, start.span.to(end));
        }
        if start.kind == TokenKind::Plus {
            return Err(self.lexer.error(start.span.start.into(), "a + needs a value before it"));
        }
        let operand = self.deeper(Self::unary)?;
        let span = start.span.to(self.tree.span(operand));
        Ok(self.tree.add(Node::Negate(operand), span))
    }

    fn primary(&mut self) -> Result<Id, ParseError> {
        match self.token.kind {
            TokenKind::Digits(digits) => {
                let span = self.take()?.span;
                self.integer(digits, false, span)
            }
            TokenKind::Text { raw, double } => {
                let span = self.take()?.span;
                let text = self.tree.add_text(&unescape(raw, double));
                Ok(self.tree.add(Node::String(text, double), span))
            }
            TokenKind::Open => {
                self.take()?;
                let inner = self.expression()?;
                match self.token.kind {
                    TokenKind::Close => self.take()?,
                    TokenKind::End => return Err(self.wrong("a closing ) is missing")),
                    _ => return Err(self.wrong("an operator or a closing ) is missing before this")),
                };
                Ok(inner)
            }
            TokenKind::Word(word) => self.word(word),
            TokenKind::End => Err(self.wrong("the expression ends where a value is expected")),
            _ => Err(self.wrong("a value is expected here: an attribute, a literal, a function or an expression in ( )")),
        }
    }

    fn word(&mut self, word: &'t str) -> Result<Id, ParseError> {
        let boolean = |value: bool| move |parser: &mut Self, span| Ok(parser.tree.add(Node::Boolean(value), span));
        if self.token.kind.is("TRUE") {
            let span = self.take()?.span;
            return boolean(true)(self, span);
        }
        if self.token.kind.is("FALSE") {
            let span = self.take()?.span;
            return boolean(false)(self, span);
        }
        if self.token.kind.is("EXISTS") {
            let start = self.take()?.span;
            let (TokenKind::Word(name) | TokenKind::Digits(name)) = self.token.kind else {
                return Err(self.wrong("EXISTS needs the name of an attribute"));
            };
            let (name, span) = self.attribute(name)?;
            return Ok(self.tree.add(Node::Exists(name), start.to(span)));
        }
        if KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(word)) {
            return Err(self.wrong(format!("{} needs a value before it", word.to_ascii_uppercase())));
        }
        let mut ahead = self.lexer.clone();
        if ahead.next().is_ok_and(|token| token.kind == TokenKind::Open) {
            return self.call(word);
        }
        let (name, span) = self.attribute(word)?;
        Ok(self.tree.add(Node::Attribute(name), span))
    }

    /// The name of an attribute, in lower case: names are told apart by nothing else, and keywords have any case.
    fn attribute(&mut self, name: &str) -> Result<(super::ast::Text, Span), ParseError> {
        let lower = name.to_ascii_lowercase();
        if KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(name)) {
            return Err(self.wrong(format!("{} is a keyword and no attribute", name.to_ascii_uppercase())));
        }
        if check_attribute_name(&lower).is_err() {
            return Err(
                self.wrong(format!("\"{lower}\" cannot be the name of an attribute: letters and digits, and not data"))
            );
        }
        let span = self.take()?.span;
        Ok((self.tree.add_text(&lower), span))
    }

    fn call(&mut self, name: &str) -> Result<Id, ParseError> {
        let plain = |c: char| c.is_ascii_alphabetic() || c == '_';
        if name.starts_with('_') || !name.chars().all(plain) {
            return Err(self.wrong(format!("\"{name}\" cannot be the name of a function: letters and underscores")));
        }
        let start = self.take()?.span;
        self.take()?;
        let (arguments, end) = self.items()?;
        let list = self.tree.add_list(&arguments);
        let node = match Function::find(name, arguments.len()) {
            Some(function) => Node::Call(function, list),
            None => Node::Unknown(self.tree.add_text(&name.to_ascii_uppercase()), list),
        };
        Ok(self.tree.add(node, start.to(end)))
    }

    fn integer(&mut self, digits: &str, negative: bool, span: Span) -> Result<Id, ParseError> {
        let magnitude: i64 = digits.parse().unwrap_or(i64::MAX);
        let value = i32::try_from(if negative { -magnitude } else { magnitude })
            .map_err(|_| self.lexer.error(span.start.into(), "the number is not one of 32 bits with a sign"))?;
        Ok(self.tree.add(Node::Integer(value), span))
    }
}

fn operator(kind: TokenKind<'_>) -> Option<Operator> {
    Some(match kind {
        TokenKind::Star => Operator::Multiply,
        TokenKind::Slash => Operator::Divide,
        TokenKind::Percent => Operator::Remainder,
        TokenKind::Plus => Operator::Add,
        TokenKind::Minus => Operator::Subtract,
        TokenKind::Equal => Operator::Equal,
        TokenKind::NotEqual => Operator::NotEqual,
        TokenKind::Less => Operator::Less,
        TokenKind::LessOrEqual => Operator::LessOrEqual,
        TokenKind::Greater => Operator::Greater,
        TokenKind::GreaterOrEqual => Operator::GreaterOrEqual,
        kind if kind.is("AND") => Operator::And,
        kind if kind.is("OR") => Operator::Or,
        kind if kind.is("XOR") => Operator::Xor,
        _ => return None,
    })
}

/// What is between the quotes, with the escaped quotes as themselves. Other backslashes stay: LIKE has its own.
fn unescape(raw: &str, double: bool) -> String {
    let (escaped, quote) = if double { ("\\\"", "\"") } else { ("\\'", "'") };
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        let (before, from) = rest.split_at(at);
        text.push_str(before);
        // The lexer saw to it that something follows.
        let length = 1 + from.chars().nth(1).map_or(0, char::len_utf8);
        let (pair, after) = from.split_at(length);
        text.push_str(if pair == escaped { quote } else { pair });
        rest = after;
    }
    text + rest
}
