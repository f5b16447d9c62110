//! Text to tokens. A token knows where it stands; numbers have no sign yet, which only the parser can tell from an operator.

use super::error::{ParseError, Place, Span};

/// One token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) kind: TokenKind<'t>,
    pub(super) span: Span,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind<'t> {
    /// A keyword or a name: letters, digits, underscores.
    Word(&'t str),
    /// Digits only.
    Digits(&'t str),
    /// What stands between quotes, escapes included.
    Text {
        raw: &'t str,
        double: bool,
    },
    Open,
    Close,
    Comma,
    Star,
    Slash,
    Percent,
    Plus,
    Minus,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    End,
}

impl TokenKind<'_> {
    /// Whether this is the keyword `word`, in whichever case.
    pub(super) fn is(self, word: &str) -> bool {
        matches!(self, Self::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

/// Walks over a text. The text is at most as long as a [`Span`] can tell.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, at: 0 }
    }

    /// An error at a byte of the text.
    pub(super) fn error(&self, byte: usize, why: impl Into<String>) -> ParseError {
        ParseError { place: Place::of(self.text, byte), why: why.into() }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next token; [`TokenKind::End`] again and again behind the last one.
    pub(super) fn next(&mut self) -> Result<Token<'t>, ParseError> {
        let rest = self.rest().trim_start_matches([' ', '\t', '\r', '\n']);
        self.at = self.text.len() - rest.len();
        let start = self.at;
        let (kind, length) = self.token(rest)?;
        self.at = start + length;
        Ok(Token { kind, span: Span { start: short(start), end: short(self.at) } })
    }

    fn token(&self, rest: &'t str) -> Result<(TokenKind<'t>, usize), ParseError> {
        use TokenKind as T;
        let Some(first) = rest.chars().next() else { return Ok((T::End, 0)) };
        let second = rest.as_bytes().get(1).copied();
        Ok(match (first, second) {
            ('(', _) => (T::Open, 1),
            (')', _) => (T::Close, 1),
            (',', _) => (T::Comma, 1),
            ('*', _) => (T::Star, 1),
            ('/', _) => (T::Slash, 1),
            ('%', _) => (T::Percent, 1),
            ('+', _) => (T::Plus, 1),
            ('-', _) => (T::Minus, 1),
            ('=', _) => (T::Equal, 1),
            ('!', Some(b'=')) | ('<', Some(b'>')) => (T::NotEqual, 2),
            ('<', Some(b'=')) => (T::LessOrEqual, 2),
            ('>', Some(b'=')) => (T::GreaterOrEqual, 2),
            ('<', _) => (T::Less, 1),
            ('>', _) => (T::Greater, 1),
            ('!', _) => return Err(self.error(self.at, "a single ! means nothing; write NOT, or != for not equal")),
            (quote @ ('\'' | '"'), _) => {
                let raw = self.quoted(rest, quote)?;
                (T::Text { raw, double: quote == '"' }, raw.len() + 2)
            }
            (c, _) if is_word(c) => {
                let word = rest.split(|c| !is_word(c)).next().unwrap_or_default();
                let digits = word.bytes().all(|b| b.is_ascii_digit());
                (if digits { T::Digits(word) } else { T::Word(word) }, word.len())
            }
            (c, _) => return Err(self.error(self.at, format!("the character {c:?} has no place here"))),
        })
    }

    /// What stands between the quotes at the beginning of `rest`. A backslash takes the character behind it along.
    fn quoted(&self, rest: &'t str, quote: char) -> Result<&'t str, ParseError> {
        let mut escaped = false;
        for (i, c) in rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                return Ok(rest.get(1..i).unwrap_or_default());
            }
        }
        Err(self.error(self.at, format!("the string that begins here has no closing {quote}")))
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn short(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}
