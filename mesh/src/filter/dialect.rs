//! `filters` as it is written: a list of objects with one dialect each, and how it is compiled.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::cesql::Expression;
use super::texts::{Relation, Texts};
use super::{FilterError, Node};

/// How deep `all`, `any` and `not` may be nested.
pub const MAX_NESTED: usize = 16;
/// Most dialects in one `filters`, nested ones included.
pub const MAX_PARTS: usize = 1000;

/// One object of `filters`: exactly one of these is there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialect {
    /// Attributes whose texts are exactly these.
    pub exact: Option<BTreeMap<String, String>>,
    /// Attributes whose texts begin so.
    pub prefix: Option<BTreeMap<String, String>>,
    /// Attributes whose texts end so.
    pub suffix: Option<BTreeMap<String, String>>,
    /// All of these hold.
    pub all: Option<Vec<Dialect>>,
    /// One of these holds.
    pub any: Option<Vec<Dialect>>,
    /// This does not hold.
    pub not: Option<Box<Dialect>>,
    /// This expression is true.
    pub cesql: Option<String>,
}

/// Compiles a list of which all must hold.
pub(super) fn compile(filters: &[Dialect]) -> Result<Node, FilterError> {
    list(filters, 1, &mut 0).map(Node::All)
}

fn list(filters: &[Dialect], depth: usize, parts: &mut usize) -> Result<Box<[Node]>, FilterError> {
    let one = |(i, filter)| node(filter, depth, parts).map_err(|e| within(&format!("[{i}]"), e));
    filters.iter().enumerate().map(one).collect()
}

fn within(parent: &str, error: FilterError) -> FilterError {
    FilterError { field: format!("{parent}{}", error.field), ..error }
}

fn node(filter: &Dialect, depth: usize, parts: &mut usize) -> Result<Node, FilterError> {
    let wrong = |field: &str, why: String| FilterError { field: field.to_owned(), why };
    *parts += 1;
    if *parts > MAX_PARTS {
        return Err(wrong("", format!("is one part too many: {MAX_PARTS} are allowed")));
    }
    if depth > MAX_NESTED {
        return Err(wrong("", format!("is nested too deep: {MAX_NESTED} levels are allowed")));
    }
    let Dialect { exact, prefix, suffix, all, any, not, cesql } = filter;
    let there = [exact.is_some(), prefix.is_some(), suffix.is_some(), all.is_some(), any.is_some(), not.is_some()];
    let count = there.into_iter().filter(|there| *there).count() + usize::from(cesql.is_some());
    if count != 1 {
        let why = "needs exactly one of exact, prefix, suffix, all, any, not, cesql";
        return Err(wrong("", format!("{why}; here are {count}")));
    }
    let mut some = |field: &str, filters: &Vec<Dialect>| {
        if filters.is_empty() {
            return Err(wrong(field, "needs at least one filter".to_owned()));
        }
        list(filters, depth + 1, parts).map_err(|e| within(field, e))
    };
    if let Some(filters) = all {
        return some(".all", filters).map(Node::All);
    }
    if let Some(filters) = any {
        return some(".any", filters).map(Node::Any);
    }
    if let Some(filter) = not {
        return node(filter, depth + 1, parts).map(|node| Node::Not(Box::new(node))).map_err(|e| within(".not", e));
    }
    if let Some(text) = cesql {
        return expression(text).map(|expression| Node::Cesql(Box::new(expression))).map_err(|why| wrong(".cesql", why));
    }
    for (relation, given) in [(Relation::Exact, exact), (Relation::Prefix, prefix), (Relation::Suffix, suffix)] {
        if let Some(given) = given {
            return Texts::compile(relation, given).map(Node::Texts);
        }
    }
    Err(wrong("", "has no dialect".to_owned()))
}

/// An expression whose functions all exist: a call of one that does not would be an error for every event.
fn expression(text: &str) -> Result<Expression, String> {
    let expression = Expression::parse(text).map_err(|e| e.to_string())?;
    match expression.missing_function() {
        Some((span, why)) => Err(format!("{}: {why}", super::cesql::Place::of(text, span.start.into()))),
        None => Ok(expression),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{Event, StoredEvent, encode_event};
    use crate::filter::Filter;
    use crate::journal::{Epoch, Offset, Summary, Values};

    fn dialects(json: &str) -> Vec<Dialect> {
        serde_json::from_str(json).expect(json)
    }

    fn compile(json: &str) -> Result<Filter, FilterError> {
        Filter::dialects(&dialects(json))
    }

    fn event() -> StoredEvent {
        let event = Event::builder().id("1").source("/sensors/7").ty("com.example.hot").attribute("count", 5);
        stored(&event.attribute("good", true).build().expect("valid"))
    }

    fn stored(event: &Event) -> StoredEvent {
        let mut body = Vec::new();
        encode_event(&mut body, event, None, std::iter::empty());
        StoredEvent::new(body.into(), Epoch(1), Offset(0), None).expect("stored")
    }

    fn holds(json: &str) -> bool {
        compile(json).expect(json).judge(&event(), &mut String::new()).wanted
    }

    #[test]
    fn exact_prefix_and_suffix_compare_the_texts_of_attributes() {
        assert!(holds(r#"[{"exact":{"type":"com.example.hot","source":"/sensors/7"}}]"#));
        assert!(!holds(r#"[{"exact":{"type":"com.example.hot","source":"/sensors/8"}}]"#));
        assert!(!holds(r#"[{"exact":{"type":"com.example.HOT"}}]"#));
        assert!(holds(r#"[{"prefix":{"type":"com.","source":"/"}}]"#));
        assert!(!holds(r#"[{"prefix":{"type":"example"}}]"#));
        assert!(holds(r#"[{"suffix":{"type":".hot"}}]"#));
        assert!(!holds(r#"[{"suffix":{"type":".cold"}}]"#));
        for absent in ["exact", "prefix", "suffix"] {
            assert!(!holds(&format!(r#"[{{"{absent}":{{"subject":"x"}}}}]"#)));
        }
    }

    #[test]
    fn what_is_no_text_is_compared_by_its_canonical_form() {
        assert!(holds(r#"[{"exact":{"count":"5","good":"true"}}]"#));
        assert!(holds(r#"[{"prefix":{"good":"tr"}}]"#));
    }

    #[test]
    fn lists_hold_as_their_names_say() {
        let (yes, no) = (r#"{"prefix":{"type":"com."}}"#, r#"{"prefix":{"type":"org."}}"#);
        assert!(holds("[]"));
        assert!(holds(&format!("[{yes},{yes}]")));
        assert!(!holds(&format!("[{yes},{no}]")));
        assert!(holds(&format!(r#"[{{"all":[{yes},{yes}]}}]"#)));
        assert!(!holds(&format!(r#"[{{"all":[{yes},{no}]}}]"#)));
        assert!(holds(&format!(r#"[{{"any":[{no},{yes}]}}]"#)));
        assert!(!holds(&format!(r#"[{{"any":[{no},{no}]}}]"#)));
        assert!(holds(&format!(r#"[{{"not":{no}}}]"#)));
        assert!(!holds(&format!(r#"[{{"not":{{"not":{no}}}}}]"#)));
    }

    #[test]
    fn an_expression_that_meets_an_error_or_is_no_boolean_does_not_hold_and_is_counted() {
        let judge = |json: &str| compile(json).expect(json).judge(&event(), &mut String::new());
        for (json, wanted, faults) in [
            (r#"[{"cesql":"count = 5"}]"#, true, 0),
            (r#"[{"cesql":"count = 6"}]"#, false, 0),
            (r#"[{"cesql":"subject = 'x'"}]"#, false, 1),
            (r#"[{"cesql":"count"}]"#, false, 1),
            (r#"[{"cesql":"type"}]"#, false, 1),
            (r#"[{"cesql":"1 / 0 = 0"}]"#, false, 1),
            (r#"[{"any":[{"cesql":"subject = 'x'"},{"cesql":"good"}]}]"#, true, 1),
            (r#"[{"not":{"cesql":"subject = 'x'"}}]"#, true, 1),
        ] {
            let verdict = judge(json);
            assert_eq!((verdict.wanted, verdict.faults), (wanted, faults), "{json}");
        }
    }

    #[test]
    fn what_is_not_valid_is_refused_with_its_path() {
        for (json, field) in [
            ("[{}]", "[0]"),
            (r#"[{"exact":{"type":"a"},"prefix":{"type":"a"}}]"#, "[0]"),
            (r#"[{"exact":{}}]"#, "[0].exact"),
            (r#"[{"exact":{"type":"a"}},{"prefix":{"Type":"a"}}]"#, "[1].prefix[Type]"),
            (r#"[{"suffix":{"":"a"}}]"#, "[0].suffix[]"),
            (r#"[{"exact":{"type":""}}]"#, "[0].exact.type"),
            (r#"[{"all":[]}]"#, "[0].all"),
            (r#"[{"any":[{"exact":{"type":"a"}},{"not":{"any":[]}}]}]"#, "[0].any[1].not.any"),
            (r#"[{"cesql":"type ="}]"#, "[0].cesql"),
            (r#"[{"cesql":""}]"#, "[0].cesql"),
            (r#"[{"cesql":"type = 'a' OR FOO(1)"}]"#, "[0].cesql"),
        ] {
            assert_eq!(compile(json).expect_err(json).field, field, "{json}");
        }
        let why = compile(r#"[{"cesql":"type = 'a' OR FOO(1)"}]"#).expect_err("no such function").why;
        assert_eq!(why, "column 15: there is no function FOO that takes 1 arguments");
    }

    #[test]
    fn nesting_and_number_are_bounded() {
        let nested = |levels: usize| {
            let leaf = r#"{"exact":{"type":"a"}}"#.to_owned();
            let json = (1..levels).fold(leaf, |inner, _| format!(r#"{{"not":{inner}}}"#));
            compile(&format!("[{json}]"))
        };
        assert!(nested(MAX_NESTED).is_ok());
        assert!(nested(MAX_NESTED + 1).expect_err("too deep").why.contains("nested too deep"));
        let many = vec![r#"{"exact":{"type":"a"}}"#; MAX_PARTS + 1].join(",");
        assert!(compile(&format!("[{many}]")).expect_err("too many").why.contains("too many"));
    }

    /// A dialect over few attributes and values, so that events match at times.
    fn arbitrary() -> impl Strategy<Value = Dialect> {
        let map = || {
            let name = prop_oneof![Just("type"), Just("source"), Just("subject")].prop_map(str::to_owned);
            proptest::collection::btree_map(name, "[ab]{1,2}", 1..3)
        };
        let leaf = prop_oneof![
            map().prop_map(|map| Dialect { exact: Some(map), ..Dialect::default() }),
            map().prop_map(|map| Dialect { prefix: Some(map), ..Dialect::default() }),
            map().prop_map(|map| Dialect { suffix: Some(map), ..Dialect::default() }),
            ("[ab]", "[ab]").prop_map(|(ty, source)| {
                let cesql = format!("type = '{ty}' AND source LIKE '{source}%'");
                Dialect { cesql: Some(cesql), ..Dialect::default() }
            }),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            let some = proptest::collection::vec(inner.clone(), 1..3);
            prop_oneof![
                some.clone().prop_map(|all| Dialect { all: Some(all), ..Dialect::default() }),
                some.prop_map(|any| Dialect { any: Some(any), ..Dialect::default() }),
                inner.prop_map(|not| Dialect { not: Some(Box::new(not)), ..Dialect::default() }),
            ]
        })
    }

    /// What a dialect means.
    fn by_definition(filter: &Dialect, event: &Event) -> bool {
        let texts = |given: &BTreeMap<String, String>, holds: fn(&str, &str) -> bool| {
            given.iter().all(|(name, given)| event.get(name).is_some_and(|value| holds(&value.to_text(), given)))
        };
        match filter {
            Dialect { exact: Some(given), .. } => texts(given, |text, given| text == given),
            Dialect { prefix: Some(given), .. } => texts(given, |text, given| text.starts_with(given)),
            Dialect { suffix: Some(given), .. } => texts(given, |text, given| text.ends_with(given)),
            Dialect { all: Some(all), .. } => all.iter().all(|filter| by_definition(filter, event)),
            Dialect { any: Some(any), .. } => any.iter().any(|filter| by_definition(filter, event)),
            Dialect { not: Some(not), .. } => !by_definition(not, event),
            Dialect { cesql: Some(text), .. } => {
                let letters: Vec<&str> = text.split('\'').collect();
                event.ty() == letters[1] && event.source().starts_with(letters[3].trim_end_matches('%'))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn filters_hold_as_defined_and_segments_with_a_match_are_wanted(
            filters in proptest::collection::vec(arbitrary(), 0..3),
            (ty, source, subject) in ("[ab]{1,2}", "[ab]{1,2}", proptest::option::of("[ab]{1,2}")),
        ) {
            let mut event = Event::builder().id("1").source(source.as_str()).ty(ty.as_str());
            if let Some(subject) = subject {
                event = event.subject(subject);
            }
            let event = event.build().expect("valid");
            let filter = Filter::dialects(&filters).expect("valid");
            let wanted = filters.iter().all(|filter| by_definition(filter, &event));
            prop_assert_eq!(filter.judge(&stored(&event), &mut String::new()).wanted, wanted);
            let explanation = filter.explain(&stored(&event));
            prop_assert_eq!(explanation.wanted, wanted, "{}", explanation.why);
            let set = |value: &str| -> Values { Some([value.to_owned()].into_iter().collect()) };
            let summary = Summary { types: set(&ty), sources: set(&source), topics: None };
            prop_assert!(!wanted || filter.wants(&summary), "a segment with a match was ruled out");
        }
    }
}
