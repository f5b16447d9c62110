//! What is taken and what is refused, and with which words.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;

const TRIGGER: &str = "\
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata:
  name: t
  labels: {eventing.knative.dev/broker: default}
  creationTimestamp: null
spec:
  broker: default
  filter:
    attributes: {type: a, myextension: \"\"}
  subscriber:
    ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: other}
    uri: /path
  delivery: {retry: 3, backoffPolicy: linear, backoffDelay: PT0.2S, timeout: PT5S, retryAfterMax: PT0S, format: binary}
";

fn one(yaml: &str) -> Result<Object, ManifestError> {
    parse_str("f.yaml", yaml).map(|objects| objects.into_iter().next().expect("one object"))
}

/// The field and reason with which the manifest above is refused after a change.
fn refused(from: &str, to: &str) -> (String, String) {
    assert!(TRIGGER.contains(from), "{from}");
    let error = one(&TRIGGER.replace(from, to)).expect_err(to);
    assert_eq!(error.file, "f.yaml");
    (error.field.unwrap_or_default(), error.why)
}

#[test]
fn a_trigger_as_knative_writes_it_is_read() {
    let object = one(TRIGGER).expect("valid");
    assert_eq!(object.to_string(), "Trigger default/t");
    let Spec::Trigger(trigger) = object.spec() else { panic!("a Trigger") };
    assert_eq!(trigger.broker.to_string(), "default/default");
    let delivery = trigger.delivery.as_ref().expect("written");
    assert_eq!((delivery.retry, delivery.backoff_policy), (Some(3), Some(BackoffPolicy::Linear)));
    assert_eq!(delivery.backoff_delay.map(IsoDuration::as_millis), Some(200));
    assert_eq!(trigger.subscriber.uri.as_deref(), Some("/path"));
}

#[test]
fn an_unknown_field_is_an_error_with_its_full_path() {
    for (from, to, field) in [
        ("  broker: default\n  filter", "  broker: default\n  brokr: x\n  filter", "spec.brokr"),
        ("    uri: /path", "    url: /path", "spec.subscriber.url"),
        ("kind: Broker, name: other}", "kind: Broker, name: other, nam: x}", "spec.subscriber.ref.nam"),
        ("{retry: 3", "{retries: 3", "spec.delivery.retries"),
        ("  name: t\n", "  name: t\n  annotation: {}\n", "metadata.annotation"),
        ("    attributes: {type: a, myextension: \"\"}", "    attribute: {type: a}", "spec.filter.attribute"),
        ("  filter:\n", "  filters: [{all: [{regex: {type: a}}]}]\n  filter:\n", "spec.filters[0].all[0].regex"),
        ("spec:\n", "extra: 1\nspec:\n", "extra"),
    ] {
        let (at, why) = refused(from, to);
        assert_eq!(at, field, "{why}");
        assert!(why.contains("unknown field"), "{why}");
    }
}

#[test]
fn a_wrong_value_is_an_error_that_names_the_field() {
    for (from, to, field) in [
        ("retry: 3", "retry: -1", "spec.delivery.retry"),
        ("retry: 3", "retry: many", "spec.delivery.retry"),
        ("PT0.2S", "200ms", "spec.delivery.backoffDelay"),
        ("timeout: PT5S", "timeout: PT0S", "spec.delivery.timeout"),
        ("linear", "random", "spec.delivery.backoffPolicy"),
        ("format: binary", "format: xml", "spec.delivery.format"),
        ("uri: /path", "uri: http://absolute/", "spec.subscriber.uri"),
        ("type: a", "Type: a", "spec.filter.attributes[Type]"),
        ("type: a", "type: 5", "spec.filter.attributes[type]"),
        ("broker: default\n", "broker: Default\n", "spec.broker"),
        ("broker: default\n  filter", "filter", "spec.broker"),
        ("broker: default\n", "broker: default\n  brokerRef: {kind: Broker, name: b}\n", "spec.brokerRef"),
        ("name: t", "name: T", "metadata.name"),
        ("  labels", "  annotations: {godwit.dev/hold: \"maybe\"}\n  labels", "metadata.annotations[godwit.dev/hold]"),
        ("  filter:\n", "  filters: [{exact: {Type: a}}]\n  filter:\n", "spec.filters[0].exact[Type]"),
        ("  filter:\n", "  filters: [{exact: {type: 5}}]\n  filter:\n", "spec.filters[0].exact.type"),
        ("  filter:\n", "  filters: [{any: [{not: {}}]}]\n  filter:\n", "spec.filters[0].any[0].not"),
        ("  filter:\n", "  filters: [{cesql: \"type = \"}]\n  filter:\n", "spec.filters[0].cesql"),
        ("  filter:\n", "  filters: {exact: {type: a}}\n  filter:\n", "spec.filters"),
        ("kind: Trigger", "kind: Sequence", "apiVersion"),
        ("kind: Trigger", "kind: Pod", "kind"),
        ("eventing.knative.dev/v1\nkind: T", "eventing.knative.dev/v2\nkind: T", "apiVersion"),
    ] {
        let (at, why) = refused(from, to);
        assert_eq!(at, field, "{to}: {why}");
    }
}

#[test]
fn filters_win_over_filter_where_they_are_not_empty() {
    let filter = |filters: &str| {
        let yaml = TRIGGER.replace("  filter:\n", &format!("  filters: {filters}\n  filter:\n"));
        match one(&yaml).expect(filters).spec() {
            Spec::Trigger(trigger) => trigger.filter.clone(),
            _ => panic!("a Trigger"),
        }
    };
    let attributes = BTreeMap::from([("type".to_owned(), "a".to_owned()), ("myextension".to_owned(), String::new())]);
    assert_eq!(filter("[]"), crate::filter::Filter::attributes(&attributes).expect("valid"));
    let prefix = r#"[{"prefix": {"type": "b"}}]"#;
    let dialects: Vec<crate::filter::Dialect> = serde_json::from_str(prefix).expect("valid");
    assert_eq!(filter(prefix), crate::filter::Filter::dialects(&dialects).expect("valid"));
}

#[test]
fn a_uri_must_be_absolute_and_of_a_scheme_that_is_built() {
    let uri = |uri: &str| {
        let from = "    ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: other}\n    uri: /path";
        one(&TRIGGER.replace(from, &format!("    uri: \"{uri}\""))).map(|_| ()).map_err(|e| e.why)
    };
    assert_eq!(uri("https://sink.example:8443/in?x=1"), Ok(()));
    assert_eq!(uri("mqtt:///boiler/{subject}"), Ok(()));
    for bad in ["/relative", "sink:8080", "mqtt://host/topic", "http://", "ftp://x/"] {
        assert!(uri(bad).is_err(), "{bad}");
    }
}

#[test]
fn null_is_absent_and_status_is_ignored() {
    let nulls =
        TRIGGER.replace("  filter:\n    attributes: {type: a, myextension: \"\"}", "  filter: null\n  filters: null");
    let object = one(&(nulls + "status: {anything: [goes]}\n")).expect("valid");
    let Spec::Trigger(trigger) = object.spec() else { panic!("a Trigger") };
    assert_eq!(trigger.filter, crate::filter::Filter::attributes(&BTreeMap::new()).expect("valid"));
    assert!(object.original().get("status").is_some(), "the original stays as it was written");
}

#[test]
fn a_broker_needs_no_spec_and_says_when_its_class_is_not_ours() {
    let broker = |class: &str| {
        let yaml = format!(
            "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata:\n  name: b\n  namespace: site-1\n  annotations:\n    \
             eventing.knative.dev/broker.class: {class}\n    godwit.dev/uplink: \"false\"\n"
        );
        match one(&yaml).expect("valid").spec() {
            Spec::Broker(broker) => broker.clone(),
            _ => panic!("a Broker"),
        }
    };
    let ours = broker("MTChannelBasedBroker");
    assert_eq!((ours.name.to_string().as_str(), ours.foreign_class.as_deref(), ours.uplink()), ("site-1/b", None, false));
    assert_eq!(broker("Kafka").foreign_class.as_deref(), Some("Kafka"));
}

#[test]
fn several_documents_lists_and_empty_ones_are_read_and_errors_name_their_place() {
    let list = format!(
        "---\n# nothing\n---\n{TRIGGER}---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: eventing.knative.dev/v1\n  \
         kind: Broker\n  metadata: {{name: b}}\n"
    );
    assert_eq!(parse_str("f.yaml", &list).expect("valid").len(), 2);
    let error = parse_str("f.yaml", &format!("{TRIGGER}---\n- 1\n")).expect_err("no object");
    assert!(error.to_string().starts_with("f.yaml: document 2: is not an object"), "{error}");
    assert!(parse_str("f.yaml", "a: [").is_err());
    assert!(parse_str("f.yaml", "a: 1\na: 2").is_err(), "a key twice");
}

#[test]
fn in_a_set_the_last_of_a_name_wins_with_a_warning() {
    let second = TRIGGER.replace("type: a", "type: b");
    let set = Manifests::new(parse_str("f.yaml", &format!("{TRIGGER}---\n{second}")).expect("valid")).expect("a set");
    assert_eq!((set.len(), set.warnings().len()), (1, 1));
    let kept = set.objects().next().expect("one");
    assert_eq!(kept.original().pointer("/spec/filter/attributes/type"), Some(&"b".into()));
}

#[test]
fn a_set_is_read_back_from_its_json_as_it_was_written() {
    let set = Manifests::new(parse_str("f.yaml", TRIGGER).expect("valid")).expect("a set");
    let back = Manifests::from_json("state", &set.to_json()).expect("valid");
    assert_eq!(back, set);
    let error = Manifests::from_json("state", br#"[{"kind":"Trigger"}]"#).expect_err("no object");
    assert_eq!(error.to_string(), "state: object 1: apiVersion: is missing, or no string");
}

#[test]
fn objects_for_agents_are_chosen_by_labels_and_do_not_run_here() {
    let annotated = |name: &str, selector: &str| {
        TRIGGER.replace("  name: t\n", &format!("  name: {name}\n  annotations: {{godwit.dev/agents: \"{selector}\"}}\n"))
    };
    let yaml = [TRIGGER.to_owned(), annotated("all", ""), annotated("north", "site=north")].join("---\n");
    let set = Manifests::new(parse_str("f.yaml", &yaml).expect("valid")).expect("a set");
    let names = |set: &Manifests| set.triggers().map(|t| t.name.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&set.for_here()), ["t"]);
    assert_eq!(names(&set.for_agent(&BTreeMap::new())), ["all"]);
    assert_eq!(names(&set.for_agent(&BTreeMap::from([("site".to_owned(), "north".to_owned())]))), ["all", "north"]);
}

#[test]
fn a_folder_is_one_set_all_or_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("a.yaml", TRIGGER);
    write("b.yml", &TRIGGER.replace("name: t\n", "name: u\n"));
    write(".hidden.yaml", "no manifest");
    write("notes.txt", "no manifest");
    assert_eq!(load_dir(dir.path()).expect("valid").len(), 2);
    write("c.json", "{\"kind\": \"Trigger\"}");
    let error = load_dir(dir.path()).expect_err("one is wrong").to_string();
    assert!(error.contains("c.json: document 1: apiVersion"), "{error}");
    assert!(load_dir(&dir.path().join("absent")).is_err());
}

#[test]
fn our_samples_are_valid() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/manifests");
    let set = load_dir(&samples).expect("valid");
    assert_eq!((set.brokers().count(), set.triggers().count()), (1, 4));
    assert!(set.warnings().is_empty());
}

#[test]
fn a_file_that_is_no_yaml_is_said_to_be_so_in_one_line() {
    let error = parse_str("f.yaml", "a: [b\n").expect_err("not YAML");
    assert_eq!(error.to_string(), "f.yaml: line 1 column 4: unclosed bracket '['");
}

#[test]
fn a_manifest_of_many_levels_is_read_or_refused_on_a_thread_with_little_stack() {
    let read = |levels: usize| {
        let source = "apiVersion: sources.knative.dev/v1\nkind: ContainerSource\nmetadata: {name: x}\n";
        one(&format!("{source}spec:\n  x: {}1{}\n", "{a: ".repeat(levels), "}".repeat(levels)))
            .expect_err("no such field")
            .why
    };
    // What the daemons' threads for reading files have.
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    let said = thread.spawn(move || [8, 60, 5000].map(read)).expect("started").join().expect("no panic");
    assert!(said[0].contains("unknown field") && said[1].contains("unknown field"), "{said:?}");
    assert!(said[2].contains("Depth"), "{said:?}");
}
