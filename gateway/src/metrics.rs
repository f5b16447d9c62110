//! The agents in `/metrics`: how many have a link, and how far each is behind.

use godwit_mesh::http::metrics::Metrics;
use serde_json::Value;

use crate::sync::AgentSync;

/// Adds the agents to `/metrics`.
pub(crate) fn register(metrics: &Metrics, sync: &AgentSync) {
    let sync = sync.clone();
    metrics.collect(move |samples| {
        let status = sync.status();
        let agents = status.as_array().map_or(&[][..], Vec::as_slice);
        let is_up = |agent: &&Value| agent.pointer("/link/state").and_then(Value::as_str) == Some("up");
        let up = agents.iter().filter(is_up).count();
        let help = "Agents known here, by the state of their link.";
        samples.gauge("godwit_agents", help, &[("state", "up")], up);
        samples.gauge("godwit_agents", help, &[("state", "down")], agents.len() - up);
        for agent in agents {
            let id = agent.get("id").and_then(Value::as_str).unwrap_or_default();
            for broker in agent.get("brokers").and_then(Value::as_array).into_iter().flatten() {
                let text = |name: &str| broker.get(name).and_then(Value::as_str).unwrap_or_default();
                let labels = [("agent", id), ("namespace", text("namespace")), ("broker", text("name"))];
                let lag = broker.get("lag").and_then(Value::as_u64).unwrap_or(0);
                let help = "Events that an agent has, by its own last word, and the gateway has not.";
                samples.gauge("godwit_agent_lag_events", help, &labels, lag);
            }
        }
    });
}
