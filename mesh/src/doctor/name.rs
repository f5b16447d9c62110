//! The gateway's name: has it an address, and how long does the look-up take?

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::STEP;
use super::fetch::Endpoint;
use super::report::Finding;
use super::units::short;

const CHECK: &str = "name";

/// Looks the gateway's name up.
///
/// # Errors
/// The finding, where there is no address.
pub async fn name(endpoint: &Endpoint) -> Result<(Finding, Vec<SocketAddr>), Finding> {
    let begun = Instant::now();
    let addresses = endpoint.resolve().await.map_err(|e| {
        Finding::fail(
            CHECK,
            e.to_string(),
            "look at /etc/resolv.conf and the network, or give the gateway's address in gateway.url",
        )
    })?;
    let finding = match endpoint.name() {
        None => Finding::ok(CHECK, format!("{} needs no look-up", endpoint.shown())),
        Some(name) => looked_up(name, &addresses, begun.elapsed()),
    };
    Ok((finding, addresses))
}

fn looked_up(name: &str, addresses: &[SocketAddr], took: Duration) -> Finding {
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let found = format!("{name} is {} ({})", shown.join(", "), short(took));
    if took < STEP {
        return Finding::ok(CHECK, found);
    }
    Finding::warn(CHECK, found, "a name server does not answer: look at those in /etc/resolv.conf, the first above all")
}

#[cfg(test)]
mod tests {
    use super::super::report::Verdict;
    use super::super::{GATEWAY, LOOKUP, TOTAL};
    use super::*;

    #[test]
    fn a_name_server_that_does_not_answer_is_a_warning() {
        let looked = |seconds| looked_up("gw", &["192.0.2.1:1".parse().expect("one")], Duration::from_secs(seconds));
        assert_eq!((looked(1).verdict, looked(5).verdict), (Verdict::Ok, Verdict::Warn));
        assert!(looked(5).remedy.contains("resolv.conf"));
        assert!(LOOKUP + GATEWAY < TOTAL, "what was found earlier is told");
    }
}
