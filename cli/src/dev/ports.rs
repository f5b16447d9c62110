//! Ports: the default one, or the next that is free.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, bail};

/// How many ports after the default one are tried.
const TRIES: u16 = 50;

/// The ports that are tried in the place of a default one that is taken.
pub(super) fn after(default: u16) -> std::ops::Range<u16> {
    default.saturating_add(1)..default.saturating_add(TRIES)
}

/// The address given, or the first free port on loopback from `default` on.
///
/// # Errors
/// When none of the ports is free.
pub(super) fn or_next_free(given: Option<SocketAddr>, default: u16) -> anyhow::Result<SocketAddr> {
    if let Some(given) = given {
        return Ok(given);
    }
    for port in default..default.saturating_add(TRIES) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        match TcpListener::bind(address) {
            Ok(_) => return Ok(address),
            Err(e) if e.kind() == ErrorKind::AddrInUse => {}
            Err(e) => return Err(e).with_context(|| format!("trying port {port}")),
        }
    }
    bail!("no port from {default} to {} is free", default.saturating_add(TRIES - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_a_later_one() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let other = or_next_free(None, port).expect("a free port");
        assert!(other.port() > port);
        let given = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(or_next_free(Some(given), 1).expect("as given"), given);
    }
}
