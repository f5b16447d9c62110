//! An agent with its gateway behind a relay, and the question that most proofs end with: is every acknowledged event at the
//! gateway, once, in order, bytes unchanged?

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::audit::{self, Tally};
use crate::lab::Lab;
use crate::load::{Load, Record};
use crate::node::{DEFAULT_BROKER, Node};
use crate::relay::Relay;

/// An agent, its gateway, and the way between them.
#[derive(Debug)]
pub struct Pair {
    /// The agent.
    pub agent: Node,
    /// The gateway.
    pub gateway: Node,
    /// What stands between.
    pub relay: Relay,
}

impl Pair {
    /// Starts all three.
    ///
    /// # Errors
    /// When one does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        let mut pair = Self::new(lab)?;
        pair.gateway.start()?;
        pair.agent.start()?;
        Ok(pair)
    }

    /// Makes all three; agent and gateway are not started.
    ///
    /// # Errors
    /// When a folder or listener cannot be made.
    pub fn new(lab: &Lab) -> Result<Self> {
        let gateway = Node::gateway(lab)?;
        let relay = Relay::start(gateway.http())?;
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.uplink(relay.address());
        Ok(Self { agent, gateway, relay })
    }

    /// Ends the load, waits until all that the agent took is at the gateway, and compares clients, agent and gateway.
    ///
    /// # Errors
    /// When it does not arrive within `limit`, or a promise is broken.
    pub fn settle(&self, load: Load, limit: Duration) -> Result<Tally> {
        let records = load.finish(limit)?;
        self.settled(&records, limit)
    }

    /// As [`Pair::settle`], for a load that has ended.
    ///
    /// # Errors
    /// As [`Pair::settle`].
    pub fn settled(&self, records: &[Record], limit: Duration) -> Result<Tally> {
        self.arrived(limit)?;
        let agent = self.agent.events(DEFAULT_BROKER)?;
        let tally = audit::against_clients(records, &agent).context("at the agent")?;
        let gateway = self.gateway.events(DEFAULT_BROKER)?;
        audit::against_clients(records, &gateway).context("at the gateway")?;
        audit::same(&agent, &gateway)?;
        Ok(tally)
    }

    /// Waits until the gateway has taken as much as the agent.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub fn arrived(&self, limit: Duration) -> Result<u64> {
        let accepted = self.agent.accepted(DEFAULT_BROKER)?;
        self.gateway.wait_accepted(DEFAULT_BROKER, accepted, limit)
    }
}
