//! Objects by request, with real Brokers, Triggers and a state file in a temporary folder.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::change::Change;
use super::selector::Wanted;
use super::store::Objects;
use super::view::Key;
use super::{ApiError, patch};
use crate::broker::{BrokerDefaults, Brokers};
use crate::clock::{Clock, EARLIEST_VALID_MS};
use crate::delivery::{DeliverySettings, Owner, Triggers};
use crate::journal::Options;
use crate::manifest::{Kind, Manifests, ObjectName, Strictness, parse_str};
use crate::state::State;
use crate::storage::Disk;

struct World {
    brokers: Brokers,
    triggers: Triggers,
    objects: Objects,
}

impl World {
    async fn open(dir: &Path) -> Self {
        let disk = Arc::new(Disk::new(dir).expect("a folder"));
        let options = Options { segment_bytes: 256 << 10, max_bytes: 16 << 20, ..Options::default() };
        let defaults = BrokerDefaults { options, max_brokers: 8 };
        let brokers = Brokers::open(disk.clone(), None, defaults).await.expect("opened");
        let settings = DeliverySettings {
            clock: Clock::manual(i64::try_from(EARLIEST_VALID_MS + 60_000).expect("a time")),
            ..crate::delivery::tests::settings()
        };
        let triggers = Triggers::new(brokers.clone(), settings);
        let here = Box::new(|all: &Manifests| Ok(all.for_here()));
        let objects = Objects::open(triggers.clone(), State::open(disk, "objects.redb").expect("opened"), here).await;
        Self { brokers, triggers, objects }
    }

    async fn close(self) {
        self.triggers.close().await;
        self.brokers.close().await;
    }

    async fn files(&self, yaml: &str) {
        let set = Manifests::new(parse_str("f.yaml", yaml).expect("valid")).expect("a set");
        self.triggers.apply(Owner::Files, set.clone(), 1).await.expect("applied");
        self.objects.show_files(Some(set));
    }

    fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        self.objects.entry(&key(kind, name)).map(|entry| serde_json::from_str(&entry.text).expect("JSON"))
    }

    async fn create(&self, object: Value) -> Result<Value, ApiError> {
        let kind = if object["kind"] == "Broker" { Kind::Broker } else { Kind::Trigger };
        self.objects.create(kind, "default", object, &change("test")).await.map(|changed| changed.object)
    }

    async fn merge(&self, name: &str, patch: Value) -> Result<Value, ApiError> {
        let key = key(Kind::Trigger, name);
        let merge = |object: &mut Value| {
            patch::merge(object, &patch);
            Ok(())
        };
        self.objects.patch(&key, &change("test"), merge).await.map(|changed| changed.object)
    }
}

fn key(kind: Kind, name: &str) -> Key {
    Key { kind, name: ObjectName { namespace: "default".to_owned(), name: name.to_owned() } }
}

fn change(manager: &str) -> Change {
    Change {
        dry_run: false,
        strictness: Strictness::Strict,
        manager: manager.to_owned(),
        force: false,
        api_version: "eventing.knative.dev/v1".to_owned(),
    }
}

fn trigger(name: &str) -> Value {
    json!({
        "apiVersion": "eventing.knative.dev/v1", "kind": "Trigger", "metadata": {"name": name},
        "spec": {"broker": "default", "subscriber": {"uri": "http://127.0.0.1:9/"}},
    })
}

fn condition<'v>(object: &'v Value, name: &str) -> &'v Value {
    let all = object["status"]["conditions"].as_array().expect("conditions");
    all.iter().find(|c| c["type"] == name).unwrap_or_else(|| panic!("no {name} in {all:?}"))
}

#[tokio::test]
async fn a_created_trigger_runs_at_once_and_after_a_restart_as_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let created = world.create(trigger("t")).await.expect("created");
    let uid = created["metadata"]["uid"].as_str().expect("a uid").to_owned();
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created["metadata"]["creationTimestamp"], "2026-01-01T00:01:00Z");
    assert_eq!(created["metadata"]["labels"]["eventing.knative.dev/broker"], "default");
    assert_eq!(created["spec"]["filter"], json!({}));
    assert_eq!(created["status"]["subscriberUri"], "http://127.0.0.1:9/");
    assert_eq!(condition(&created, "Ready")["status"], "True");
    let consumers = || world.brokers.get(&"default".parse().expect("a name")).expect("there").journal().consumers();
    assert!(consumers().iter().any(|c| c.name == format!("trigger/default/t/{uid}")), "the uid is the Trigger's own");
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse::<u64>().ok());
    let before = revision(&created).expect("a revision");
    world.close().await;

    let world = World::open(dir.path()).await;
    let again = world.get(Kind::Trigger, "t").expect("still there");
    assert_eq!(again["metadata"]["uid"], uid.as_str());
    assert_eq!(again["metadata"]["creationTimestamp"], created["metadata"]["creationTimestamp"]);
    assert!(revision(&again).expect("a revision") > before, "revisions never go back");
    assert_eq!(condition(&again, "Ready")["status"], "True");
    world.close().await;
}

#[tokio::test]
async fn a_deleted_trigger_is_gone_with_its_cursor_and_one_made_anew_is_another() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let first = world.create(trigger("t")).await.expect("created");
    world.objects.delete(&key(Kind::Trigger, "t"), None, None, false).await.expect("deleted");
    assert!(world.get(Kind::Trigger, "t").is_none());
    let consumers = world.brokers.get(&"default".parse().expect("a name")).expect("there").journal().consumers();
    assert!(!consumers.iter().any(|c| c.name.starts_with("trigger/")), "{consumers:?}");
    let second = world.create(trigger("t")).await.expect("created");
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    assert!(matches!(
        world.objects.delete(&key(Kind::Trigger, "t"), first["metadata"]["uid"].as_str(), None, false).await,
        Err(ApiError::Conflict(_))
    ));
    world.close().await;
}

#[tokio::test]
async fn d27_a_trigger_may_come_before_its_broker_and_never_changes_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let mut early = trigger("early");
    early["spec"]["broker"] = json!("later");
    let created = world.create(early).await.expect("created");
    assert_eq!(condition(&created, "Ready")["reason"], "BrokerDoesNotExist");
    assert_eq!(condition(&created, "BrokerReady")["status"], "False");
    let broker = json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "later"}});
    let broker = world.create(broker).await.expect("created");
    assert_eq!(broker["status"]["address"]["url"], "http://127.0.0.1:8080/default/later");
    assert_eq!(broker["metadata"]["annotations"]["eventing.knative.dev/broker.class"], "Godwit");
    let mut changes = world.objects.changes();
    let ready = |world: &World| {
        let now = world.get(Kind::Trigger, "early").expect("there");
        condition(&now, "Ready")["status"] == "True"
    };
    while !ready(&world) {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(20), changes.changed()).await;
    }
    let refused = world.merge("early", json!({"spec": {"broker": "default"}})).await.expect_err("immutable");
    assert!(matches!(&refused, ApiError::Invalid { fields, .. } if fields[0].field == "spec.broker"), "{refused}");
    world.close().await;
}

#[tokio::test]
async fn what_another_owner_holds_is_refused_with_its_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    world.files(&trigger("filed").to_string()).await;
    let refused = world.create(trigger("filed")).await.expect_err("held");
    assert!(refused.to_string().contains("held by files"), "{refused}");
    let refused = world.merge("filed", json!({"spec": {"subscriber": {"uri": "http://x/"}}})).await.expect_err("held");
    assert!(matches!(&refused, ApiError::Conflict(why) if why.contains("held by files")), "{refused}");
    let refused = world.objects.delete(&key(Kind::Trigger, "filed"), None, None, false).await.expect_err("held");
    assert!(refused.to_string().contains("files"), "{refused}");
    // And the other way round.
    world.create(trigger("mine")).await.expect("created");
    let set = Manifests::new(parse_str("f.yaml", &trigger("mine").to_string()).expect("valid")).expect("a set");
    let refused = world.triggers.apply(Owner::Files, set, 2).await.expect_err("held");
    assert!(refused.to_string().contains("held by api"), "{refused}");
    world.close().await;
}

#[tokio::test]
async fn a_stale_writer_is_refused_and_a_change_of_nothing_is_none() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let first = world.create(trigger("t")).await.expect("created");
    let same = world.merge("t", json!({"metadata": {"labels": null}})).await.expect("nothing to change");
    assert_eq!(same["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let second = world.merge("t", json!({"spec": {"subscriber": {"uri": "http://127.0.0.1:10/"}}})).await.expect("changed");
    assert_eq!(second["metadata"]["generation"], 2);
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(second["status"]["subscriberUri"], "http://127.0.0.1:10/");
    let third = world.merge("t", json!({"metadata": {"labels": {"a": "b"}}})).await.expect("changed");
    assert_eq!(third["metadata"]["generation"], 2, "labels are not what is wanted of it");
    let stale = world.objects.update(&key(Kind::Trigger, "t"), first, &change("test")).await.expect_err("stale");
    assert!(matches!(&stale, ApiError::Conflict(why) if why.contains("has been modified")), "{stale}");
    world.close().await;
}

#[tokio::test]
async fn a_dry_run_says_what_would_become_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let dry = Change { dry_run: true, ..change("test") };
    let shown = world.objects.create(Kind::Trigger, "default", trigger("t"), &dry).await.expect("valid");
    assert!(shown.created && shown.object["metadata"]["uid"].is_string());
    assert!(world.get(Kind::Trigger, "t").is_none());
    let mut wrong = trigger("t");
    wrong["spec"]["retry"] = json!(1);
    let refused = world.objects.create(Kind::Trigger, "default", wrong.clone(), &dry).await.expect_err("unknown field");
    assert_eq!(refused.to_string(), "strict decoding error: unknown field \"spec.retry\"");
    let lenient = Change { strictness: Strictness::Warn, ..change("test") };
    let taken = world.objects.create(Kind::Trigger, "default", wrong, &lenient).await.expect("taken");
    assert_eq!(taken.warnings, ["unknown field \"spec.retry\""]);
    assert!(taken.object["spec"].get("retry").is_none());
    world.close().await;
}

#[tokio::test]
async fn server_side_apply_makes_an_object_and_gives_fields_back_that_are_applied_no_more() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let key = key(Kind::Trigger, "t");
    let mut wanted = trigger("t");
    wanted["metadata"]["labels"] = json!({"a": "1"});
    wanted["spec"]["delivery"] = json!({"retry": 3});
    let made = world.objects.apply(&key, wanted.clone(), &change("one")).await.expect("made");
    assert!(made.created);
    let again = world.objects.apply(&key, wanted.clone(), &change("one")).await.expect("the same");
    assert_eq!(again.object["metadata"]["resourceVersion"], made.object["metadata"]["resourceVersion"]);
    wanted["spec"]["subscriber"]["uri"] = json!("http://127.0.0.1:11/");
    let conflict = world.objects.apply(&key, wanted.clone(), &change("two")).await.expect_err("held by one");
    assert!(conflict.to_string().contains("conflict with \"one\": .spec.subscriber.uri"), "{conflict}");
    let forced = Change { force: true, ..change("two") };
    world.objects.apply(&key, wanted.clone(), &forced).await.expect("forced");
    let mut less = trigger("t");
    less["spec"]["subscriber"]["uri"] = json!("http://127.0.0.1:11/");
    let less = world.objects.apply(&key, less, &forced).await.expect("applied");
    assert_eq!(less.object["spec"]["delivery"]["retry"], 3, "one holds it still");
    world.close().await;
}

#[tokio::test]
async fn a_part_of_an_object_can_be_applied_and_a_whole_one_must_come_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let key = key(Kind::Trigger, "t");
    let part = |annotations: Value| {
        json!({
            "apiVersion": "eventing.knative.dev/v1", "kind": "Trigger",
            "metadata": {"name": "t", "annotations": annotations},
        })
    };
    let missing = world.objects.apply(&key, part(json!({"a": "b"})), &change("notes")).await.expect_err("no Trigger");
    assert!(missing.to_string().contains("spec.subscriber: is missing"), "{missing}");
    world.create(trigger("t")).await.expect("created");
    let noted = world.objects.apply(&key, part(json!({"a": "b"})), &change("notes")).await.expect("a part");
    assert_eq!(noted.object["metadata"]["annotations"]["a"], "b");
    assert_eq!(noted.object["spec"]["broker"], "default");
    let mut wrong = part(json!({}));
    wrong["spec"] = json!({"brokr": "x"});
    assert!(world.objects.apply(&key, wrong, &change("notes")).await.is_err(), "an unknown field");
    world.close().await;
}

#[tokio::test]
async fn kinds_that_do_not_run_are_kept_and_say_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let sink = json!({
        "apiVersion": "sinks.knative.dev/v1alpha1", "kind": "JobSink", "metadata": {"name": "s"},
        "spec": {"job": {}},
    });
    let change = Change { api_version: "sinks.knative.dev/v1alpha1".to_owned(), ..change("test") };
    let made = world.objects.create(Kind::JobSink, "default", sink, &change).await.expect("kept");
    assert!(made.warnings[0].contains("NotImplemented"));
    assert_eq!(condition(&made.object, "Ready")["reason"], "NotImplemented");
    world.close().await;
    let world = World::open(dir.path()).await;
    assert!(world.get(Kind::JobSink, "s").is_some());
    world.close().await;
}

#[tokio::test]
async fn a_flow_is_listed_with_its_parts_which_change_and_go_with_it_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let sequence = json!({
        "apiVersion": "flows.knative.dev/v1", "kind": "Sequence", "metadata": {"name": "s"},
        "spec": {"steps": [{"uri": "http://127.0.0.1:9/"}]},
    });
    let change = Change { api_version: "flows.knative.dev/v1".to_owned(), ..change("test") };
    let made = world.objects.create(Kind::Sequence, "default", sequence, &change).await.expect("made").object;
    for name in ["Ready", "ChannelsReady", "SubscriptionsReady", "Addressable"] {
        assert_eq!(condition(&made, name)["status"], "True", "{made}");
    }
    assert_eq!(made["status"]["address"]["url"], "http://127.0.0.1:8080/sequences/default/s");
    assert_eq!(made["status"]["channelStatuses"][0]["channel"]["name"], "s-kn-sequence-0");

    let part = key(Kind::Subscription, "s-kn-sequence-0");
    let shown = world.get(Kind::Subscription, "s-kn-sequence-0").expect("listed");
    assert_eq!(shown["metadata"]["ownerReferences"][0]["uid"], made["metadata"]["uid"]);
    assert_eq!(condition(&shown, "Ready")["status"], "True", "{shown}");
    assert_eq!(shown["status"]["physicalSubscription"]["subscriberUri"], "http://127.0.0.1:9/");
    let channel = world.get(Kind::InMemoryChannel, "s-kn-sequence-0").expect("listed");
    assert_eq!(channel["status"]["address"]["url"], "http://127.0.0.1:8080/channels/default/s-kn-sequence-0");
    let why = world.objects.delete(&part, None, None, false).await.expect_err("it is the Sequence's").to_string();
    assert!(why.contains("Sequence default/s"), "{why}");

    world.objects.delete(&key(Kind::Sequence, "s"), None, None, false).await.expect("deleted");
    assert!(world.get(Kind::Subscription, "s-kn-sequence-0").is_none());
    world.close().await;
}

#[tokio::test]
async fn a_broker_that_nobody_wrote_down_is_shown_and_can_be_taken_over() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let shown = world.get(Kind::Broker, "default").expect("it always exists");
    assert_eq!(condition(&shown, "Ready")["status"], "True");
    assert!(world.objects.delete(&key(Kind::Broker, "default"), None, None, false).await.is_err());
    let broker = json!({
        "apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "default"},
        "spec": {"delivery": {"retry": 2}},
    });
    world.create(broker).await.expect("taken over");
    world.objects.delete(&key(Kind::Broker, "default"), None, None, false).await.expect("its object is deleted");
    assert!(world.get(Kind::Broker, "default").is_some(), "it is there all the same");
    world.close().await;
}

#[tokio::test]
async fn a_damaged_state_costs_objects_but_no_cursor() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let created = world.create(trigger("t")).await.expect("created");
    world.close().await;
    std::fs::write(dir.path().join("objects.redb"), b"no database").expect("written");
    let world = World::open(dir.path()).await;
    assert!(world.get(Kind::Trigger, "t").is_none(), "its object is gone");
    let uid = created["metadata"]["uid"].as_str().expect("a uid");
    let consumers = world.brokers.get(&"default".parse().expect("a name")).expect("there").journal().consumers();
    assert!(consumers.iter().any(|c| c.name == format!("trigger/default/t/{uid}")), "{consumers:?}");
    world.create(trigger("t")).await.expect("created again");
    let standing = world.triggers.standing(&key(Kind::Trigger, "t")).expect("it runs");
    assert_eq!(standing.uid, uid, "it goes on where it stood");
    assert_eq!(world.get(Kind::Trigger, "t").expect("there")["metadata"]["uid"], uid);
    world.close().await;
}

#[tokio::test]
async fn watches_see_every_change_once_and_are_told_when_they_come_too_late() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let start = world.objects.view().revision;
    world.create(trigger("t")).await.expect("created");
    world.merge("t", json!({"metadata": {"labels": {"a": "b"}}})).await.expect("changed");
    world.objects.delete(&key(Kind::Trigger, "t"), None, None, false).await.expect("deleted");
    let changes = world.objects.view().changes(start, 100).expect("known");
    let revisions: Vec<_> = changes.iter().map(|c| c.revision).collect();
    assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]), "{revisions:?}");
    assert_eq!(changes.first().map(|c| c.what), Some(super::view::What::Added));
    assert_eq!(changes.last().map(|c| c.what), Some(super::view::What::Deleted));
    for n in 0..600 {
        world.merge("x", json!({})).await.expect_err("there is none");
        let name = format!("n{n}");
        let set = Manifests::new(parse_str("f", &trigger(&name).to_string()).expect("valid")).expect("a set");
        world.objects.show_files(Some(set));
    }
    assert!(world.objects.view().changes(start, 1).is_err(), "too old");
    assert!(world.objects.view().changes(u64::MAX, 1).is_err(), "from another start");
    world.close().await;
}

#[tokio::test]
async fn agents_are_told_nothing_while_there_is_no_set_of_the_folder_to_go_by() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let mut object = trigger("sent");
    object["metadata"]["annotations"] = json!({"godwit.dev/agents": "site=north"});
    world.create(object).await.expect("created");
    assert_eq!(world.objects.for_agents(), None);
    let mut changes = world.objects.changes();
    world.objects.show_files(None);
    assert_eq!(world.objects.for_agents(), None);
    world.objects.show_files(Some(Manifests::default()));
    assert!(changes.has_changed().expect("open"), "who tells the agents has to look again");
    changes.mark_unchanged();
    let told = world.objects.for_agents().expect("a set");
    assert_eq!(told.objects().map(|o| o.name().to_string()).collect::<Vec<_>>(), ["default/sent"]);
    world.close().await;
}

#[tokio::test]
async fn filters_are_taken_and_wrong_ones_are_refused_with_their_field() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let with = |name: &str, filters: Value| {
        let mut object = trigger(name);
        object["spec"]["filters"] = filters;
        object
    };
    let filters = json!([{"prefix": {"type": "a."}}, {"cesql": "level > 3"}]);
    world.create(with("right", filters.clone())).await.expect("created");
    assert_eq!(world.get(Kind::Trigger, "right").expect("there")["spec"]["filters"], filters);
    for (wrong, field) in [
        (json!([{"cesql": "level >"}]), "spec.filters[0].cesql"),
        (json!([{"any": [{"regex": {"type": "a"}}]}]), "spec.filters[0].any[0].regex"),
        (json!([{"exact": {"type": "a"}}, {}]), "spec.filters[1]"),
    ] {
        match world.create(with("wrong", wrong)).await {
            Err(ApiError::Invalid { fields, .. }) => assert_eq!(fields[0].field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    world.close().await;
}

fn wanted(labels: &str, fields: &str) -> Wanted {
    Wanted::new(Kind::Trigger, Some("default"), labels, fields).expect("valid")
}

#[tokio::test]
async fn all_that_a_selector_takes_goes_at_once_and_for_good() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    for (name, site) in [("a", "north"), ("b", "north"), ("c", "south")] {
        let mut object = trigger(name);
        object["metadata"]["labels"] = json!({ "site": site });
        world.create(object).await.expect("created");
    }
    let names = |deleted: Vec<super::Deleted>| -> Vec<String> {
        let name = |d: super::Deleted| d.object["metadata"]["name"].as_str().map(str::to_owned).expect("a name");
        deleted.into_iter().map(name).collect()
    };
    let dry = world.objects.delete_all(&wanted("site=north", ""), true).await.expect("dry");
    assert_eq!(names(dry), ["a", "b"]);
    assert!(world.get(Kind::Trigger, "a").is_some());
    let gone = world.objects.delete_all(&wanted("site=north", "metadata.name!=b"), false).await.expect("deleted");
    assert_eq!(names(gone), ["a"]);
    world.files(&trigger("filed").to_string()).await;
    let refused = world.objects.delete_all(&wanted("", ""), false).await.expect_err("one is held by files");
    assert!(refused.to_string().contains("files"), "{refused}");
    assert!(world.get(Kind::Trigger, "b").is_some(), "nothing has changed");
    let gone = world.objects.delete_all(&wanted("site", ""), false).await.expect("deleted");
    assert_eq!(names(gone), ["b", "c"]);
    assert!(names(world.objects.delete_all(&wanted("site", ""), false).await.expect("nothing")).is_empty());
    let brokers = Wanted::new(Kind::Broker, Some("default"), "", "").expect("valid");
    let none = world.objects.delete_all(&brokers, false).await.expect("a Broker without an object is passed over");
    assert!(none.is_empty());
    world.close().await;

    let world = World::open(dir.path()).await;
    assert!(["a", "b", "c"].into_iter().all(|name| world.get(Kind::Trigger, name).is_none()), "also after a restart");
    world.close().await;
}

#[tokio::test]
async fn an_object_with_finalizers_is_marked_and_goes_with_the_last_of_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let mut object = trigger("t");
    object["metadata"]["finalizers"] = json!(["example.com/a", "example.com/b"]);
    object["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
    let created = world.create(object).await.expect("created");
    assert!(created["metadata"]["deletionTimestamp"].is_null(), "nobody says this by writing it");
    let key = key(Kind::Trigger, "t");
    assert!(!world.objects.delete(&key, None, None, true).await.expect("dry").gone);
    assert!(world.get(Kind::Trigger, "t").expect("there")["metadata"]["deletionTimestamp"].is_null());

    let marked = world.objects.delete(&key, None, None, false).await.expect("marked");
    assert!(!marked.gone);
    assert_eq!(marked.object["metadata"]["deletionTimestamp"], "2026-01-01T00:01:00Z");
    assert_eq!(marked.object["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(marked.object["metadata"]["generation"], 2);
    let again = world.objects.delete_all(&wanted("", ""), false).await.expect("it is marked already");
    assert_eq!(again[0].object, marked.object);
    let new = json!({"metadata": {"finalizers": ["example.com/a", "example.com/c"]}});
    assert!(matches!(world.merge("t", new).await, Err(ApiError::Invalid { .. })));
    world.close().await;

    let world = World::open(dir.path()).await;
    let kept = world.get(Kind::Trigger, "t").expect("still there after a restart");
    assert_eq!(kept["metadata"]["deletionTimestamp"], "2026-01-01T00:01:00Z");
    assert_eq!(condition(&kept, "Ready")["status"], "True", "it runs until it goes");
    let one = json!({"metadata": {"finalizers": ["example.com/b"], "deletionTimestamp": null}});
    let one = world.merge("t", one).await.expect("one is left");
    assert_eq!(one["metadata"]["deletionTimestamp"], "2026-01-01T00:01:00Z", "it cannot be taken back");
    world.merge("t", json!({"metadata": {"finalizers": null}})).await.expect("the last is gone");
    assert!(world.get(Kind::Trigger, "t").is_none());
    world.close().await;

    let world = World::open(dir.path()).await;
    assert!(world.get(Kind::Trigger, "t").is_none());
    world.close().await;
}

#[tokio::test]
async fn a_broker_that_is_made_again_is_another_and_its_end_is_seen() {
    let dir = tempfile::tempdir().expect("a folder");
    let world = World::open(dir.path()).await;
    let broker = json!({"apiVersion": "eventing.knative.dev/v1", "kind": "Broker", "metadata": {"name": "ghost"}});
    let uid = |object: &Value| object["metadata"]["uid"].as_str().expect("a uid").to_owned();
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(uid(&world.create(broker.clone()).await.expect("created")));
        let start = world.objects.view().revision;
        world.objects.delete(&key(Kind::Broker, "ghost"), None, None, false).await.expect("deleted");
        let shown = uid(&world.get(Kind::Broker, "ghost").expect("its events are still there"));
        assert!(!seen.contains(&shown), "who waits for the object's end sees another: {shown}");
        let changes = world.objects.view().changes(start, 100).expect("known");
        let whats: Vec<_> = changes.iter().filter(|c| c.key.kind == Kind::Broker).map(|c| c.what).collect();
        assert_eq!(whats, [super::view::What::Deleted, super::view::What::Added]);
    }
    assert_ne!(seen[0], seen[1]);
    world.close().await;
}
