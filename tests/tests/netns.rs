//! Promise: what [`link`](../link.rs) shows with a relay also holds where the kernel itself cuts, drops and falls silent. An agent in
//! a network namespace of its own, as root.

use std::time::{Duration, Instant};

use anyhow::Result;
use godwit_tests::audit;
use godwit_tests::keys;
use godwit_tests::lab::{self, Lab};
use godwit_tests::load::{Load, Plan};
use godwit_tests::need;
use godwit_tests::net::Namespace;
use godwit_tests::node::{DEFAULT_BROKER, Node};

const SETTLE: Duration = Duration::from_secs(30);

/// A gateway on the machine's side of a link, an agent on the other.
struct Apart {
    agent: Node,
    gateway: Node,
    namespace: Namespace,
}

impl Apart {
    fn start(lab: &Lab, number: u8) -> Result<Self> {
        let namespace = Namespace::new(number)?;
        let credentials = lab.path().join("agents");
        let token = lab.write("token", &keys::token(&credentials, "agent-1")?)?;
        let mut gateway = Node::gateway(lab)?;
        gateway.listen(namespace.outside());
        gateway.set("http.insecure", "true");
        gateway.set("auth.credentials", &credentials.display().to_string());
        let mut agent = Node::agent(lab, "agent-1")?;
        agent.listen(namespace.inside());
        agent.set("http.insecure", "true");
        agent.set("mqtt.insecure", "true");
        agent.set("gateway.token-file", &token.display().to_string());
        agent.uplink(gateway.http());
        agent.before = namespace.words();
        gateway.bearer = Some(std::fs::read_to_string(&token)?);
        gateway.start()?;
        agent.start()?;
        Ok(Self { agent, gateway, namespace })
    }

    /// Load by clients inside, whom the link's fate does not touch.
    fn load(&self) -> Load {
        let mut plan = Plan::new(self.agent.mqtt());
        (plan.clients, plan.rate) = (3, 200);
        plan.inside = Some(self.namespace.path());
        Load::start(plan)
    }

    fn settle(&self, load: Load) -> Result<audit::Tally> {
        let records = load.finish(SETTLE)?;
        self.gateway.wait_accepted(DEFAULT_BROKER, self.agent.accepted(DEFAULT_BROKER)?, SETTLE)?;
        let (agent, gateway) = (self.agent.events(DEFAULT_BROKER)?, self.gateway.events(DEFAULT_BROKER)?);
        audit::same(&agent, &gateway)?;
        audit::against_clients(&records, &gateway)
    }
}

#[test]
fn an_interface_that_goes_down_and_up() -> Result<()> {
    need!("an_interface_that_goes_down_and_up", root, "ip");
    lab::run(|lab| {
        let apart = Apart::start(lab, 201)?;
        let load = apart.load();
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(700));
            apart.namespace.link(false)?;
            std::thread::sleep(Duration::from_millis(1500));
            apart.namespace.link(true)?;
        }
        println!("3 times down and up: {}", apart.settle(load)?);
        Ok(())
    })
}

#[test]
fn packets_that_vanish_without_a_word() -> Result<()> {
    need!("packets_that_vanish_without_a_word", root, "ip", "nft");
    lab::run(|lab| {
        let apart = Apart::start(lab, 202)?;
        let load = apart.load();
        for _ in 0..2 {
            std::thread::sleep(Duration::from_secs(1));
            apart.namespace.lose(100)?;
            std::thread::sleep(Duration::from_secs(5));
            apart.namespace.heal()?;
        }
        let begun = Instant::now();
        let tally = apart.settle(load)?;
        println!("2 black holes of 5 s: {tally}; settled {:?} after", begun.elapsed());
        Ok(())
    })
}

#[test]
fn five_percent_of_all_packets_lost() -> Result<()> {
    need!("five_percent_of_all_packets_lost", root, "ip", "nft");
    lab::run(|lab| {
        let apart = Apart::start(lab, 203)?;
        apart.namespace.lose(5)?;
        let load = apart.load();
        std::thread::sleep(Duration::from_secs(6));
        println!("5 % loss: {}", apart.settle(load)?);
        Ok(())
    })
}
