//! Sources in one process with a clock that tests hold: schedules, missed runs, crashes, sinks that come late or fail.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Sources;
use crate::broker::{BrokerDefaults, Brokers};
use crate::clock::Clock;
use crate::delivery::{DeliverySettings, Owner, Triggers};
use crate::event::{Event, StoredEvent};
use crate::journal::{Item, Offset, Options};
use crate::manifest::{Kind, Manifests, ObjectName, parse_str};
use crate::names::{AgentId, BrokerName};
use crate::storage::Disk;

/// 2026-11-26T04:00:00Z.
const START: i64 = 1_795_665_600_000;

struct World {
    brokers: Brokers,
    triggers: Triggers,
    sources: Sources,
}

impl World {
    /// A process whose folder brought this set.
    async fn open(dir: &Path, clock: Clock, yaml: &str) -> Self {
        let disk = Arc::new(Disk::new(dir).expect("a folder"));
        let options = Options { segment_bytes: 256 << 10, max_bytes: 16 << 20, clock: clock.clone(), ..Options::default() };
        let agent = AgentId::new("board").expect("valid");
        let brokers = Brokers::open(disk, Some(agent), BrokerDefaults { options, max_brokers: 8 }).await.expect("opened");
        let settings = DeliverySettings { clock: clock.clone(), ..crate::delivery::tests::settings() };
        let triggers = Triggers::new(brokers.clone(), settings);
        triggers.apply(Owner::Files, set(yaml), 1).await.expect("applied");
        let sources = Sources::start(&triggers, [], []).await;
        Self { brokers, triggers, sources }
    }

    async fn close(self) {
        self.sources.close().await;
        self.triggers.close().await;
        self.brokers.close().await;
    }

    async fn apply(&self, yaml: &str) {
        self.triggers.apply(Owner::Files, set(yaml), 2).await.expect("applied");
    }

    /// The events in a Broker, in order.
    async fn events(&self, broker: &str) -> Vec<Event> {
        let Some(broker) = self.brokers.get(&broker.parse::<BrokerName>().expect("a name")) else { return Vec::new() };
        let mut reader = broker.journal().reader(Offset(0));
        let mut all = Vec::new();
        loop {
            let items = reader.try_next(1 << 20).await.expect("readable");
            if items.is_empty() {
                return all;
            }
            for item in items {
                if let Item::Event { epoch, offset, body } = item {
                    all.push(StoredEvent::new(body, epoch, offset, None).and_then(|s| s.to_event()).expect("an event"));
                }
            }
        }
    }

    fn status(&self, name: &str) -> Value {
        let all = self.triggers.sources().status();
        all.as_array().into_iter().flatten().find(|s| s["name"] == name).cloned().unwrap_or_default()
    }

    /// Waits until a Broker has so many events; gives their ids.
    async fn ids(&self, broker: &str, n: usize) -> Vec<String> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let ids: Vec<String> = self.events(broker).await.iter().map(|e| e.id().to_owned()).collect();
            if ids.len() >= n {
                return ids;
            }
            assert!(Instant::now() < until, "{n} events: {ids:?}; {}", self.triggers.sources().status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until `/status` of a source shows this.
    async fn shows(&self, name: &str, what: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let status = self.status(name);
            if what(&status) {
                return status;
            }
            assert!(Instant::now() < until, "{status}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a source waits for its next run at this time.
    async fn waits_for(&self, name: &str, time: &str) {
        self.shows(name, |status| status["next_run"] == time).await;
    }
}

fn set(yaml: &str) -> Manifests {
    Manifests::new(parse_str("test.yaml", yaml).expect("valid manifests")).expect("a set")
}

/// A PingSource; `rest` is more of its spec.
fn ping(name: &str, schedule: &str, annotations: &str, sink: &str, rest: &str) -> String {
    format!(
        "apiVersion: sources.knative.dev/v1\nkind: PingSource\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\n\
         spec:\n  schedule: \"{schedule}\"\n  sink: {sink}\n{rest}\n---\n"
    )
}

const BROKER: &str = "{ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: default}}";
const DATA: &str = "  contentType: application/json\n  data: '{\"n\": 1}'\n  ceOverrides: {extensions: {site: harbour}}";

#[tokio::test]
async fn a_ping_source_fires_at_its_times_with_all_that_knative_says_of_its_events() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Clock::manual(START + 10_000);
    let world = World::open(dir.path(), clock.clone(), &ping("p", "*/2 * * * *", "", BROKER, DATA)).await;
    world.waits_for("p", "2026-11-26T04:02:00Z").await;
    clock.advance(109_999);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(world.events("default/default").await.is_empty(), "not before its time");
    clock.advance(1);
    world.waits_for("p", "2026-11-26T04:04:00Z").await;
    clock.advance(60_000);
    clock.advance(60_000);
    world.ids("default/default", 2).await;
    let events = world.events("default/default").await;
    let event = &events[0];
    assert_eq!(event.id(), "board/2026-11-26T04:02:00Z");
    assert_eq!((event.ty(), event.source()), ("dev.knative.sources.ping", "/apis/v1/namespaces/default/pingsources/p"));
    assert_eq!((event.datacontenttype(), event.time()), (Some("application/json"), Some("2026-11-26T04:02:00Z")));
    assert_eq!(event.data().map(|d| &d[..]), Some(&b"{\"n\": 1}"[..]));
    assert_eq!(event.get("site").and_then(|v| v.as_str()), Some("harbour"));
    assert_eq!(events[1].id(), "board/2026-11-26T04:04:00Z");
    let status = world.shows("p", |s| s["events"] == 2).await;
    assert_eq!(
        (&status["ready"], &status["sinkUri"]),
        (&Value::from(true), &Value::from("http://127.0.0.1:8080/default/default"))
    );
    world.close().await;
}

#[tokio::test]
async fn runs_missed_while_off_follow_the_annotation() {
    for (policy, ids, missed) in [
        ("", vec!["04:40"], 3),
        ("godwit.dev/missed-runs: once", vec!["04:40"], 3),
        ("godwit.dev/missed-runs: all", vec!["04:10", "04:20", "04:30", "04:40"], 0),
        ("godwit.dev/missed-runs: skip", vec![], 4),
    ] {
        let dir = tempfile::tempdir().expect("a folder");
        let yaml = ping("p", "*/10 * * * *", policy, BROKER, "");
        let world = World::open(dir.path(), Clock::manual(START + 1000), &yaml).await;
        world.waits_for("p", "2026-11-26T04:10:00Z").await;
        world.close().await;
        let world = World::open(dir.path(), Clock::manual(START + 45 * 60_000), &yaml).await;
        world.waits_for("p", "2026-11-26T04:50:00Z").await;
        let wanted: Vec<String> = ids.iter().map(|t| format!("board/2026-11-26T{t}:00Z")).collect();
        assert_eq!(world.ids("default/default", 0).await, wanted, "{policy}");
        assert_eq!(world.status("p")["lost"]["missed"].as_u64().unwrap_or(0), missed, "{policy}");
        world.close().await;
        // Made up for once.
        let world = World::open(dir.path(), Clock::manual(START + 46 * 60_000), &yaml).await;
        world.waits_for("p", "2026-11-26T04:50:00Z").await;
        assert_eq!(world.ids("default/default", 0).await, wanted, "{policy}");
        world.close().await;
    }
}

/// Seconds of 31 bits end in 2038, those of 32 in 2106.
#[tokio::test]
async fn a_schedule_that_is_kept_goes_on_in_the_year_2110() {
    const IN_2110: i64 = 4_417_977_600_000;
    let dir = tempfile::tempdir().expect("a folder");
    let yaml = ping("p", "*/10 * * * *", "godwit.dev/missed-runs: all", BROKER, "");
    let world = World::open(dir.path(), Clock::manual(IN_2110 + 1000), &yaml).await;
    world.waits_for("p", "2110-01-01T00:10:00Z").await;
    world.close().await;
    let world = World::open(dir.path(), Clock::manual(IN_2110 + 25 * 60_000), &yaml).await;
    let ids = world.ids("default/default", 2).await;
    assert_eq!(ids, ["board/2110-01-01T00:10:00Z", "board/2110-01-01T00:20:00Z"]);
    assert_eq!(world.events("default/default").await[0].time(), Some("2110-01-01T00:25:00Z"));
    world.close().await;
}

#[tokio::test]
async fn a_clock_that_is_not_set_or_jumps_makes_no_run_twice_and_none_at_a_wrong_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Clock::manual(5_000);
    let world = World::open(dir.path(), clock.clone(), &ping("p", "*/10 * * * *", "", BROKER, "")).await;
    let status = world.shows("p", |s| s["reason"] == "ClockNotSet").await;
    assert_eq!(status["ready"], false);
    // The clock is set: the schedule begins there.
    clock.set_wall(START + 60_000);
    clock.advance(5_000);
    world.waits_for("p", "2026-11-26T04:10:00Z").await;
    // An hour forward: one run for the six that were passed.
    clock.set_wall(START + 65 * 60_000);
    clock.advance(60_000);
    assert_eq!(world.ids("default/default", 1).await, ["board/2026-11-26T05:00:00Z"]);
    world.waits_for("p", "2026-11-26T05:10:00Z").await;
    // Half a minute back over a run: not once more.
    clock.set_wall(START + 70 * 60_000 - 1000);
    clock.advance(60_000);
    world.ids("default/default", 2).await;
    world.waits_for("p", "2026-11-26T05:20:00Z").await;
    clock.set_wall(START + 70 * 60_000 - 30_000);
    clock.advance(40_000);
    clock.advance(60_000);
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(world.ids("default/default", 0).await.len(), 2);
    // From years ahead back to what is right: it goes on at once.
    clock.set_wall(START + 10_000 * 86_400_000);
    clock.advance(60_000);
    world.ids("default/default", 3).await;
    clock.set_wall(START + 100 * 60_000 + 1000);
    clock.advance(60_000);
    world.waits_for("p", "2026-11-26T05:50:00Z").await;
    clock.set_wall(0);
    clock.advance(60_000);
    world.shows("p", |s| s["reason"] == "ClockNotSet").await;
    world.close().await;
}

#[tokio::test]
async fn a_sink_that_comes_late_is_waited_for_and_one_that_has_gone_takes_its_mark_with_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Clock::manual(START);
    let late = "{ref: {apiVersion: eventing.knative.dev/v1, kind: Broker, name: late}}";
    let source = ping("p", "@every 10s", "", late, "");
    let world = World::open(dir.path(), clock.clone(), &source).await;
    let status = world.shows("p", |s| s["reason"] == "NotFound").await;
    assert!(status["message"].as_str().is_some_and(|m| m.contains("default/late")), "{status}");
    assert!(world.triggers.ready(Owner::Files).is_err());
    let broker = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: late}\n---\n";
    world.apply(&format!("{broker}{source}")).await;
    world.shows("p", |s| s["ready"] == true).await;
    assert!(world.triggers.ready(Owner::Files).is_ok());
    clock.advance(10_000);
    world.ids("default/late", 1).await;
    let late = world.brokers.get(&"default/late".parse().expect("a name")).expect("there");
    let key = b"source/PingSource/default/p";
    assert!(late.journal().fact(key).is_some());
    world.apply(broker).await;
    let until = Instant::now() + Duration::from_secs(20);
    while late.journal().fact(key).is_some() {
        assert!(Instant::now() < until, "the mark stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let name = ObjectName { namespace: "default".to_owned(), name: "p".to_owned() };
    assert_eq!(world.triggers.sources().standing(Kind::PingSource, &name), None);
    world.close().await;
}

#[tokio::test]
async fn a_mark_left_by_a_source_that_went_while_the_process_was_off_is_forgotten_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let source = ping("p", "@hourly", "", BROKER, "");
    let world = World::open(dir.path(), Clock::manual(START), &source).await;
    world.waits_for("p", "2026-11-26T05:00:00Z").await;
    world.close().await;
    let world = World::open(dir.path(), Clock::manual(START), "").await;
    let default = world.brokers.get(&BrokerName::default()).expect("there");
    assert!(default.journal().facts(b"source/").is_empty());
    world.close().await;
}

#[tokio::test]
async fn a_url_that_fails_is_tried_six_times_and_then_the_event_is_lost_by_reason() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (told, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let answers = ["503 no", "503 no", "204 No Content", "400 no"];
        let mut n = 0;
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            let _ = told.send(String::from_utf8_lossy(&bytes[..read]).into_owned());
            let answer = answers.get(n).unwrap_or(&"503 no");
            n += 1;
            let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).await;
        }
    });
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Clock::manual(START);
    let world = World::open(
        dir.path(),
        clock.clone(),
        &ping("p", "@every 60s", "", &format!("{{uri: \"http://127.0.0.1:{port}/in\"}}"), DATA),
    )
    .await;
    world.waits_for("p", "2026-11-26T04:01:00Z").await;
    clock.advance(60_000);
    // Two failures, then taken: three requests with the same id.
    let mut ids = Vec::new();
    for _ in 0..3 {
        let request = next(&mut seen, &clock).await;
        assert!(request.contains("ce-type: dev.knative.sources.ping"), "{request}");
        ids.extend(request.lines().find(|line| line.starts_with("ce-id:")).map(str::to_owned));
    }
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    world.shows("p", |s| s["events"] == 1).await;
    // Rejected for good: one request.
    clock.advance(60_000);
    next(&mut seen, &clock).await;
    world.shows("p", |s| s["lost"]["rejected"] == 1).await;
    // Never answered well: six requests, then lost.
    clock.advance(60_000);
    for _ in 0..6 {
        next(&mut seen, &clock).await;
    }
    world.shows("p", |s| s["lost"]["receiver_failed"] == 1 || s["lost"]["no_response"] == 1).await;
    assert!(seen.try_recv().is_err());
    world.close().await;
    server.abort();
}

/// The next request, the clock moved on a little until it comes.
async fn next(seen: &mut tokio::sync::mpsc::UnboundedReceiver<String>, clock: &Clock) -> String {
    for _ in 0..2000 {
        if let Ok(Some(request)) = tokio::time::timeout(Duration::from_millis(10), seen.recv()).await {
            return request;
        }
        clock.advance(25);
    }
    panic!("no request");
}

#[tokio::test]
async fn types_of_what_passes_become_event_types_also_those_in_sealed_segments_after_a_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = Clock::manual(START);
    let world = World::open(dir.path(), clock.clone(), "").await;
    let journal = world.brokers.get(&BrokerName::default()).expect("there").journal().clone();
    let publish = async |ty: &str, bytes: usize| {
        let event =
            Event::builder().id("1").source("/s").ty(ty).data("text/plain", vec![b'x'; bytes]).build().expect("valid");
        let written = |append: &mut crate::journal::Append<'_>| {
            append.event(|out| crate::event::encode_event(out, &event, None, std::iter::empty()));
        };
        crate::delivery::append(&journal, written).await.expect("durable");
    };
    publish("rare", 10).await;
    // Enough to seal the first segments, and more events than are looked at one by one.
    for _ in 0..20 {
        publish("large", 60_000).await;
    }
    for _ in 0..300 {
        publish("frequent", 10).await;
    }
    let types = |world: &World| -> Vec<String> {
        let all = world.triggers.sources().types();
        let mut types: Vec<String> =
            all.iter().filter_map(|o| o.current()["spec"]["attributes"][0]["value"].as_str().map(str::to_owned)).collect();
        types.sort();
        types.dedup();
        types
    };
    let until = Instant::now() + Duration::from_secs(20);
    while types(&world) != ["frequent", "large", "rare"] {
        assert!(Instant::now() < until, "{:?}", types(&world));
        clock.advance(30_000);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.close().await;
    let world = World::open(dir.path(), Clock::manual(START), "").await;
    while types(&world) != ["frequent", "large", "rare"] {
        assert!(Instant::now() < until, "{:?}", types(&world));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.close().await;
}
