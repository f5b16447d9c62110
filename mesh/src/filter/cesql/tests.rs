//! What expressions mean, section by section of the specification, and that nothing breaks the parser or the evaluator.

use proptest::prelude::*;

use super::tck::stored;
use super::*;
use crate::event::{Event, EventBuilder, MqttPublish, Value as Attribute, encode_publish};
use crate::journal::{Epoch, Offset};

fn builder() -> EventBuilder {
    Event::builder().id("id-1").source("/sensors/7").ty("com.example.hot")
}

fn event() -> StoredEvent {
    let event = builder()
        .subject("größe")
        .attribute("n", 5)
        .attribute("text", "7")
        .attribute("yes", true)
        .attribute("bytes", Attribute::Binary(b"\0\xff".as_slice().into()));
    stored(&event.build().expect("valid"))
}

fn parse(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The value as text and the kinds of the errors.
fn eval(text: &str) -> (String, Vec<&'static str>) {
    let found = parse(text).evaluate(&event());
    (found.value.to_string(), found.errors.iter().map(|error| error.kind.name()).collect())
}

/// Each of these has this value, without an error.
fn are(cases: &[(&str, &str)]) {
    for (text, value) in cases {
        assert_eq!(eval(text), ((*value).to_owned(), Vec::new()), "{text}");
    }
}

/// Each of these has this value beside these errors.
fn fail(cases: &[(&str, &str, &[&'static str])]) {
    for (text, value, errors) in cases {
        assert_eq!(eval(text), ((*value).to_owned(), errors.to_vec()), "{text}");
    }
}

fn refused(text: &str) -> String {
    Expression::parse(text).expect_err(text).to_string()
}

#[test]
fn section_2_2_names_and_keywords_have_any_case_and_names_may_have_digits() {
    are(&[
        ("TYPE", "com.example.hot"),
        ("Exists Subject aNd eXistS id", "true"),
        ("tRue xor FALSE", "true"),
        ("left(type, 3)", "com"),
    ]);
    let digits = stored(&builder().attribute("1a", "x").build().expect("valid"));
    assert_eq!(parse("1a = 'x'").evaluate(&digits).value, Value::Boolean(true));
}

#[test]
fn section_2_2_integers_are_of_32_bits_and_strings_have_two_quotes() {
    are(&[
        ("-2147483648", "-2147483648"),
        ("+2147483647", "2147483647"),
        ("007", "7"),
        (r"'it\'s'", "it's"),
        (r#""it's""#, "it's"),
        (r#"'say "x"'"#, "say \"x\""),
        (r"'a\b'", r"a\b"),
        (r#"'a\"b'"#, r#"a\"b"#),
        (r"'a\\'", r"a\\"),
        ("''", ""),
    ]);
    assert_eq!(refused("2147483648"), "column 1: the number is not one of 32 bits with a sign");
    assert_eq!(refused("1 + -2147483649"), "column 5: the number is not one of 32 bits with a sign");
    assert_eq!(refused("99999999999999999999"), "column 1: the number is not one of 32 bits with a sign");
}

#[test]
fn a_parse_error_says_where_and_what() {
    for (text, error) in [
        ("", "column 1: the expression ends where a value is expected"),
        ("type =", "column 7: the expression ends where a value is expected"),
        ("type = 'a' subject", "column 12: an operator is missing before this"),
        ("größe = 'a'", "column 3: the character 'ö' has no place here"),
        ("'ö' = §", "column 7: the character '§' has no place here"),
        ("type =\n  'a", "line 2 column 3: the string that begins here has no closing '"),
        ("(type = 'a'", "column 12: a closing ) is missing"),
        ("type = 'a')", "column 11: this ) closes nothing"),
        ("ABS(", "column 5: the expression ends where a value is expected"),
        ("ABS(1", "column 6: a closing ) is missing"),
        ("ABS(1 2)", "column 7: a comma or a closing ) is missing before this"),
        ("x LIKE 123", "column 8: the pattern of LIKE must be a string, as in 'a%'"),
        ("x LIKE type", "column 8: the pattern of LIKE must be a string, as in 'a%'"),
        ("x IN 1", "column 6: IN needs a list, as in ('a', 'b')"),
        ("x IN ()", "column 7: the list of IN must not be empty"),
        ("x NOT = 1", "column 7: LIKE or IN is missing after this NOT"),
        ("EXISTS 'x'", "column 8: EXISTS needs the name of an attribute"),
        ("EXISTS true", "column 8: TRUE is a keyword and no attribute"),
        ("my_ext = 1", "column 1: \"my_ext\" cannot be the name of an attribute: letters and digits, and not data"),
        ("data = 1", "column 1: \"data\" cannot be the name of an attribute: letters and digits, and not data"),
        ("AND 1", "column 1: AND needs a value before it"),
        ("1 ! 2", "column 3: a single ! means nothing; write NOT, or != for not equal"),
        ("+ 1", "column 1: a + needs a value before it"),
        ("f1(2)", "column 1: \"f1\" cannot be the name of a function: letters and underscores"),
        ("'it''s'", "column 5: an operator is missing before this string; inside of one a quote is written \\'"),
    ] {
        assert_eq!(refused(text), error, "{text}");
    }
}

#[test]
fn section_3_2_a_missing_attribute_gives_its_operator_the_zero_value_of_its_type() {
    fail(&[
        ("missing", "false", &["missingAttribute"]),
        ("missing = ''", "false", &["missingAttribute"]),
        ("missing != 'x'", "false", &["missingAttribute"]),
        ("missing * 5", "0", &["missingAttribute"]),
        ("1 / missing", "0", &["missingAttribute"]),
        ("missing1 + missing2", "0", &["missingAttribute", "missingAttribute"]),
        ("-missing", "0", &["missingAttribute"]),
        ("NOT missing", "false", &["missingAttribute"]),
        ("missing LIKE '%'", "false", &["missingAttribute"]),
        ("missing NOT LIKE 'x'", "false", &["missingAttribute"]),
        ("missing IN ('x')", "false", &["missingAttribute"]),
        ("'x' NOT IN (missing)", "false", &["missingAttribute"]),
        ("LENGTH(missing)", "0", &["missingAttribute"]),
        ("CONCAT('a', missing)", "", &["missingAttribute"]),
        ("BOOL(missing)", "false", &["missingAttribute"]),
        ("IS_INT(missing)", "false", &["missingAttribute"]),
        ("true AND (missing = '')", "false", &["missingAttribute"]),
        ("missing OR true", "false", &["missingAttribute"]),
    ]);
    are(&[("EXISTS missing", "false"), ("NOT EXISTS missing", "true"), ("false AND missing", "false")]);
}

#[test]
fn section_3_2_attributes_have_their_type_and_all_else_is_a_string() {
    are(&[
        ("n + 1", "6"),
        ("yes", "true"),
        ("bytes", "AP8="),
        ("bytes = 'AP8='", "true"),
        ("source", "/sensors/7"),
        ("specversion = '1.0'", "true"),
        ("n = '5'", "true"),
        ("text = 7", "true"),
    ]);
}

#[test]
fn section_3_4_2_arithmetic_is_of_32_bits_and_says_when_it_is_not_enough() {
    are(&[
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("7 % -3", "1"),
        ("-7 % 3", "-1"),
        ("-2147483648 % -1", "0"),
        ("2 + 3 * 4 - 5", "9"),
        ("10 - 3 - 2", "5"),
        ("100 / 10 / 2", "5"),
        ("4 -1", "3"),
        ("4-1", "3"),
        ("4 - -1", "5"),
        ("--10", "10"),
        ("- 10", "-10"),
    ]);
    fail(&[
        ("2147483647 + 1", "0", &["math"]),
        ("-2147483648 - 1", "0", &["math"]),
        ("65536 * 65536", "0", &["math"]),
        ("-2147483648 / -1", "0", &["math"]),
        ("-(-2147483648)", "0", &["math"]),
        ("1 / 0", "0", &["math"]),
        ("1 % 0", "0", &["math"]),
        ("1 / 0 + 1 % 0", "0", &["math", "math"]),
        ("'x' + 1", "0", &["cast"]),
        ("ABS(-2147483648)", "2147483647", &["math"]),
    ]);
}

#[test]
fn section_3_4_2_and_and_or_look_no_further_than_they_must() {
    are(&[
        ("false AND 1 / 0 = 0", "false"),
        ("true OR 1 / 0 = 0", "true"),
        ("false AND missing OR true", "true"),
        ("yes AND n = 5 AND type = 'com.example.hot'", "true"),
    ]);
    fail(&[
        ("true AND 1 / 0 = 0", "false", &["math"]),
        ("false OR missing = 1", "false", &["missingAttribute"]),
        ("missing = 1 AND 1 / 0 = 0", "false", &["missingAttribute"]),
        ("true XOR missing", "false", &["missingAttribute"]),
        ("'x' AND true", "false", &["cast"]),
    ]);
}

#[test]
fn section_3_6_operators_of_one_level_are_taken_from_the_left() {
    are(&[
        ("true OR false AND false", "false"),
        ("true OR (false AND false)", "true"),
        ("true XOR true OR true", "true"),
        ("1 = 1 = true", "true"),
        ("1 < 2 = 1", "true"),
        ("1 + 1 = 2 AND 2 * 2 > 3", "true"),
    ]);
}

#[test]
fn section_3_6_unary_operators_bind_most_tightly_then_like_and_in() {
    are(&[
        ("NOT false = true", "true"),
        ("NOT yes LIKE 'fal%'", "true"),
        ("NOT (yes LIKE 'fal%')", "true"),
        ("NOT EXISTS missing AND EXISTS id", "true"),
        ("-n + 6", "1"),
        ("-2 IN (-2, 3)", "true"),
        ("1 + 1 IN (1)", "2"),
        ("(1 + 1) IN (2)", "true"),
        ("type LIKE 'com%' IN (true)", "true"),
    ]);
}

#[test]
fn section_3_7_equality_takes_the_type_on_its_right_and_in_the_one_on_its_left() {
    are(&[
        ("'TRUE' = true", "true"),
        ("true = 'TRUE'", "false"),
        ("true = 'true'", "true"),
        ("2 = true", "true"),
        ("true = 2", "false"),
        ("'05' = 5", "true"),
        ("5 = '05'", "false"),
        ("'05' IN (5)", "false"),
        ("5 IN ('05')", "true"),
        ("'5' NOT IN (5, 6)", "false"),
        ("n IN (1, 2, 5)", "true"),
        ("1 IN (1, missing)", "true"),
    ]);
    fail(&[
        ("'x' = 1", "false", &["cast"]),
        ("'x' != 1", "false", &["cast"]),
        ("'x' = true", "false", &["cast"]),
        ("1 IN ('x', 1)", "false", &["cast"]),
        ("1 IN (missing, 1)", "false", &["missingAttribute"]),
        ("'x' < 1", "false", &["cast"]),
    ]);
}

#[test]
fn section_3_7_casts() {
    are(&[
        ("INT('-5')", "-5"),
        ("INT('+5')", "5"),
        ("INT(true)", "1"),
        ("BOOL(0)", "false"),
        ("BOOL(-3)", "true"),
        ("BOOL('tRuE')", "true"),
        ("NOT 10", "false"),
        ("STRING(-5)", "-5"),
        ("STRING(false)", "false"),
        ("IS_INT('12')", "true"),
        ("IS_INT('1x')", "false"),
        ("IS_INT(true)", "true"),
        ("IS_BOOL('False')", "true"),
        ("IS_BOOL('no')", "false"),
        ("IS_BOOL(7)", "true"),
        ("CONCAT(n + 10, yes)", "15true"),
    ]);
    fail(&[
        ("INT('')", "0", &["cast"]),
        ("INT(' 5')", "0", &["cast"]),
        ("INT('2147483648')", "0", &["cast"]),
        ("BOOL('yes')", "false", &["cast"]),
    ]);
}

#[test]
fn section_3_5_functions_count_characters() {
    are(&[
        ("LENGTH(subject)", "5"),
        ("UPPER(subject)", "GRÖSSE"),
        ("LOWER('GRÖẞE')", "größe"),
        ("LEFT(subject, 3)", "grö"),
        ("RIGHT(subject, 3)", "öße"),
        ("LEFT(subject, 0)", ""),
        ("RIGHT(subject, 99)", "größe"),
        ("SUBSTRING(subject, 3)", "öße"),
        ("SUBSTRING(subject, 3, 2)", "öß"),
        ("SUBSTRING(subject, -2, 99)", "ße"),
        ("SUBSTRING(subject, 5, 0)", ""),
        ("SUBSTRING(subject, -5)", "größe"),
        ("TRIM('\u{3000} a b \u{a0}')", "a b"),
        ("CONCAT_WS('-', type, n, true)", "com.example.hot-5-true"),
        ("CONCAT_WS(CONCAT('<', '>'), CONCAT('a', n), UPPER('b'), CONCAT())", "a5<>B<>"),
        ("CONCAT(UPPER('a'), LOWER('B'), CONCAT('c', UPPER('d')), 'e')", "AbcDe"),
        ("TRIM(CONCAT(' x ', ' y '))", "x  y"),
        ("LEFT(CONCAT('ab', 'cd'), 3)", "abc"),
        ("CONCAT('a', 'b') = CONCAT('', 'ab')", "true"),
        ("ABS('-5')", "5"),
    ]);
    fail(&[
        ("LEFT('abc', -1)", "abc", &["functionEvaluation"]),
        ("RIGHT('abc', -1)", "abc", &["functionEvaluation"]),
        ("SUBSTRING('abc', 4)", "", &["functionEvaluation"]),
        ("SUBSTRING('abc', -4)", "", &["functionEvaluation"]),
        ("SUBSTRING('abc', 1, -1)", "", &["functionEvaluation"]),
        ("SUBSTRING('', 1)", "", &["functionEvaluation"]),
        ("SUBSTRING('abc', -2147483648)", "", &["functionEvaluation"]),
        ("LEFT('abc', 'x')", "", &["cast"]),
        ("CONCAT_WS(missing, 1 / 0)", "", &["missingAttribute", "math"]),
        ("FOO(1)", "false", &["missingFunction"]),
        ("LENGTH('a', 'b')", "false", &["missingFunction"]),
        ("CONCAT_WS()", "false", &["missingFunction"]),
    ]);
}

#[test]
fn an_error_in_words_says_what_and_where() {
    let found = parse("subject = 'x' OR LENGTH(missing) > 3").evaluate(&event());
    let [error] = &*found.errors else { panic!("{found:?}") };
    assert_eq!(error.to_string(), "missingAttribute: the event has no attribute missing");
    assert_eq!((error.span.start, error.span.end), (24, 31));
    let cast = parse("type > 3").evaluate(&event());
    assert_eq!(cast.errors[0].to_string(), "cast: 'com.example.hot' is no whole number of 32 bits");
}

#[test]
fn attributes_of_a_wrapped_publish_are_derived_and_may_stand_beside_each_other() {
    let publish = MqttPublish { client_id: "pump 3", topic: "plant/pump/3", payload: b"1", ..Default::default() };
    let mut body = Vec::new();
    encode_publish(&mut body, &publish, Some(1_767_225_600_250));
    let event = StoredEvent::new(body.into(), Epoch(1), Offset(7), None).expect("stored");
    for text in [
        "type = 'dev.godwit.mqtt.publish' AND subject LIKE 'plant/%'",
        "source = '/mqtt/pump%203'",
        "CONCAT(source, ' ', time) = '/mqtt/pump%203 2026-01-01T00:00:00.250Z'",
        "source != id AND EXISTS time AND source = source",
    ] {
        assert_eq!(parse(text).test(&event, &mut String::new()), Ok(true), "{text}");
    }
}

#[test]
fn a_filter_stops_at_the_first_error_and_wants_a_boolean() {
    let test = |text: &str| parse(text).test(&event(), &mut String::new());
    assert_eq!(test("n = 5"), Ok(true));
    assert_eq!(test("n = 6"), Ok(false));
    assert_eq!(test("n"), Err(Fault::NoBoolean(Type::Integer)));
    assert_eq!(test("type"), Err(Fault::NoBoolean(Type::String)));
    assert_eq!(test("missing = 1 OR 1 / 0 = 1"), Err(Fault::Error(ErrorKind::MissingAttribute)));
    assert_eq!(test("1 / 0 = 1 OR missing = 1"), Err(Fault::Error(ErrorKind::Math)));
    assert_eq!(test("true OR missing = 1"), Ok(true));
}

#[test]
fn what_an_expression_requires_of_an_event_is_found_in_its_leading_operands() {
    let required = |text: &str, name: &str| parse(text).required(name).map(str::to_owned);
    assert_eq!(required("type = 'a'", "type").as_deref(), Some("a"));
    assert_eq!(required("'a' = type AND subject LIKE 'x%'", "type").as_deref(), Some("a"));
    assert_eq!(required("source = 's' AND type = 'a' AND x = 1", "type").as_deref(), Some("a"));
    assert_eq!(required("x = 'y' AND type = 'a'", "type"), None, "x may be missing");
    assert_eq!(required("type = 'a' OR type = 'b'", "type"), None);
    assert_eq!(required("type != 'a'", "type"), None);
    assert_eq!(required("NOT (type = 'a')", "type"), None);
    assert_eq!(required("type = 'a' AND x OR y", "type"), None);
}

#[test]
fn size_and_nesting_are_bounded() {
    let nested = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
    assert!(Expression::parse(&nested(MAX_DEPTH - 1)).is_ok());
    assert_eq!(refused(&nested(MAX_DEPTH)), "column 65: the expression is nested more than 64 deep");
    for deep in [
        "NOT ".repeat(2000) + "true",
        "-".repeat(4000) + "x",
        "ABS(".repeat(2000),
        "1".to_owned() + &" LIKE 'x'".repeat(800),
    ] {
        assert!(refused(&deep).contains("nested more than"), "{}", &deep[..20]);
    }
    let long = |n: usize| vec!["n = 5"; n].join(" AND ");
    assert_eq!(eval(&long(800)).0, "true", "a long row is not deep");
    assert!(refused(&long(1000)).contains("8192 are allowed"));
}

#[test]
fn texts_that_are_made_are_bounded() {
    let big = stored(&builder().attribute("big", "x".repeat(60_000)).build().expect("valid"));
    let text = format!("LENGTH(CONCAT({}))", vec!["big"; 100].join(","));
    let found = parse(&text).evaluate(&big);
    assert_eq!((found.value, found.errors[0].kind), (Value::Integer(0), ErrorKind::Generic));
    let text = format!("LENGTH(CONCAT({}))", ["big"; 10].join(","));
    assert_eq!(parse(&text).evaluate(&big).value, Value::Integer(600_000));
}

/// Texts of expressions, every part in parentheses.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z][a-z0-9]{0,3}".prop_filter("no keyword", |name| Expression::parse(name).is_ok()),
        any::<i32>().prop_map(|n| n.to_string()),
        prop_oneof![Just("true".to_owned()), Just("FALSE".to_owned())],
        "[a-zé%_ ]{0,4}".prop_map(|text| format!("'{text}'")),
        Just(r#""a\"'b""#.to_owned()),
        Just(r"'\\\'x'".to_owned()),
        prop_oneof![Just("EXISTS id".to_owned()), Just("EXISTS x".to_owned())],
    ];
    let operator = || {
        let all = ["AND", "OR", "XOR", "=", "!=", "<>", "<", "<=", ">", ">=", "+", "-", "*", "/", "%"];
        proptest::sample::select(all.to_vec())
    };
    leaf.prop_recursive(5, 40, 4, move |inner| {
        let some = proptest::collection::vec(inner.clone(), 1..4);
        let function = proptest::sample::select(vec!["CONCAT", "CONCAT_WS", "UPPER", "LEFT", "SUBSTRING", "INT", "FOO"]);
        prop_oneof![
            (inner.clone(), operator(), inner.clone()).prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
            (inner.clone(), operator(), inner.clone(), inner.clone())
                .prop_map(|(a, op, b, c)| format!("({a}) {op} ({b}) {op} {c}")),
            inner.clone().prop_map(|a| format!("NOT ({a})")),
            inner.clone().prop_map(|a| format!("-({a})")),
            (inner.clone(), "[ab%_]{0,3}").prop_map(|(a, pattern)| format!("({a}) LIKE '{pattern}'")),
            (inner.clone(), r#"[ab%_]{0,3}\\\\_"#).prop_map(|(a, pattern)| format!("({a}) NOT LIKE \"{pattern}\"")),
            (inner, some.clone()).prop_map(|(a, set)| format!("({a}) NOT IN ({})", set.join(", "))),
            (function, some).prop_map(|(name, arguments)| format!("{name}({})", arguments.join(", "))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(text in expressions()) {
        let expression = parse(&text);
        let printed = expression.to_string();
        prop_assert_eq!(&parse(&printed), &expression, "{} printed as {}", text, printed);
    }

    #[test]
    fn every_expression_has_a_value_and_a_filter_agrees_with_it(text in expressions()) {
        let (expression, event) = (parse(&text), event());
        let found = expression.evaluate(&event);
        let tested = expression.test(&event, &mut String::new());
        match (&*found.errors, found.value) {
            ([], Value::Boolean(value)) => prop_assert_eq!(tested, Ok(value)),
            ([], other) => prop_assert_eq!(tested, Err(Fault::NoBoolean(other.type_of()))),
            ([first, ..], _) => prop_assert_eq!(tested, Err(Fault::Error(first.kind))),
        }
    }

    #[test]
    fn no_text_breaks_the_parser(text in ".{0,60}") {
        let _ = Expression::parse(&text);
    }

    #[test]
    fn no_row_of_words_breaks_the_parser_or_the_evaluator(words in proptest::collection::vec(
        proptest::sample::select(vec!["(", ")", ",", "AND", "NOT", "LIKE", "IN", "EXISTS", "'a%'", "-", "+", "1", "n", "=", "<", "ABS", "true"]), 0..20)) {
        if let Ok(expression) = Expression::parse(&words.join(" ")) {
            let _ = expression.evaluate(&event());
            prop_assert_eq!(&parse(&expression.to_string()), &expression);
        }
    }
}
