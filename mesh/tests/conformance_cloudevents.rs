//! The HTTP scenarios and the sample events of the CloudEvents conformance repository, read from the shared folder
//! (`GODWIT_SHARED`, else `shared` beside the repository). Without them the tests say so and are skipped.

use std::path::PathBuf;

use bytes::Bytes;
use godwit_mesh::event::http::{self as binding, Decoded};
use godwit_mesh::event::{Event, EventError, Limits, cbor, json};
use http::{HeaderMap, HeaderName, HeaderValue};

fn read(file: &str) -> Option<String> {
    let shared = match std::env::var_os("GODWIT_SHARED") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let path = shared.join("conformance/cloudevents").join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            eprintln!("skipped: {}: {error}", path.display());
            None
        }
    }
}

/// One scenario with one row of its examples filled in.
struct Scenario {
    name: String,
    request: String,
    attributes: Vec<(String, String)>,
    data: String,
}

/// Reads the few words of Gherkin that the file uses.
fn scenarios(feature: &str) -> Vec<Scenario> {
    let mut found = Vec::new();
    for outline in feature.split("Scenario Outline:").skip(1) {
        let (body, examples) = outline.split_once("Examples:").expect("an outline has examples");
        for value in examples.lines().filter_map(cells).skip(1).filter_map(|row| row.into_iter().next()) {
            let body = body.replace("<contentType>", &value);
            let mut texts = body.split("\"\"\"");
            let name = texts.next().unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned();
            let request = texts.next().expect("a request").to_owned();
            let attributes = texts.next().expect("attributes").lines().filter_map(cells).skip(1);
            let attributes = attributes.map(|row| (row[0].clone(), row[1].clone())).collect();
            found.push(Scenario { name, request, attributes, data: texts.next().expect("data").to_owned() });
        }
    }
    found
}

/// The cells of a row of a table.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

/// Parses a request as it stands in a scenario: indented, with a request line.
fn request(text: &str) -> (HeaderMap, Bytes) {
    let indent = text.lines().filter(|line| !line.trim().is_empty()).map(|line| line.len() - line.trim_start().len()).min();
    let lines = text.lines().skip(1).map(|line| line.get(indent.unwrap_or(0)..).unwrap_or_default());
    let text = lines.collect::<Vec<_>>().join("\n");
    let (head, body) = text.split_once("\n\n").expect("an empty line after the headers");
    let mut headers = HeaderMap::new();
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(':').expect("a header");
        headers.append(
            HeaderName::try_from(name.trim()).expect("a header name"),
            HeaderValue::from_str(value.trim()).expect("a header value"),
        );
    }
    (headers, Bytes::from(body.trim_end().to_owned()))
}

fn one(decoded: Result<Decoded, EventError>) -> Event {
    match decoded {
        Ok(Decoded::One(event)) => event,
        other => panic!("not one event: {other:?}"),
    }
}

fn text(event: &Event, name: &str) -> Option<String> {
    event.get(name).map(|value| value.to_text().into_owned())
}

#[test]
fn the_scenarios_of_the_http_binding_hold() {
    let Some(feature) = read("http-protocol-binding.feature") else { return };
    let scenarios = scenarios(&feature);
    assert_eq!(scenarios.len(), 4, "all scenarios are found");
    for scenario in scenarios {
        let (headers, body) = request(&scenario.request);
        let event = one(binding::decode(&headers, body, &Limits::default()));
        for (name, value) in &scenario.attributes {
            assert_eq!(text(&event, name).as_ref(), Some(value), "{}: {name}", scenario.name);
        }
        let json = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
        assert_eq!(json(event.data().expect("data")), json(scenario.data.as_bytes()), "{}", scenario.name);
    }
}

/// The attributes and data of the sample events in a file.
fn samples(text: &str) -> Vec<(Vec<(String, String)>, String)> {
    let documents = text.split("\n---").filter(|document| document.contains("ContextAttributes"));
    let samples = documents.map(|document| {
        let document: serde_json::Value = serde_saphyr::from_str(document).expect("YAML");
        let mut attributes = Vec::new();
        for (name, value) in document["ContextAttributes"].as_object().expect("attributes") {
            match value {
                serde_json::Value::Object(extensions) => attributes.extend(extensions.iter().map(attribute)),
                _ => attributes.push(attribute((name, value))),
            }
        }
        (attributes, document["Data"].as_str().unwrap_or_default().to_owned())
    });
    samples.collect()
}

fn attribute((name, value): (&String, &serde_json::Value)) -> (String, String) {
    let text = value.as_str().map_or_else(|| value.to_string(), |text| text.trim_end().to_owned());
    (name.clone(), text)
}

/// The sample's attributes as the headers of a request in binary mode.
fn headers(attributes: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in attributes {
        let name = if name == "datacontenttype" { "content-type".to_owned() } else { format!("ce-{name}") };
        headers.insert(
            HeaderName::try_from(name).expect("a header name"),
            HeaderValue::from_str(value).expect("a header value"),
        );
    }
    headers
}

#[test]
fn the_samples_of_version_1_0_pass_through_every_codec() {
    let mut count = 0;
    for file in ["v1.yaml", "v1_minimum.yaml"] {
        let Some(yaml) = read(file) else { return };
        for (attributes, data) in samples(&yaml) {
            count += 1;
            let event = one(binding::decode(&headers(&attributes), Bytes::from(data.clone()), &Limits::default()));
            for (name, value) in &attributes {
                assert_eq!(text(&event, name).as_ref(), Some(value), "{file}: {name}");
            }
            assert_eq!(event.data().map(|bytes| &bytes[..]), Some(data.as_bytes()));
            let (headers, body) = binding::binary(&event);
            assert_eq!(text(&one(binding::decode(&headers, body, &Limits::default())), "id").as_deref(), Some(event.id()));
            let structured = json::decode(&json::encode(&event).into(), &Limits::default()).expect("valid");
            // In JSON the white space around a JSON payload is not part of it.
            assert_eq!(structured.data().map(|data| data.trim_ascii()), event.data().map(|data| data.trim_ascii()));
            assert_eq!(structured.attributes().count(), event.attributes().count());
            let binary = cbor::decode(&cbor::encode(&event).into(), &Limits::default()).expect("valid");
            assert_eq!((binary.id(), binary.data()), (event.id(), event.data()));
        }
    }
    assert!(count >= 8, "all samples are found, not {count}");
}

#[test]
fn the_samples_of_version_0_3_are_refused_by_name() {
    let mut count = 0;
    for file in ["v03.yaml", "v03_minimum.yaml"] {
        let Some(yaml) = read(file) else { return };
        for (attributes, data) in samples(&yaml) {
            count += 1;
            let refused =
                binding::decode(&headers(&attributes), Bytes::from(data), &Limits::default()).expect_err("refused");
            assert_eq!(refused.to_string(), "specversion \"0.3\" is not supported: send CloudEvents 1.0");
        }
    }
    assert!(count > 0, "samples are found");
}
