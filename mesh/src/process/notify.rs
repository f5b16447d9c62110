//! systemd's notification protocol (sd_notify(3)): lines to a datagram socket named by `NOTIFY_SOCKET`.
//!
//! Without that variable nothing is sent. A failed send is ignored: readiness must not depend on who watches.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Tells systemd how this process does.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads where to send from the environment (`NOTIFY_SOCKET`, `WATCHDOG_USEC`).
    #[must_use]
    pub fn from_environment() -> Self {
        let address = std::env::var("NOTIFY_SOCKET").ok().and_then(|path| address(&path));
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let watchdog = std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok()).map(Duration::from_micros);
        Self { socket, watchdog }
    }

    /// All listeners are open.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Manifests, certificates and credentials are being read again; [`Notifier::ready`] ends this.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The process is about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Feeds the watchdog at half its interval until `stop`. Returns at once when systemd does not watch.
    pub async fn feed_watchdog(&self, stop: CancellationToken) {
        let Some(interval) = self.watchdog.filter(|interval| !interval.is_zero() && self.socket.is_some()) else { return };
        let mut ticks = tokio::time::interval(interval / 2);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

/// A path, or a name in the abstract namespace after `@`.
fn address(path: &str) -> Option<SocketAddr> {
    match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => SocketAddr::from_pathname(path).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_reaches_the_socket() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).expect("bound");
        let address = address(path.to_str().expect("text")).expect("an address");
        let notifier = Notifier { socket: Some((UnixDatagram::unbound().expect("a socket"), address)), watchdog: None };
        notifier.ready();
        let mut buffer = [0; 64];
        let length = listener.recv(&mut buffer).expect("a message");
        assert_eq!(&buffer[..length], b"READY=1");
    }

    #[test]
    fn without_systemd_nothing_is_sent() {
        Notifier::default().ready();
        assert!(address("@godwit-test").is_some());
    }
}
