//! The quick way for plain events: from the bytes of a request to the journal without a copy of any of its texts, and without a
//! handler's task. It takes only what will be acknowledged unless the disk fails; all else goes the ordinary way, which says why.

use httparse::Header;
use tokio::time::Instant;

use super::{Ingress, Target, goes_along, refused};
use crate::event::PlainEvent;
use crate::http::Response;
use crate::journal::Receipt;

/// What is sent for an event that is durable, up to the value of the header `date`.
pub(in crate::http) const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\nallow: POST, OPTIONS\r\ncontent-length: 0\r\ndate: ";

/// An event that has been appended and is not acknowledged yet.
#[derive(Debug)]
pub(in crate::http) struct Begun {
    receipt: Receipt,
    arrived: Instant,
}

impl Ingress {
    /// Appends the event of a `POST` to `path`. `None`: nothing has happened, and the request must go the ordinary way.
    pub(in crate::http) fn begin(&self, path: &str, headers: &[Header<'_>], body: &[u8]) -> Option<Begun> {
        let arrived = Instant::now();
        let broker = match Target::of(path) {
            Target::Default => self.brokers.get(&self.default_name),
            Target::Broker(namespace, name) => self.brokers.find(namespace, name),
            Target::Channel(..) | Target::Flow(..) | Target::Reserved | Target::Malformed => None,
        }?;
        if self.spans.is_on() || broker.settings().deduplication_ms.is_some() {
            return None;
        }
        let event = PlainEvent::read(headers, body, &self.limits, self.dropped, goes_along)?;
        let arrival_ms = self.clock.wall_ms();
        let queued = broker.journal().append(|append| append.event(|out| event.encode(out, arrival_ms)));
        Some(Begun { receipt: queued.ok()?, arrived })
    }

    /// Waits until a begun event is durable.
    ///
    /// # Errors
    /// The answer for one that has been refused after all.
    pub(in crate::http) async fn finish(&self, begun: Begun) -> Result<(), Response> {
        let Begun { receipt, arrived } = begun;
        if let Err(why) = receipt.await {
            return Err(self.finished(Err(refused(why))));
        }
        self.accepted.add(1);
        self.acknowledged.observe(arrived.elapsed());
        Ok(())
    }
}
