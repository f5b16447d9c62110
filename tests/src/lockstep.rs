//! Load in lockstep: one connection that sends a burst of events in one write, waits for all its answers, and only then sends the
//! next, so that a server does the same work in the same order from one run to the next. What it does can be counted.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::{http, load, mqtt};

/// Bytes of each event's payload.
pub const PAYLOAD: usize = 256;
/// The topic by MQTT.
pub const TOPIC: &str = "load/lockstep";
/// How long an answer may take; a profiler makes a server a hundred times slower.
const LIMIT: Duration = Duration::from_secs(60);

/// The connection.
#[derive(Debug)]
pub struct Lockstep {
    stream: TcpStream,
    burst: u16,
    /// The burst as it is sent.
    bytes: Vec<u8>,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Mqtt,
    Http,
}

impl Lockstep {
    /// Publishes at QoS 1, `burst` at a time.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn mqtt(to: SocketAddr, burst: u16) -> Result<Self> {
        let mut stream = connect(to)?;
        let mut bytes = Vec::new();
        mqtt::connect(&mut bytes, "lockstep", true, 0, None);
        stream.write_all(&bytes)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        ensure!(answer[0] == 0x20 && answer[3] == 0, "refused: {answer:?}");
        bytes.clear();
        for id in 1..=burst {
            mqtt::publish(&mut bytes, TOPIC, 1, id, false, &load::payload("lockstep", u64::from(id), PAYLOAD));
        }
        Ok(Self { stream, burst, bytes, protocol: Protocol::Mqtt })
    }

    /// Posts events in binary mode to the default broker, `burst` pipelined.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn http(to: SocketAddr, burst: u16) -> Result<Self> {
        let stream = connect(to)?;
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", "00000000-0000-0000-0000-000000000000"),
            ("ce-source", "/lockstep"),
            ("ce-type", "lockstep.event"),
            ("content-type", "application/json"),
        ];
        let data = load::payload("lockstep", 0, PAYLOAD);
        let one = http::encode(&to.to_string(), "POST", "/default/default", &headers, &data, true);
        Ok(Self { stream, burst, bytes: one.repeat(usize::from(burst)), protocol: Protocol::Http })
    }

    /// Sends so many bursts and waits for all their answers.
    ///
    /// # Errors
    /// When the connection breaks or an answer is no acknowledgement.
    pub fn run(&mut self, bursts: u32) -> Result<()> {
        let mut read = Vec::with_capacity(64 << 10);
        for _ in 0..bursts {
            self.stream.write_all(&self.bytes)?;
            read.clear();
            let mut buffer = [0; 4096];
            while !acknowledged(self.protocol, &read, self.burst)? {
                let size = self.stream.read(&mut buffer).context("an acknowledgement")?;
                ensure!(size > 0, "the server closed the connection after {:?}", String::from_utf8_lossy(&read));
                read.extend_from_slice(buffer.get(..size).unwrap_or_default());
            }
        }
        Ok(())
    }
}

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Whether `burst` answers are there, and nothing else.
fn acknowledged(protocol: Protocol, mut read: &[u8], burst: u16) -> Result<bool> {
    let mut answers = 0;
    loop {
        let end = match protocol {
            Protocol::Mqtt => mqtt::next(read).map(|(packet, end)| (matches!(packet, mqtt::Packet::PubAck(_)), end)),
            // A 202 has no body.
            Protocol::Http => {
                read.windows(4).position(|four| four == b"\r\n\r\n").map(|end| (read.starts_with(b"HTTP/1.1 202"), end + 4))
            }
        };
        let Some((good, end)) = end else { return Ok(answers == burst && read.is_empty()) };
        ensure!(good, "no acknowledgement: {:?}", String::from_utf8_lossy(read));
        answers += 1;
        read = read.get(end..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_done_when_all_its_answers_are_whole() {
        let pubacks = [0x40, 2, 0, 1, 0x40, 2, 0, 2];
        assert!(acknowledged(Protocol::Mqtt, &pubacks, 2).expect("acknowledgements"));
        assert!(!acknowledged(Protocol::Mqtt, &pubacks[..7], 2).expect("acknowledgements"));
        assert!(acknowledged(Protocol::Mqtt, &[0xd0, 0], 1).is_err());
        let answer = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
        assert!(acknowledged(Protocol::Http, &answer.repeat(3), 3).expect("answers"));
        assert!(!acknowledged(Protocol::Http, &answer[..20], 1).expect("answers"));
        assert!(acknowledged(Protocol::Http, b"HTTP/1.1 503 No\r\n\r\n", 1).is_err());
    }
}
