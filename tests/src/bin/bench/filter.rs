//! What one look of a Trigger's filter at one event costs, in the stored form in which the journal hands it out.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use godwit_mesh::event::{Event, MqttPublish, StoredEvent, encode_publish};
use godwit_mesh::filter::cesql::{Expression, tck};
use godwit_mesh::journal::{Epoch, Offset};

use crate::Extent;
use crate::table::{Row, median};

/// Evaluations between two looks at the clock: few, so that the fastest were not interrupted.
const TIMES: u32 = 500;

/// Nanoseconds of one evaluation, true and without an error.
pub(crate) fn evaluation(extent: Extent) -> Result<Vec<Row>> {
    let event = Event::builder().id("1").source("/sensors/7").ty("a").subject("x/7").data("application/json", "{}");
    let event = tck::stored(&event.build()?);
    let publish = MqttPublish { client_id: "pump-3", topic: "x/pump/3", payload: b"12.5", ..Default::default() };
    let mut body = Vec::new();
    encode_publish(&mut body, &publish, None);
    let publish = StoredEvent::new(body.into(), Epoch(1), Offset(1), None)?;
    let cases = [
        ("an event", "type = 'a' AND subject LIKE 'x%'", &event),
        ("a plain publish", "type = 'dev.godwit.mqtt.publish' AND subject LIKE 'x%'", &publish),
    ];
    let mut rows = Vec::new();
    for (what, text, event) in cases {
        let expression = Expression::parse(text)?;
        let mut scratch = String::new();
        let mut figures = Vec::new();
        for _ in 0..extent.runs {
            let (end, mut best) = (Instant::now() + extent.run / 4, f64::INFINITY);
            while Instant::now() < end {
                let begun = Instant::now();
                for _ in 0..TIMES {
                    anyhow::ensure!(black_box(expression.test(black_box(event), &mut scratch)) == Ok(true), "{text}");
                }
                best = best.min(begun.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES));
            }
            figures.push(best);
        }
        rows.push(Row {
            work: format!("CESQL `{text}` on {what}, one evaluation"),
            ours: String::new(),
            peer: String::new(),
            figure: format!("{:.0} ns", median(&figures)),
            floor: "200 ns",
            aim: "",
        });
    }
    Ok(rows)
}
