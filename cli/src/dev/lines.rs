//! What a newcomer sees: where everything is, and lines to paste.

use std::net::SocketAddr;
use std::path::Path;

use godwit_agent::Agent;

use super::ports;
use crate::output::{Style, paint};

/// The text shown when all is ready.
pub(super) fn welcome(agent: &Agent, gateway: SocketAddr, data: &Path, colours: bool) -> String {
    let addresses = agent.addresses();
    let bold = |text: &str| paint(colours, Style::Bold, text);
    let mut text = format!(
        "{}\n\n  agent     {}  http://{}{}{}\n  gateway   http://{gateway}{}\n  data      {}\n",
        bold("Godwit is ready."),
        agent.id(),
        addresses.http,
        other_port(addresses.http, 8080),
        addresses.mqtt.map_or_else(String::new, |mqtt| format!("  mqtt://{mqtt}{}", other_port(mqtt, 1883))),
        other_port(gateway, 8090),
        data.display(),
    );
    text.push_str(&format!("\n{}\n\n", bold("Send an event from another terminal; it goes agent → gateway → sink:")));
    if let Some(mqtt) = addresses.mqtt {
        text.push_str(&format!(
            "  mosquitto_pub -h {} -p {} -q 1 -t sensors/t1 -m '{{\"celsius\":21.5}}'\n",
            mqtt.ip(),
            mqtt.port()
        ));
    }
    text.push_str(&format!(
        "  curl -i http://{}/ -H 'ce-specversion: 1.0' -H 'ce-id: 1' -H 'ce-source: /me' -H 'ce-type: hello' \
         -H 'content-type: application/json' -d '{{\"hello\":\"world\"}}'\n",
        addresses.http
    ));
    let server = if addresses.http.port() == 8080 { String::new() } else { format!(" --server http://{}", addresses.http) };
    text.push_str(&format!("  godwit send{server} --type hello --data '{{\"hello\":\"world\"}}'\n"));
    text.push_str(&format!("  godwit get brokers{server}\n"));
    text.push_str(&format!("\n{}\n\n", bold("What arrives at the sink is printed here. Ctrl-C stops; all is kept.")));
    text
}

/// Says why it is not the default port. One chosen by hand is none of the next ones, so it was not taken.
fn other_port(address: SocketAddr, default: u16) -> String {
    if !ports::after(default).contains(&address.port()) { String::new() } else { format!("  (port {default} is taken)") }
}
