//! The ports that the agent listens on: free, its own already, or somebody else's.
//!
//! A port is tried by binding it without listening: that fails where somebody listens and stops no agent that starts just then. Who has it is looked up in `/proc/net/tcp` (which
//! socket) and `/proc/PID/fd` (whose socket); the second is shown to the owner and to root only.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use socket2::{Domain, Socket, Type};

use super::processes::{Keeper, Process};
use super::report::{Finding, Verdict};

const CHECK: &str = "ports";

/// A listener of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Listener {
    /// Its section: `mqtt`.
    pub section: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
}

/// How a port stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// It can be opened.
    Free,
    /// Somebody listens there; `None` where it cannot be seen who.
    Taken(Option<Process>),
    /// It cannot be opened for another reason.
    Refused(io::ErrorKind),
}

/// The ports of the configuration. `keeper` has the data folder: the agent, if it runs.
#[must_use]
pub fn ports(listeners: &[Listener], keeper: &Keeper) -> Finding {
    let seen: Vec<_> = listeners.iter().map(|listener| (*listener, state(listener.address))).collect();
    judge(&seen, keeper)
}

fn state(address: SocketAddr) -> Port {
    let bound = Socket::new(Domain::for_address(address), Type::STREAM, None).and_then(|socket| {
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    });
    match bound {
        Ok(()) => Port::Free,
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            Port::Taken(listening(address).and_then(owner).and_then(Process::of))
        }
        Err(e) => Port::Refused(e.kind()),
    }
}

fn judge(seen: &[(Listener, Port)], keeper: &Keeper) -> Finding {
    let mut finding = Finding::ok(CHECK, "");
    for (Listener { section, address }, port) in seen {
        let other = format!("stop it, or set {section}.listen to another port");
        let (verdict, found, remedy) = match (port, keeper) {
            (Port::Free, Keeper::Nobody | Keeper::Unseen) => (Verdict::Ok, "is free".to_owned(), String::new()),
            (Port::Free, Keeper::Process(agent)) => {
                let remedy = format!("look at the log of process {}, or give --config as it was started", agent.pid);
                (Verdict::Warn, "is free though the agent runs".to_owned(), remedy)
            }
            (Port::Taken(Some(who)), Keeper::Process(agent)) if who.pid == agent.pid => {
                (Verdict::Ok, format!("is held by our own {} (process {})", who.name, who.pid), String::new())
            }
            (Port::Taken(Some(who)), _) => {
                (Verdict::Fail, format!("is taken by {} (process {})", who.name, who.pid), other)
            }
            (Port::Taken(None), _) => {
                let found = "is held, by our own agent or by another process".to_owned();
                (Verdict::Unknown, found, "run it as root to see whose it is".to_owned())
            }
            (Port::Refused(io::ErrorKind::PermissionDenied), _) => (
                Verdict::Unknown,
                "may not be opened by this user".to_owned(),
                "ports below 1024 need AmbientCapabilities=CAP_NET_BIND_SERVICE; run it as the agent's user to know"
                    .to_owned(),
            ),
            (Port::Refused(io::ErrorKind::AddrNotAvailable), _) => (
                Verdict::Fail,
                "is not an address of this machine".to_owned(),
                format!("set {section}.listen (see ip addr)"),
            ),
            (Port::Refused(kind), _) => {
                (Verdict::Fail, format!("cannot be opened: {kind}"), format!("set {section}.listen"))
            }
        };
        finding = finding.and(verdict, &format!("{section} {address} {found}"), &remedy);
    }
    finding
}

/// The inode of the socket that listens at this address, or at all addresses with this port.
pub(super) fn listening(address: SocketAddr) -> Option<u64> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let all = listeners(&read("/proc/net/tcp")).into_iter().chain(listeners(&read("/proc/net/tcp6")));
    let (same, others): (Vec<_>, Vec<_>) =
        all.filter(|(have, _)| have.port() == address.port()).partition(|(have, _)| have.ip() == address.ip());
    let others = others.into_iter().filter(|(have, _)| have.ip().is_unspecified() || address.ip().is_unspecified());
    same.into_iter().chain(others).map(|(_, inode)| inode).next()
}

/// The listening sockets in `/proc/net/tcp` or `tcp6`: local address and inode. The address is in the machine's byte order, in
/// words of 32 bits; the port is not.
fn listeners(text: &str) -> Vec<(SocketAddr, u64)> {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (ip, port) = local.split_once(':')?;
        let address = SocketAddr::new(ip_address(ip)?, u16::from_str_radix(port, 16).ok()?);
        (*state == "0A").then_some((address, inode.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn ip_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Some(Ipv6Addr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

/// Whether somebody listens at this address of whom this user cannot see who it is.
#[must_use]
pub fn held_unseen(address: SocketAddr) -> bool {
    listening(address).is_some_and(|inode| owner(inode).is_none())
}

/// The process that has this socket open.
pub(super) fn owner(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| holds(*pid, |open| fs::read_link(open).is_ok_and(|to| to.as_os_str() == wanted.as_str())))
}

/// Whether a process has something like this open; of other users' processes only root sees it.
pub(super) fn holds(pid: u32, wanted: impl Fn(&Path) -> bool) -> bool {
    fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().any(|entry| wanted(&entry.path()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Of a little-endian machine.
    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 30123 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 20001 1 0000000000000000 100 0 0 10 0
   2: 0100007F:075B 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 30999 1 0000000000000000 20 4 30 10 -1
";
    const TCP6: &str = "   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 41000 1 0 100 0 0 10 0\nshort line\n";

    #[cfg(target_endian = "little")]
    #[test]
    fn listening_sockets_are_read_and_connections_passed_over() {
        let wanted = [("127.0.0.1:1883", 30123), ("0.0.0.0:22", 20001)];
        assert_eq!(listeners(TCP), wanted.map(|(address, inode)| (address.parse().expect("address"), inode)));
        assert_eq!(listeners(TCP6), [("[::1]:8080".parse().expect("address"), 41000)]);
    }

    #[test]
    fn a_port_is_free_or_has_an_owner() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = taken.local_addr().expect("an address");
        let Port::Taken(Some(who)) = state(address) else { panic!("{:?}", state(address)) };
        assert_eq!(who.pid, std::process::id());
        assert_eq!(super::super::listener_pid(address), Some(std::process::id()));
        assert!(!held_unseen(address), "ours to see");
        drop(taken);
        assert_eq!(state(address), Port::Free);
    }

    #[test]
    fn a_strangers_port_fails_and_our_own_is_good() {
        let process = |pid| Process { pid, name: "mosquitto".to_owned() };
        let verdict = |port, keeper: Option<u32>| {
            let listener = Listener { section: "mqtt", address: "127.0.0.1:1883".parse().expect("address") };
            judge(&[(listener, port)], &keeper.map_or(Keeper::Nobody, |pid| Keeper::Process(process(pid)))).verdict
        };
        assert_eq!(verdict(Port::Free, None), Verdict::Ok);
        assert_eq!(verdict(Port::Free, Some(7)), Verdict::Warn);
        assert_eq!(verdict(Port::Taken(Some(process(7))), Some(7)), Verdict::Ok);
        assert_eq!(verdict(Port::Taken(Some(process(8))), Some(7)), Verdict::Fail);
        assert_eq!(verdict(Port::Taken(Some(process(8))), None), Verdict::Fail);
        assert_eq!(verdict(Port::Taken(None), None), Verdict::Unknown);
        assert_eq!(verdict(Port::Taken(None), Some(7)), Verdict::Unknown);
        assert_eq!(verdict(Port::Refused(io::ErrorKind::AddrNotAvailable), None), Verdict::Fail);
    }
}
