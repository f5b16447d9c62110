//! The tree of an expression, laid out flat: nodes in one row, children by their number, all names and texts in one string.
//! It is what the parser makes, what the evaluator walks and what is printed.
//!
//! Operators of one level stand in one [`Node::Chain`], however long, so the tree is only as deep as parentheses, arguments
//! and unary operators make it, which the parser bounds.

use std::fmt::{self, Write as _};

use super::error::Span;
use super::functions::Function;
use super::like::Pattern;

/// The number of a node.
pub(super) type Id = u16;

/// A stretch of [`Tree::texts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Text {
    start: u16,
    end: u16,
}

/// A stretch of [`Tree::ids`] or [`Tree::links`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct List {
    start: u16,
    end: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Boolean(bool),
    Integer(i32),
    /// A string, and whether it was written between double quotes.
    String(Text, bool),
    Attribute(Text),
    Exists(Text),
    Not(Id),
    Negate(Id),
    /// The first operand; the operators and operands that follow, from the left to the right.
    Chain(Id, List),
    /// The operand, the number of the pattern, whether it was written between double quotes.
    Like {
        operand: Id,
        pattern: u16,
        double: bool,
        negated: bool,
    },
    In {
        operand: Id,
        set: List,
        negated: bool,
    },
    Call(Function, List),
    /// A call of what is no function.
    Unknown(Text, List),
}

/// One more operand of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) operator: Operator,
    pub(super) operand: Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    And,
    Or,
    Xor,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// How tightly a binary operator binds; those of one level are taken from the left to the right (section 3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Logic,
    Comparison,
    Sum,
    Product,
}

impl Level {
    pub(super) fn tighter(self) -> Option<Self> {
        match self {
            Self::Logic => Some(Self::Comparison),
            Self::Comparison => Some(Self::Sum),
            Self::Sum => Some(Self::Product),
            Self::Product => None,
        }
    }
}

impl Operator {
    pub(super) fn level(self) -> Level {
        match self {
            Self::And | Self::Or | Self::Xor => Level::Logic,
            Self::Add | Self::Subtract => Level::Sum,
            Self::Multiply | Self::Divide | Self::Remainder => Level::Product,
            _ => Level::Comparison,
        }
    }

    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Xor => "XOR",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}

/// A whole expression.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    spans: Vec<Span>,
    ids: Vec<Id>,
    links: Vec<Link>,
    patterns: Vec<Pattern>,
    texts: String,
    root: Id,
}

/// Where a node's parts stand in the text does not matter.
impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        let parts = |t: &Self| (t.nodes.clone(), t.ids.clone(), t.links.clone(), t.root);
        parts(self) == parts(other) && self.patterns == other.patterns && self.texts == other.texts
    }
}

impl Eq for Tree {}

// The text is at most 2^16 bytes long, and every node, child and letter kept comes from a byte of it.
impl Tree {
    pub(super) fn add(&mut self, node: Node, span: Span) -> Id {
        self.nodes.push(node);
        self.spans.push(span);
        short(self.nodes.len() - 1)
    }

    pub(super) fn add_text(&mut self, text: &str) -> Text {
        let start = short(self.texts.len());
        self.texts.push_str(text);
        Text { start, end: short(self.texts.len()) }
    }

    pub(super) fn add_list(&mut self, ids: &[Id]) -> List {
        let start = short(self.ids.len());
        self.ids.extend_from_slice(ids);
        List { start, end: short(self.ids.len()) }
    }

    pub(super) fn add_links(&mut self, links: &[Link]) -> List {
        let start = short(self.links.len());
        self.links.extend_from_slice(links);
        List { start, end: short(self.links.len()) }
    }

    pub(super) fn add_pattern(&mut self, pattern: Pattern) -> u16 {
        self.patterns.push(pattern);
        short(self.patterns.len() - 1)
    }

    /// Nothing is added any more.
    pub(super) fn finish(&mut self, root: Id) {
        self.root = root;
        self.nodes.shrink_to_fit();
        self.spans.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.links.shrink_to_fit();
        self.patterns.shrink_to_fit();
        self.texts.shrink_to_fit();
    }

    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    #[inline]
    pub(super) fn node(&self, id: Id) -> Node {
        self.nodes.get(usize::from(id)).copied().unwrap_or(Node::Boolean(false))
    }

    pub(super) fn span(&self, id: Id) -> Span {
        self.spans.get(usize::from(id)).copied().unwrap_or_default()
    }

    #[inline]
    pub(super) fn text(&self, text: Text) -> &str {
        self.texts.get(usize::from(text.start)..usize::from(text.end)).unwrap_or_default()
    }

    pub(super) fn list(&self, list: List) -> &[Id] {
        self.ids.get(usize::from(list.start)..usize::from(list.end)).unwrap_or_default()
    }

    pub(super) fn links(&self, list: List) -> &[Link] {
        self.links.get(usize::from(list.start)..usize::from(list.end)).unwrap_or_default()
    }

    pub(super) fn pattern(&self, pattern: u16) -> Option<&Pattern> {
        self.patterns.get(usize::from(pattern))
    }

    /// The level of a chain.
    fn level(&self, id: Id) -> Option<Level> {
        match self.node(id) {
            Node::Chain(_, links) => self.links(links).first().map(|link| link.operator.level()),
            _ => None,
        }
    }
}

fn short(place: usize) -> u16 {
    u16::try_from(place).expect("a tree is no larger than the text that it was read from")
}

impl fmt::Display for Tree {
    /// The expression with no parentheses but those that it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, self.root)
    }
}

impl Tree {
    fn write(&self, f: &mut fmt::Formatter<'_>, id: Id) -> fmt::Result {
        match self.node(id) {
            Node::Boolean(true) => f.write_str("TRUE"),
            Node::Boolean(false) => f.write_str("FALSE"),
            Node::Integer(n) => write!(f, "{n}"),
            Node::String(text, double) => quote(f, self.text(text), double),
            Node::Attribute(name) => f.write_str(self.text(name)),
            Node::Exists(name) => write!(f, "EXISTS {}", self.text(name)),
            Node::Not(operand) => {
                f.write_str("NOT ")?;
                self.write_unary(f, operand)
            }
            Node::Negate(operand) => {
                f.write_char('-')?;
                match self.node(operand) {
                    // "-5" would be a literal.
                    Node::Integer(n) if n >= 0 => write!(f, "({n})"),
                    _ => self.write_unary(f, operand),
                }
            }
            Node::Chain(first, links) => {
                let level = self.level(id).unwrap_or(Level::Logic);
                let operand = |f: &mut fmt::Formatter<'_>, id| {
                    self.write_in(f, id, self.level(id).is_some_and(|inner| inner <= level))
                };
                operand(f, first)?;
                for link in self.links(links) {
                    write!(f, " {} ", link.operator.symbol())?;
                    operand(f, link.operand)?;
                }
                Ok(())
            }
            Node::Like { operand, pattern, double, negated } => {
                self.write_in(f, operand, self.level(operand).is_some())?;
                f.write_str(if negated { " NOT LIKE " } else { " LIKE " })?;
                let pattern = self.pattern(pattern).map(ToString::to_string).unwrap_or_default();
                quote(f, &pattern, double)
            }
            Node::In { operand, set, negated } => {
                self.write_in(f, operand, self.level(operand).is_some())?;
                f.write_str(if negated { " NOT IN (" } else { " IN (" })?;
                self.write_list(f, set)?;
                f.write_char(')')
            }
            Node::Call(function, arguments) => {
                write!(f, "{}(", function.name())?;
                self.write_list(f, arguments)?;
                f.write_char(')')
            }
            Node::Unknown(name, arguments) => {
                write!(f, "{}(", self.text(name))?;
                self.write_list(f, arguments)?;
                f.write_char(')')
            }
        }
    }

    /// The operand of a unary operator, which binds more tightly than all else.
    fn write_unary(&self, f: &mut fmt::Formatter<'_>, id: Id) -> fmt::Result {
        let loose = matches!(self.node(id), Node::Chain(..) | Node::Like { .. } | Node::In { .. });
        self.write_in(f, id, loose)
    }

    fn write_in(&self, f: &mut fmt::Formatter<'_>, id: Id, parentheses: bool) -> fmt::Result {
        if !parentheses {
            return self.write(f, id);
        }
        f.write_char('(')?;
        self.write(f, id)?;
        f.write_char(')')
    }

    fn write_list(&self, f: &mut fmt::Formatter<'_>, list: List) -> fmt::Result {
        for (i, id) in self.list(list).iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            self.write(f, *id)?;
        }
        Ok(())
    }
}

fn quote(f: &mut fmt::Formatter<'_>, text: &str, double: bool) -> fmt::Result {
    let quote = if double { '"' } else { '\'' };
    f.write_char(quote)?;
    for c in text.chars() {
        if c == quote {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char(quote)
}
