//! The way to the gateway from its address on, step by step: TCP, TLS, and whether what answers is a gateway that lets this agent in.
//!
//! A step that fails ends the way: what comes after it is not known. No question makes an entry at the gateway
//! that the agent's own link does not make.

use std::net::SocketAddr;

use serde_json::Value;

use super::GATEWAY as ALL_ANSWERS;
use super::certificate::{self, Certificate};
use super::fetch::{Answer, Endpoint, FetchError};
use super::report::{Finding, Verdict};
use super::units::short;

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

/// The token that the agent shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// It has none.
    None,
    /// This one.
    Is(&'a str),
    /// It has one that this user may not read.
    Unseen,
}

impl<'a> Token<'a> {
    fn shown(self) -> Option<&'a str> {
        if let Self::Is(token) = self { Some(token) } else { None }
    }
}

/// No agent's id: a token that is shown for it is refused with the name of its owner.
const NOBODY: &str = "nobody-godwit-doctor-asks";

/// Asks the gateway at these addresses, within [`super::GATEWAY`]. `id` is the agent's, empty where it has none yet, `None` where
/// it is not known; `now` the wall clock in seconds since 1970, `None` while it is not set.
pub async fn gateway(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    token: Token<'_>,
    id: Option<&str>,
    now: Option<u64>,
) -> Gateway {
    let end = tokio::time::Instant::now() + ALL_ANSWERS;
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
    let late = || format!("no answer within {} s", ALL_ANSWERS.as_secs());
    let (mut version, mut known) = (Err(late()), Some(unheard(&late())));
    let rest = async {
        let mut said = None;
        version = read_version(endpoint.get(addresses, "/version", token.shown()).await, token, &mut said);
        if said.is_none() {
            said = judged(endpoint, addresses, token, id).await.unwrap_or_else(|e| Some(unheard(&e.to_string())));
        }
        known = said;
    };
    let _ = tokio::time::timeout_at(end, rest).await;
    if let Some((verdict, found, remedy)) = known
        && let Some(first) = findings.first_mut()
    {
        *first = first.clone().and(verdict, &found, remedy);
    }
    Gateway { findings, version }
}

/// What the gateway has against this agent. Its door judges before the method is looked at, which here is none of the path's.
async fn judged(
    endpoint: &Endpoint,
    addresses: &[SocketAddr],
    token: Token<'_>,
    id: Option<&str>,
) -> Result<Option<Known>, FetchError> {
    let down = |id: &str| format!("/sync/v1/agents/{id}/down?revision=0");
    let door = endpoint.ask("POST", addresses, &down(NOBODY), None).await?;
    if door.status == 403 {
        return Ok(Some(refused(&door, Token::None)));
    }
    let credentials = door.status == 401;
    let who = match id {
        Some(_) if credentials => NOBODY,
        // Without credentials those on its machine are let in, and known from then on; others are not.
        Some(id) if !id.is_empty() && !addresses.iter().all(|one| one.ip().to_canonical().is_loopback()) => id,
        _ => return Ok(None),
    };
    let answer = endpoint.get(addresses, &down(who), token.shown()).await?;
    Ok(match (answer.status, credentials) {
        (403, true) => foreign(&text(&answer), id.unwrap_or_default()),
        (403, false) => Some(refused(&answer, Token::None)),
        _ => None,
    })
}

/// What there is to say of a token that is not nobody's.
fn foreign(text: &str, id: &str) -> Option<Known> {
    let (owner, _) = text.strip_prefix("the token is ")?.split_once("'s, not ")?;
    let whose = if id.is_empty() { "one that has no id yet" } else { id };
    let remedy = "set agent.id to that name, or make a token there with `godwit token FILE AGENT-ID`";
    (owner != id).then(|| (Verdict::Fail, format!("our token is that of {owner}, and this agent is {whose}"), remedy))
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
    // In one case: it names the same fault now as a sentence, now as the name of the error.
    const KNOWN: [(&str, &str); 7] = [
        ("not valid yet", "set the clock of this board"),
        ("notvalidyet", "set the clock of this board"),
        ("expired", "renew the gateway's certificate (and is this board's clock right?)"),
        ("unknownissuer", "gateway.ca-file names the authority of the gateway's certificate"),
        ("causedasendentity", "put the gateway's own certificate into gateway.ca-file"),
        ("not valid for name", "put the name of gateway.url into the gateway's certificate, or use one that is in it"),
        ("no certificate authority", "install ca-certificates, or set gateway.ca-file"),
    ];
    let why = why.to_ascii_lowercase();
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
    let all: Option<Vec<Certificate>> = answer.chain.iter().map(|der| certificate::parse(der)).collect();
    let unknown = |why: &str, remedy: &str| {
        Finding::unknown(TLS, format!("it proves who it is; when its certificate ends {why}"), remedy)
    };
    let Some(all) = all else {
        return unknown("is not understood", "openssl x509 -noout -dates -in FILE tells, there");
    };
    let Some(now) = now.and_then(|now| i64::try_from(now).ok()) else {
        return unknown("cannot be judged: the clock is not set", "set the clock");
    };
    let worst = certificate::worst(all.iter(), now).map(|one| one.standing(now));
    let (verdict, found) = worst.unwrap_or((Verdict::Unknown, "it showed no certificate".to_owned()));
    let remedy = if verdict == Verdict::Ok { "" } else { "renew the gateway's certificate" };
    let found = format!("it proves who it is; certificates: {}, the first to end {found}", all.len());
    Finding::new(TLS, verdict, found, remedy)
}

/// A verdict with what was found and what to do.
type Known = (Verdict, String, &'static str);

fn unheard(why: &str) -> Known {
    (Verdict::Unknown, format!("whether it lets this agent in is not known: {why}"), "run it again")
}

/// The gateway's refusal in its own words.
fn refused(answer: &Answer, token: Token<'_>) -> Known {
    let (why, remedy) = match (answer.status, token) {
        (401, Token::Unseen) => {
            let found = "whether it lets this agent in is not known: gateway.token-file may not be read by this user";
            return (Verdict::Unknown, found.to_owned(), "run it as root or as the agent's user");
        }
        (401, Token::Is(_)) => (
            "it does not know our token",
            "make one there with `godwit token FILE AGENT-ID` and put it into gateway.token-file",
        ),
        (401, Token::None) => {
            ("it refuses this agent", "`godwit token FILE AGENT-ID` there makes one for gateway.token-file")
        }
        _ => ("it refuses this agent", "mend that in the gateway's configuration"),
    };
    (Verdict::Fail, format!("{why}: {} {}", answer.status, text(answer)), remedy)
}

/// The beginning of an answer's text.
fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).trim().chars().take(200).collect()
}

/// What `/version` tells, and whether we may ask. `/status` would tell too, of all agents.
fn read_version(answer: Result<Answer, FetchError>, token: Token<'_>, known: &mut Option<Known>) -> Result<String, String> {
    let answer = answer.map_err(|e| {
        *known = Some(unheard(&e.to_string()));
        e.to_string()
    })?;
    *known = matches!(answer.status, 401 | 403).then(|| refused(&answer, token));
    if answer.status != 200 {
        return Err(format!("/version answers {}", answer.status));
    }
    version_in(&answer.body).ok_or_else(|| "/version does not tell Godwit's".to_owned())
}

/// Ours behind Kubernetes' in a `gitVersion`: `v1.30.0+godwit-0.1.0`.
fn version_in(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    Some(body.get("gitVersion")?.as_str()?.split_once("+godwit-")?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::door::ClientTls;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

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
        let read = |answer| {
            let mut known = None;
            let version = read_version(answer, Token::Is("t"), &mut known);
            (version, known.map(|(verdict, found, _)| (verdict, found)))
        };
        assert_eq!(read(Ok(answer(200, "{\"gitVersion\":\"v1.30.0+godwit-0.1.0\"}"))), (Ok("0.1.0".to_owned()), None));
        for other in ["ok", "{\"gitVersion\":\"v1.30.0\"}"] {
            assert!(read(Ok(answer(200, other))).0.is_err());
        }
        for status in [401, 403] {
            let (version, known) = read(Ok(answer(status, "for such a reason\n")));
            assert_eq!(version, Err(format!("/version answers {status}")));
            let (verdict, found) = known.expect("a refusal");
            assert!(verdict == Verdict::Fail && found.ends_with(&format!("{status} for such a reason")), "{found}");
        }
        let (_, known) = read(Err(FetchError::Http { to: "it".to_owned(), why: "no answer within 5 s".to_owned() }));
        assert_eq!(known.expect("told").0, Verdict::Unknown, "what was not heard is not ok");
    }

    /// What the doctor says of a gateway of these answers (to a line's beginning a status and a text), all of which it must be asked for.
    async fn of(answers: &'static [(&str, &str)], remote: bool, token: Option<&str>, id: &str, after: u64) -> Finding {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let served = tokio::spawn(async move {
            for (begin, said) in answers {
                let (mut tcp, _) = listener.accept().await.expect("accepted");
                let mut head = vec![0; 1000];
                let n = tcp.read(&mut head).await.expect("read");
                let line = String::from_utf8_lossy(&head[..n]).lines().next().unwrap_or_default().to_owned();
                assert!(line.starts_with(begin), "{line}");
                let (status, text) = said.split_once(' ').expect("a status and a text");
                let said = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                tokio::time::sleep(Duration::from_millis(after)).await;
                let _ = tcp.write_all(said.as_bytes()).await;
            }
        });
        let endpoint = Endpoint::new(&format!("http://{address}"), ClientTls::new(None)).expect("a URL");
        let elsewhere = remote.then(|| "192.0.2.1:1".parse().expect("an address"));
        let addresses: Vec<SocketAddr> = [address].into_iter().chain(elsewhere).collect();
        let token = token.map_or(Token::None, Token::Is);
        let mut told = gateway(&endpoint, &addresses, token, Some(id), None).await;
        assert_eq!(told.version, Ok("1".to_owned()));
        served.await.expect("asked all that, and nothing else");
        told.findings.remove(0)
    }

    const HEALTHY: (&str, &str) = ("GET /healthz", "200 ok");
    const VERSION: (&str, &str) = ("GET /version", "200 {\"gitVersion\":\"v1.30.0+godwit-1\"}");

    const BOAT_8: &[(&str, &str)] = &[
        HEALTHY,
        VERSION,
        ("POST /sync/v1/agents/nobody", "401 credentials are needed here"),
        ("GET /sync/v1/agents/nobody", "403 the token is boat-8's, not that of agent nobody-godwit-doctor-asks\n"),
    ];

    #[tokio::test(start_paused = true)]
    async fn what_a_slow_gateway_has_not_said_in_time_is_not_ok() {
        let slow = of(BOAT_8, true, Some("secret"), "boat-8", 4500).await;
        assert!(slow.verdict == Verdict::Unknown && slow.found.contains("no answer within 16 s"), "{slow:?}");
    }

    #[tokio::test]
    async fn a_token_that_is_another_agents_fails_and_none_is_asked_for_by_its_own_id() {
        let other = of(BOAT_8, true, Some("secret"), "boat-7", 0).await;
        assert_eq!(other.verdict, Verdict::Fail, "{other:?}");
        assert!(other.found.contains("our token is that of boat-8, and this agent is boat-7"), "{}", other.found);
        let own = of(BOAT_8, true, Some("secret"), "boat-8", 0).await;
        assert_eq!(own.verdict, Verdict::Ok, "{own:?}");
        let new = of(BOAT_8, true, Some("secret"), "", 0).await;
        assert!(new.verdict == Verdict::Fail && new.found.contains("no id yet"), "{new:?}");
    }

    #[tokio::test]
    async fn what_the_gateways_door_says_is_told() {
        const FOREIGN: &[(&str, &str)] =
            &[HEALTHY, VERSION, ("POST /sync/v1/agents/", "403 the host \"gw\" is not this server's")];
        let foreign = of(FOREIGN, true, None, "boat-7", 0).await;
        assert!(foreign.verdict == Verdict::Fail && foreign.found.contains("the host \"gw\" is not"), "{foreign:?}");
        const OPEN: &[(&str, &str)] = &[HEALTHY, VERSION, ("POST /sync/v1/agents/nobody", "405 not for this path")];
        let open = of(OPEN, false, None, "boat-7", 0).await;
        assert_eq!(open.verdict, Verdict::Ok, "on its machine: {open:?}");
        const FAR: &[(&str, &str)] = &[
            HEALTHY,
            VERSION,
            ("POST /sync/v1/agents/nobody", "405 not for this path"),
            ("GET /sync/v1/agents/boat-7/down?revision=0", "403 without credentials only agents on this machine"),
        ];
        let far = of(FAR, true, None, "boat-7", 0).await;
        assert!(far.verdict == Verdict::Fail && far.found.contains("only agents on this machine"), "{far:?}");
    }

    #[test]
    fn of_two_good_certificates_the_first_to_end_is_named() {
        let one = |year, day| {
            let mut one = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
            one.not_after = rcgen::date_time_ymd(year, 1, day);
            one.self_signed(&rcgen::KeyPair::generate().expect("key")).expect("signed").der().to_vec()
        };
        // 2026-01-01.
        let chain = vec![one(2026, 21), one(2034, 1)];
        let finding = shown(&Answer { chain, ..answer(200, "ok") }, Some(1_767_225_600));
        assert_eq!(finding.verdict, Verdict::Ok);
        assert!(finding.found.ends_with("certificates: 2, the first to end expires in 20 days"), "{}", finding.found);
    }

    #[test]
    fn a_token_that_was_not_seen_is_not_blamed() {
        let refused = |status, token| refused(&answer(status, "credentials are needed here"), token).0;
        assert_eq!(refused(401, Token::None), Verdict::Fail);
        assert_eq!(refused(401, Token::Is("t")), Verdict::Fail);
        assert_eq!(refused(401, Token::Unseen), Verdict::Unknown);
        assert_eq!(refused(403, Token::Unseen), Verdict::Fail, "of whatever token");
    }

    #[test]
    fn an_end_that_is_not_known_is_not_ok() {
        let good = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        let good = good.self_signed(&rcgen::KeyPair::generate().expect("key")).expect("signed").der().to_vec();
        for (chain, now) in [(vec![vec![1, 2, 3]], Some(1_767_225_600)), (vec![good], None)] {
            let finding = shown(&Answer { chain, ..answer(200, "ok") }, now);
            assert!(finding.verdict == Verdict::Unknown && !finding.remedy.is_empty(), "{finding:?}");
        }
    }

    #[test]
    fn what_rustls_says_has_a_remedy() {
        let why = "invalid peer certificate: certificate expired: verification time 1800000000 (UNIX), but …";
        assert!(tls_remedy(why).contains("renew"));
        assert!(tls_remedy("invalid peer certificate: Expired").starts_with("renew"));
        assert!(tls_remedy("invalid peer certificate: UnknownIssuer").contains("ca-file"));
        assert!(tls_remedy("received corrupt message of type InvalidContentType").contains("https"));
    }
}
