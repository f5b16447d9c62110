//! One append to a journal: publishes as they are stored, the facts of their hand-shakes beside them.
//!
//! An append is all or nothing, and changes nothing here where it is refused. What a 3.1.1 client published and the journal refused is
//! kept as it came, and appended again behind what was appended before it: the client cannot be told.

use godwit_mesh::broker::Claim;
use godwit_mesh::event::MqttPublish;
use godwit_mesh::journal::{Receipt, Refused};

use super::acks::{Outcome, Run};
use super::duplicates::{self, Undecided};
use super::hub::Hub;
use super::packet::Version;
use super::packet::frame::Frame;
use super::packet::publish::Publish;
use super::publish::{Inbound, Topic};
use super::qos2;
use super::routes::Route;
use super::session::Session;

impl Inbound {
    /// What is to be stored of them. Where the append is refused it is given up again.
    pub(super) fn claim(
        &self,
        hub: &Hub,
        session: &Session,
        route: &Route,
        publishes: &[(Publish<'_>, Topic<'_>)],
    ) -> Result<Option<Box<Claim>>, Undecided> {
        let Some(broker) = &route.broker else { return Ok(None) };
        duplicates::claim(broker, &hub.clock, |name| {
            let mut without_alias = Vec::new();
            publishes
                .iter()
                .map(|(publish, topic)| name(&self.record(session, publish, topic, &mut without_alias)))
                .collect()
        })
    }

    /// Appends them, but of duplicates only the facts of their hand-shakes.
    pub(super) fn append(
        &self,
        hub: &Hub,
        session: &Session,
        route: &Route,
        before: Option<&Receipt>,
        publishes: &[(Publish<'_>, Topic<'_>)],
        claim: Option<&Claim>,
    ) -> Result<Outcome, Refused> {
        let wanted = |at: usize| claim.is_none_or(|claim| claim.wanted.get(at).is_none_or(|wanted| *wanted));
        let keeps_facts = self.expiry_seconds > 0;
        if !publishes.iter().enumerate().any(|(at, (publish, _))| wanted(at) || (publish.qos == 2 && keeps_facts)) {
            return Ok(Outcome::Known(Ok(())));
        }
        let arrival_ms = hub.clock.wall_ms();
        let mut without_alias = Vec::new();
        let mut key = Vec::new();
        let value = qos2::value(self.expiry_seconds);
        let receipt = route.journal.append_after(before, |append| {
            for (at, (publish, topic)) in publishes.iter().enumerate() {
                let record = self.record(session, publish, topic, &mut without_alias);
                let has_fact = publish.qos == 2 && keeps_facts;
                if has_fact {
                    qos2::key(&mut key, &session.client_id, publish.packet_id);
                }
                match (wanted(at), has_fact) {
                    (true, true) => append.event_with_fact(&key, &value, |out| route.encode(out, &record, arrival_ms)),
                    (true, false) => append.event(|out| route.encode(out, &record, arrival_ms)),
                    (false, true) => append.put(&key, &value),
                    (false, false) => {}
                }
            }
        })?;
        Ok(Outcome::Receipt(receipt))
    }

    /// Appends the refused runs again, oldest first, after `Settled::TryAgain`. Stops at the first that the journal does not
    /// take: it and all behind it stay refused.
    pub(super) fn try_again(&mut self, hub: &Hub, session: &Session) {
        for at in 0..self.acks.len() {
            let Some(run) = self.acks.run(at).filter(|run| run.is_to_be_tried_again()) else { continue };
            let Some(route) = &run.route else { continue };
            let before = at.checked_sub(1).and_then(|at| self.acks.run(at)).and_then(Run::receipt);
            let mut publishes = Vec::new();
            let packets = self.acks.packets(at);
            let mut rest = &*packets;
            while let Ok(Some(frame)) = Frame::next(rest, usize::MAX) {
                if let Ok(publish) = Publish::read(&frame, self.version, &hub.limits) {
                    publishes.push((publish, Topic::InPacket(publish.topic)));
                }
                rest = rest.get(frame.whole.len()..).unwrap_or_default();
            }
            // Not known yet: the next try asks again.
            let Ok(claim) = self.claim(hub, session, route, &publishes) else { return };
            let outcome = self.append(hub, session, route, before, &publishes, claim.as_deref());
            drop(publishes);
            let Ok(outcome) = outcome else { return };
            self.acks.decide(at, outcome, claim);
        }
    }

    /// A publish as it is stored.
    pub(super) fn record<'a>(
        &self,
        session: &'a Session,
        publish: &'a Publish<'_>,
        topic: &'a Topic<'_>,
        without_alias: &'a mut Vec<u8>,
    ) -> MqttPublish<'a> {
        MqttPublish {
            client_id: &session.client_id,
            topic: topic.name(),
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
            v5: self.version == Version::V5,
            properties: publish.lasting_properties(without_alias),
            payload: publish.payload,
        }
    }
}
