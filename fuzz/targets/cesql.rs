//! An expression, and behind the first line end an event in JSON to run it on: read or refused; printed, it reads as the same; it
//! has a value, and the filter agrees with it.
#![no_main]

use godwit_mesh::event::{Event, Limits, json};
use godwit_mesh::filter::cesql::{Expression, Fault, Value, tck};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(input) = std::str::from_utf8(input) else { return };
    let (text, event) = input.split_once('\n').unwrap_or((input, ""));
    let Ok(expression) = Expression::parse(text) else { return };
    let printed = expression.to_string();
    assert_eq!(Expression::parse(&printed).as_ref(), Ok(&expression), "{printed}");
    let event = json::decode(&event.to_owned().into_bytes().into(), &Limits::default()).unwrap_or_else(|_| {
        Event::builder().id("1").source("/s").ty("t").subject("x").attribute("n", 5).build().expect("valid")
    });
    let event = tck::stored(&event);
    let found = expression.evaluate(&event);
    let expected = match (found.errors.first(), &found.value) {
        (Some(error), _) => Err(Fault::Error(error.kind)),
        (None, Value::Boolean(value)) => Ok(*value),
        (None, other) => Err(Fault::NoBoolean(other.type_of())),
    };
    assert_eq!(expression.test(&event, &mut String::new()), expected);
});
