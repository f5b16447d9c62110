//! Events past their `expirytime` do not go up: the gateway is told of a skip with that reason, which the cursor's account counts.
//!
//! It is looked at when an event is read from the journal to be sent, so what was sent before and is unanswered stays sent. Were the
//! connection cut before the gateway's answer, its position hides which of the events it covers were skips: they count as delivered
//! here, and as skipped in the gateway's status.

use godwit_mesh::clock::Clock;
use godwit_mesh::event::{StoredEvent, has_expired};
use godwit_mesh::journal::{DropReason, Item};

/// Puts a skip in the place of each event that has expired; one skip for several in a row, so that a frame takes many.
pub(super) fn drop_expired(items: &mut Vec<Item>, clock: &Clock, scratch: &mut String) {
    let mut any = false;
    for item in items.iter_mut() {
        let Item::Event { epoch, offset, body } = item else { continue };
        // What cannot be read has no time to be judged by; it is for the gateway to refuse.
        let Ok(event) = StoredEvent::new(body.clone(), *epoch, *offset, None) else { continue };
        if has_expired(&event, clock, scratch) {
            *item = Item::Skip { from: *offset, to: offset.plus(1), reason: DropReason::Expired };
            any = true;
        }
    }
    if any {
        items.dedup_by(|next, before| match (next, before) {
            (Item::Skip { from, to, reason }, Item::Skip { to: end, reason: same, .. })
                if reason == same && from == end =>
            {
                *end = *to;
                true
            }
            _ => false,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use godwit_mesh::broker::{Broker, BrokerDefaults, Brokers};
    use godwit_mesh::event::{Event, encode_event};
    use godwit_mesh::journal::{Epoch, Offset, Options};
    use godwit_mesh::names::BrokerName;
    use godwit_mesh::storage::Disk;
    use godwit_mesh::sync::frame::{Frame, GoOn};
    use godwit_mesh::sync::{Batch, BatchReader, Skip, SkipReason};
    use tokio::time::Instant;

    use super::super::lane::Lane;
    use super::super::letters::Letters;
    use super::super::run::register;
    use super::super::window::Window;
    use super::*;

    /// 2026-08-01T00:00:00Z.
    const NOW: i64 = 1_785_542_400_000;

    const OVER: Option<&str> = Some("2026-07-31T23:59:59Z");
    const LATER: Option<&str> = Some("2026-08-01T00:00:01Z");

    fn stored(expiry: Option<&str>) -> Vec<u8> {
        let mut event = Event::builder().id("1").source("/s").ty("t").build().expect("valid");
        if let Some(expiry) = expiry {
            event.set("expirytime", expiry.into()).expect("valid");
        }
        let mut body = Vec::new();
        encode_event(&mut body, &event, None, std::iter::empty());
        body
    }

    fn item(offset: u64, expiry: Option<&str>) -> Item {
        Item::Event { epoch: Epoch(1), offset: Offset(offset), body: stored(expiry).into() }
    }

    fn skip(from: u64, to: u64, reason: DropReason) -> Item {
        Item::Skip { from: Offset(from), to: Offset(to), reason }
    }

    #[test]
    fn expired_events_in_a_row_become_one_skip_and_all_else_stays() {
        let clock = Clock::manual(NOW);
        let mut items = vec![
            skip(0, 3, DropReason::Retention),
            item(3, OVER),
            item(4, OVER),
            item(5, LATER),
            item(6, None),
            item(7, OVER),
            Item::Event { epoch: Epoch(1), offset: Offset(8), body: vec![0xff].into() },
        ];
        let before = items.clone();
        drop_expired(&mut items, &clock, &mut String::new());
        let wanted = [
            skip(0, 3, DropReason::Retention),
            skip(3, 5, DropReason::Expired),
            before[3].clone(),
            before[4].clone(),
            skip(7, 8, DropReason::Expired),
            before[6].clone(),
        ];
        assert_eq!(items, wanted);

        let mut items = before.clone();
        clock.set_wall(12_000);
        drop_expired(&mut items, &clock, &mut String::new());
        assert_eq!(items, before, "no valid clock, nothing has expired");
    }

    async fn broker(dir: &std::path::Path) -> (Brokers, Arc<Broker>) {
        let options = Options { segment_bytes: 64 << 10, max_bytes: 4 << 20, ..Options::default() };
        let disk = Arc::new(Disk::new(dir).expect("a folder"));
        let brokers = Brokers::open(disk, None, BrokerDefaults { options, max_brokers: 1 }).await.expect("opens");
        let broker = brokers.get(&BrokerName::default()).expect("there");
        (brokers, broker)
    }

    async fn next(lane: &mut Lane, reader: &mut BatchReader, window: &mut Window) -> Batch {
        let mut out = Vec::new();
        let filled = lane.frame(64 << 10, |_| true, &mut out).await.expect("read").expect("a frame");
        let Frame::Events(events) = Frame::from_agent(&out).expect("a frame") else { panic!("events") };
        let batch = reader.open(&events, 64 << 10).expect("opens");
        let ticket = window.sent(out.len() as u64, true, Instant::now());
        lane.sent(filled, ticket);
        batch
    }

    #[tokio::test]
    async fn the_gateway_gets_a_skip_with_its_reason_and_the_ledger_counts_it_once_it_is_answered() {
        let dir = tempfile::tempdir().expect("a folder");
        let (brokers, broker) = broker(dir.path()).await;
        let clock = Clock::manual(NOW);
        let letters = Letters { gateway: String::new(), clock: clock.clone() };
        let (mut window, mut reader) = (Window::new(Duration::from_millis(1)), BatchReader::new());
        let mut lane = Lane::new(broker.clone(), 0, clock.clone());
        let go_on = GoOn { credit: 1 << 20, ..GoOn::default() };
        lane.go_on(&go_on, None, 64 << 10, &letters).await.expect("goes on");

        for expiry in [LATER, OVER, OVER, None] {
            let receipt = broker.journal().append(|append| append.event(|out| out.extend(stored(expiry))));
            receipt.expect("taken").await.expect("durable");
        }
        let batch = next(&mut lane, &mut reader, &mut window).await;
        let offsets: Vec<u64> = batch.events().map(|(offset, _)| offset.0).collect();
        assert_eq!(offsets, [0, 3]);
        let reason = SkipReason::Dropped(DropReason::Expired);
        assert_eq!(batch.skips, [Skip { from: Offset(1), to: Offset(3), reason }]);

        // The time of the first comes while it is on its way: it was sent.
        clock.advance(2_000);
        lane.answered(Offset(4), &mut window, Instant::now()).expect("moves on");
        register(&broker).flushed().await.expect("durable");
        let ledger = broker.journal().consumers().into_iter().next().expect("the uplink");
        assert_eq!((ledger.cursor, ledger.done.delivered), (Offset(4), 2));
        assert_eq!(ledger.done.dropped, [(DropReason::Expired, 2)].into());

        // Nothing but expired events: the gateway passes them all the same.
        let receipt = broker.journal().append(|append| append.event(|out| out.extend(stored(LATER))));
        receipt.expect("taken").await.expect("durable");
        let batch = next(&mut lane, &mut reader, &mut window).await;
        assert_eq!((batch.from, batch.to, batch.bodies.len()), (Offset(4), Offset(5), 0));
        brokers.close().await;
    }
}
