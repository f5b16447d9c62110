//! The way to the gateway, step by step: its name, TCP, TLS, and whether what answers is a gateway that lets this agent in.
//!
//! A step that fails ends the way: what comes after it is not known.

use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;

use super::certificate;
use super::fetch::{Answer, Endpoint, FetchError};
use super::report::{Finding, Verdict};
use super::units::short;

const NAME: &str = "name";
const GATEWAY: &str = "gateway";
const TLS: &str = "gateway-tls";

/// Clocks further apart than this are worth a word.
const APART_SECONDS: u64 = 60;

/// What came of the way to the gateway.
#[derive(Debug)]
pub struct Gateway {
    /// The findings.
    pub findings: Vec<Finding>,
    /// The gateway's version, or why it is not known.
    pub version: Result<String, String>,
}

/// Looks the gateway's name up.
///
/// # Errors
/// The finding, where there is no address.
pub async fn name(endpoint: &Endpoint) -> Result<(Finding, Vec<SocketAddr>), Finding> {
    let begun = Instant::now();
    let addresses = endpoint.resolve().await.map_err(|e| {
        Finding::fail(
            NAME,
            e.to_string(),
            "look at /etc/resolv.conf and the network, or give the gateway's address in gateway.url",
        )
    })?;
    let finding = match endpoint.name() {
        None => Finding::ok(NAME, format!("{} needs no look-up", endpoint.shown())),
        Some(name) => {
            let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            Finding::ok(NAME, format!("{name} is {} ({})", shown.join(", "), short(begun.elapsed())))
        }
    };
    Ok((finding, addresses))
}

/// Asks the gateway at these addresses. `now` is the wall clock in seconds since 1970, `None` while it is not set.
pub async fn gateway(endpoint: &Endpoint, addresses: &[SocketAddr], token: Option<&str>, now: Option<u64>) -> Gateway {
    let health = match endpoint.get(addresses, "/healthz", None).await {
        Ok(answer) => answer,
        Err(error) => {
            let version = Err("it cannot be asked".to_owned());
            return Gateway { findings: failed(&error, endpoint), version };
        }
    };
    let mut findings = vec![healthy(endpoint, &health, now)];
    if endpoint.https() {
        findings.push(shown(&health, now));
    }
    let status = endpoint.get(addresses, "/status", token).await;
    let (known, version) = version(status, token.is_some());
    if let Some((verdict, found, remedy)) = known
        && let Some(first) = findings.first_mut()
    {
        *first = first.clone().and(verdict, found, remedy);
    }
    Gateway { findings, version }
}

fn failed(error: &FetchError, endpoint: &Endpoint) -> Vec<Finding> {
    let found = error.to_string();
    match error {
        FetchError::Tls { why, .. } => {
            vec![
                Finding::ok(GATEWAY, format!("{} takes connections", endpoint.shown())),
                Finding::fail(TLS, found, tls_remedy(why)),
            ]
        }
        FetchError::Connect { .. } => {
            let remedy =
                "is the gateway running, its port open to this board, and gateway.url right? events wait meanwhile";
            vec![Finding::fail(GATEWAY, found, remedy)]
        }
        _ => vec![Finding::fail(GATEWAY, found, "is gateway.url right (http or https, port), and is it a gateway?")],
    }
}

/// What to do about what rustls says.
fn tls_remedy(why: &str) -> &'static str {
    const KNOWN: [(&str, &str); 6] = [
        ("not valid yet", "set the clock of this board"),
        ("expired", "renew the gateway's certificate (and is this board's clock right?)"),
        ("UnknownIssuer", "gateway.ca-file names the authority of the gateway's certificate"),
        ("CaUsedAsEndEntity", "make the gateway's certificate with -addext basicConstraints=critical,CA:FALSE"),
        ("not valid for name", "put the name of gateway.url into the gateway's certificate, or use one that is in it"),
        ("no certificate authority", "install ca-certificates, or set gateway.ca-file"),
    ];
    let found = KNOWN.iter().find(|(sign, _)| why.contains(sign)).map(|(_, remedy)| *remedy);
    found.unwrap_or("is it https there? look at the gateway's http.tls-cert")
}

fn healthy(endpoint: &Endpoint, answer: &Answer, now: Option<u64>) -> Finding {
    let took = answer.connected_in;
    let found = format!("{}: TCP in {}, /healthz answers {}", endpoint.shown(), short(took), answer.status);
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let good = answer.status == 200 && answer.body.trim_ascii() == b"ok";
    let finding = if good {
        Finding::ok(GATEWAY, found)
    } else {
        Finding::fail(
            GATEWAY,
            found,
            "it is no gateway, or a proxy before it does not pass it on: is the path of gateway.url right?",
        )
    };
    let finding = finding.with("connect_us", us).with("status", answer.status);
    let theirs = answer.date.as_deref().and_then(|date| httpdate::parse_http_date(date).ok());
    let theirs = theirs.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).map(|since| since.as_secs());
    match theirs.zip(now).map(|(theirs, ours)| theirs.abs_diff(ours)) {
        Some(apart) if apart > APART_SECONDS => {
            let found = format!("its clock and ours are {apart} s apart");
            finding.and(Verdict::Warn, &found, "set the one that is wrong; run an NTP client on both")
        }
        _ => finding,
    }
}

/// The chain that the gateway showed; rustls has found it good.
fn shown(answer: &Answer, now: Option<u64>) -> Finding {
    let all: Option<Vec<_>> = answer.chain.iter().map(|der| certificate::parse(der)).collect();
    let (Some(all), Some(now)) = (all, now.and_then(|now| i64::try_from(now).ok())) else {
        return Finding::ok(TLS, "it proves who it is; when its certificate ends is not known");
    };
    let worst = all.iter().map(|one| one.standing(now)).max_by_key(|(verdict, _)| *verdict);
    let (verdict, found) = worst.unwrap_or((Verdict::Unknown, "it showed no certificate".to_owned()));
    let remedy = if verdict == Verdict::Ok { "" } else { "renew the gateway's certificate" };
    let found = format!("it proves who it is; certificates: {}, the first to end {found}", all.len());
    Finding::new(TLS, verdict, found, remedy)
}

/// A verdict with what was found and what to do.
type Known = (Verdict, &'static str, &'static str);

/// What `/status` tells of the version, and of whether we may ask.
fn version(answer: Result<Answer, FetchError>, token: bool) -> (Option<Known>, Result<String, String>) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (None, Err(error.to_string())),
    };
    match answer.status {
        200 => (None, version_in(&answer.body)),
        401 if token => {
            let remedy = "make one there with `godwit token FILE AGENT-ID` and put it into gateway.token-file";
            (Some((Verdict::Fail, "it does not know our token", remedy)), Err("it refuses our token".to_owned()))
        }
        401 => {
            let remedy = "`godwit token` there makes one for gateway.token-file";
            (Some((Verdict::Fail, "it wants a token, and none is configured", remedy)), Err("it wants a token".to_owned()))
        }
        status => (None, Err(format!("/status answers {status}"))),
    }
}

/// The member `version` of a `/status`.
///
/// # Errors
/// Why there is none.
pub fn version_in(status: &[u8]) -> Result<String, String> {
    let status: Value = serde_json::from_slice(status).map_err(|_| "/status is not JSON".to_owned())?;
    status.get("version").and_then(Value::as_str).map(str::to_owned).ok_or_else(|| "/status tells no version".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::ClientTls;
    use std::time::Duration;

    fn answer(status: u16, body: &str) -> Answer {
        let date = Some("Fri, 15 Jan 2027 08:00:00 GMT".to_owned());
        Answer { status, date, body: body.as_bytes().to_vec(), chain: Vec::new(), connected_in: Duration::from_millis(3) }
    }

    fn verdict(status: u16, body: &str, now: u64) -> Verdict {
        let endpoint = Endpoint::new("http://127.0.0.1:8090", ClientTls::new(None)).expect("a URL");
        healthy(&endpoint, &answer(status, body), Some(now)).verdict
    }

    #[test]
    fn only_a_gateway_is_taken_for_one() {
        assert_eq!(verdict(200, "ok", 1_800_000_000), Verdict::Ok);
        assert_eq!(verdict(200, "<html>welcome to nginx", 1_800_000_000), Verdict::Fail);
        assert_eq!(verdict(502, "ok", 1_800_000_000), Verdict::Fail);
        assert_eq!(verdict(200, "ok", 1_800_000_000 + 300), Verdict::Warn, "clocks apart");
    }

    #[test]
    fn a_version_or_the_reason_why_not() {
        assert_eq!(version(Ok(answer(200, "{\"version\":\"0.1.0\"}")), false), (None, Ok("0.1.0".to_owned())));
        let (known, version_of) = version(Ok(answer(401, "")), true);
        assert_eq!(known.map(|(verdict, ..)| verdict), Some(Verdict::Fail));
        assert!(version_of.is_err());
        assert_eq!(version(Ok(answer(403, "")), true).1, Err("/status answers 403".to_owned()));
        assert!(version(Ok(answer(200, "ok")), true).1.is_err());
    }

    #[test]
    fn what_rustls_says_has_a_remedy() {
        let why = "invalid peer certificate: certificate expired: verification time 1800000000 (UNIX), but …";
        assert!(tls_remedy(why).contains("renew"));
        assert!(tls_remedy("invalid peer certificate: UnknownIssuer").contains("ca-file"));
        assert!(tls_remedy("received corrupt message of type InvalidContentType").contains("https"));
    }
}
