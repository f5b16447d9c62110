//! From a TCP connection to a session: TLS, CONNECT, credentials, CONNACK.
//!
//! Until CONNACK a peer is nobody: it has one time limit for everything, and one small buffer.

use std::hash::RandomState;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use godwit_mesh::door::{Denied, Identity};
use godwit_mesh::room::LOOK;
use rumqttd::protocol::{ConnAckProperties, ConnectReturnCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::debug;

use super::connection::Connection;
use super::hub::Hub;
use super::limits::{NO_ROOM, SMALL_PACKET};
use super::packet::connect::{Connect, Refusal};
use super::packet::frame::Frame;
use super::packet::{Fault, Version, control, reason};
use super::publish::Inbound;
use super::rate::Rate;
use super::seat::{Claim, NoSeat};
use super::transport::Transport;

/// Largest CONNECT: a will of the largest size, and as much again.
const MAX_CONNECT_BYTES: usize = 256 << 10;
/// Bytes of a CONNECT that are read at once.
const CHUNK: usize = 512;

/// Numbers for client ids given to those who have none.
static NEXT_CLIENT: AtomicU64 = AtomicU64::new(1);
static PROCESS: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Why there is no connection. Only for the log: the peer has been told what it is to be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoConnection {
    #[error("the connection broke before CONNECT: {0}")]
    Io(#[from] std::io::Error),
    #[error("the connection was closed before CONNECT")]
    Closed,
    #[error("{0}")]
    Fault(Fault),
    #[error("refused: {0:?}")]
    Refused(ConnectReturnCode),
}

/// Takes a peer in. Cancel-safe in that a session is never left held.
pub(super) async fn shake(
    hub: &Arc<Hub>,
    mut transport: Transport,
    peer: SocketAddr,
) -> Result<Box<Connection>, NoConnection> {
    let (mut connect, input) = match read_connect(hub, &mut transport).await {
        Ok(read) => read,
        Err(Failed::Other(why)) => return Err(why),
        Err(Failed::Refusal(Refusal::Close(fault))) => {
            hub.counters.faults.add(1);
            return Err(NoConnection::Fault(fault));
        }
        Err(Failed::Refusal(Refusal::Answer(version, code))) => {
            return Err(refuse(hub, &mut transport, version, code).await);
        }
    };
    let version = connect.version;
    let identity = match check_credentials(hub, &connect).await {
        Ok(identity) => identity,
        Err(code) => {
            hub.counters.refused_credentials.add(1);
            return Err(refuse(hub, &mut transport, version, code).await);
        }
    };
    let will = match connect.will.take().map(|will| hub.wills.keep(will)) {
        None => None,
        Some(Some(will)) => Some(will),
        Some(None) => {
            debug!(%peer, "no room for a large will");
            let code = if version == Version::V5 {
                ConnectReturnCode::QuotaExceeded
            } else {
                ConnectReturnCode::ServiceUnavailable
            };
            return Err(refuse(hub, &mut transport, version, code).await);
        }
    };
    let assigned = match client_id(hub, &connect) {
        Ok(assigned) => assigned,
        Err(code) => return Err(refuse(hub, &mut transport, version, code).await),
    };
    let expiry_seconds = expiry_seconds(hub, &connect);
    let claim = Claim {
        client_id: assigned.as_deref().unwrap_or(&connect.client_id),
        clean: connect.clean,
        expiry_seconds,
        version,
        peer,
        identity: identity.as_ref(),
    };
    let mut seat = match hub.claim(claim).await {
        Ok(seat) => seat,
        Err(no_seat) => {
            let code = match (no_seat, version) {
                (NoSeat::Journal, Version::V5) => ConnectReturnCode::ServerUnavailable,
                (_, Version::V4) => ConnectReturnCode::ServiceUnavailable,
            };
            return Err(refuse(hub, &mut transport, version, code).await);
        }
    };
    // Whoever has a seat is found when credentials change; they may have changed before.
    if !hub.in_force(identity.as_ref()) {
        seat.leave().await;
        hub.counters.refused_credentials.add(1);
        return Err(refuse(hub, &mut transport, version, ConnectReturnCode::NotAuthorized).await);
    }
    let mut out = Vec::new();
    let properties = announce(hub, &connect, expiry_seconds, assigned);
    control::connack(&mut out, version, seat.present, ConnectReturnCode::Success, Some(properties));
    transport.write_all(&out).await?;
    transport.flush().await?;
    hub.counters.connections.add(1);
    seat.will = will;
    let rate = hub.limits.publishes_per_second.map(|n| Rate::new(n, hub.clock.elapsed_ms()));
    let inbound = Inbound::new(version, expiry_seconds, std::mem::take(&mut seat.handshakes), rate);
    let flow = super::connection::Flow {
        version,
        keep_alive_ms: u64::from(connect.keep_alive) * 1500,
        receive_maximum: connect.receive_maximum,
        max_packet_bytes: connect.max_packet_bytes,
    };
    Ok(Connection::new(Arc::clone(hub), transport, seat, inbound, flow, input))
}

enum Failed {
    Refusal(Refusal),
    Other(NoConnection),
}

/// Reads CONNECT, and perhaps some of what comes after it.
async fn read_connect(hub: &Hub, transport: &mut Transport) -> Result<(Connect, Vec<u8>), Failed> {
    let mut input = Vec::new();
    let max = hub.limits.max_packet_bytes.min(MAX_CONNECT_BYTES);
    let mut room = None;
    loop {
        let fault = |fault| Failed::Refusal(Refusal::Close(fault));
        if input.first().is_some_and(|first| *first != 0x10) {
            return Err(fault(Fault::protocol("the first packet is no CONNECT")));
        }
        if let Some(frame) = Frame::next(&input, max).map_err(fault)? {
            let connect = Connect::read(&frame, &hub.limits).map_err(Failed::Refusal)?;
            let len = frame.whole.len();
            input.drain(..len);
            return Ok((connect, input));
        }
        if let Some(total) = Frame::announced(&input).filter(|&total| total > SMALL_PACKET)
            && input.len() > SMALL_PACKET
            && room.is_none()
        {
            let held = hub.room.take(total, hub.limits.connect_timeout).await;
            let held = held.ok_or_else(|| fault(Fault::new(reason::SERVER_BUSY, NO_ROOM)))?;
            held.arrived(input.len());
            room = Some(held);
        }
        input.reserve(CHUNK);
        let read = {
            let mut reading = std::pin::pin!(transport.read_buf(&mut input));
            loop {
                tokio::select! {
                    read = &mut reading => break read,
                    () = tokio::time::sleep(LOOK), if room.is_some() => {
                        if room.as_ref().is_some_and(|held| hub.room.is_over(held)) {
                            return Err(fault(Fault::new(reason::SERVER_BUSY, "CONNECT came too slowly while others waited")));
                        }
                    }
                }
            }
        };
        match read {
            Ok(0) => return Err(Failed::Other(NoConnection::Closed)),
            Ok(n) => room.iter().for_each(|held| held.arrived(n)),
            Err(error) => return Err(Failed::Other(error.into())),
        }
    }
}

async fn check_credentials(hub: &Hub, connect: &Connect) -> Result<Option<Identity>, ConnectReturnCode> {
    let Some(credentials) = &hub.credentials else { return Ok(None) };
    let not_authorized = ConnectReturnCode::NotAuthorized;
    let Some(user) = &connect.user_name else { return Err(not_authorized) };
    let password = connect.password.as_deref().unwrap_or_default();
    match credentials.check_password(user, password.as_bytes()).await {
        Ok(identity) => Ok(Some(identity)),
        Err(Denied::Wrong) => Err(ConnectReturnCode::BadUserNamePassword),
        Err(Denied::Busy) if connect.version == Version::V5 => Err(ConnectReturnCode::ServerBusy),
        Err(Denied::Busy) => Err(ConnectReturnCode::ServiceUnavailable),
    }
}

/// A client id for a client that has none (5.0, 3.1.3.1); an error if the one it has is not taken.
fn client_id(hub: &Hub, connect: &Connect) -> Result<Option<String>, ConnectReturnCode> {
    if connect.client_id.len() > hub.limits.max_client_id_bytes {
        return Err(ConnectReturnCode::ClientIdentifierNotValid);
    }
    if !connect.client_id.is_empty() {
        return Ok(None);
    }
    if connect.version == Version::V4 && !connect.clean {
        return Err(ConnectReturnCode::ClientIdentifierNotValid);
    }
    // The hasher's keys are random and differ between processes; the number tells clients of this one apart.
    let process = std::hash::BuildHasher::hash_one(&*PROCESS, "client id");
    Ok(Some(format!("auto-{process:016x}-{}", NEXT_CLIENT.fetch_add(1, Ordering::Relaxed))))
}

fn expiry_seconds(hub: &Hub, connect: &Connect) -> u32 {
    let longest = u32::try_from(hub.limits.session_expiry.as_secs()).unwrap_or(u32::MAX);
    match connect.version {
        Version::V4 if connect.clean => 0,
        Version::V4 => longest,
        Version::V5 => connect.session_expiry.unwrap_or(0).min(longest),
    }
}

/// What CONNACK tells an MQTT 5.0 client (5.0, 3.2.2.3).
fn announce(hub: &Hub, connect: &Connect, expiry_seconds: u32, assigned: Option<String>) -> ConnAckProperties {
    let limits = &hub.limits;
    ConnAckProperties {
        session_expiry_interval: (connect.session_expiry.unwrap_or(0) != expiry_seconds).then_some(expiry_seconds),
        receive_max: Some(limits.receive_maximum),
        retain_available: Some(0),
        max_packet_size: u32::try_from(limits.max_packet_bytes).ok(),
        assigned_client_identifier: assigned,
        topic_alias_max: Some(limits.topic_alias_maximum),
        wildcard_subscription_available: Some(1),
        subscription_identifiers_available: Some(1),
        shared_subscription_available: Some(0),
        ..ConnAckProperties::default()
    }
}

async fn refuse(hub: &Hub, transport: &mut Transport, version: Version, code: ConnectReturnCode) -> NoConnection {
    hub.counters.refused_connects.add(1);
    debug!(?code, "CONNECT refused");
    let mut out = Vec::new();
    let code = match (version, code) {
        (Version::V4, ConnectReturnCode::ServerBusy) => ConnectReturnCode::ServiceUnavailable,
        (_, code) => code,
    };
    control::connack(&mut out, version, false, code, None);
    // The peer may have gone already; it is being let go anyway.
    let _ = transport.write_all(&out).await;
    let _ = transport.shutdown().await;
    NoConnection::Refused(code)
}
