//! Agent and gateway: the one that runs here, the way up, and whether their versions fit.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use godwit_mesh::doctor::{self, Endpoint, FetchError, Finding, Keeper, Process, Token, Verdict};
use godwit_mesh::door::ClientTls;
use serde_json::Value;
use tokio::sync::mpsc::Sender;

use super::doors::{self, AS_ROOT};
use super::subject::INSIDE;
use super::{IF_TLS, Subject, id, now, worse};
use crate::config::Config;

const VERSIONS: &str = "versions";

/// What is known of a version: itself, or why not.
type Version = Result<String, String>;

/// Asks both and tells what they say.
pub(super) async fn together(subject: &Subject, send: &Sender<Finding>) {
    let told = async {
        let (finding, version) = agent(subject).await;
        let _ = send.send(finding).await;
        version
    };
    let (version, (findings, gateway)) = tokio::join!(told, way(&subject.config, send));
    let versions = versions(env!("CARGO_PKG_VERSION"), version.as_ref(), gateway.as_ref());
    for finding in findings.into_iter().chain([versions]) {
        let _ = send.send(finding).await;
    }
}

/// The agent that runs, its link, and its version; no version where none runs.
async fn agent(subject: &Subject) -> (Finding, Option<Version>) {
    const CHECK: &str = "agent";
    let asked = subject.clone();
    let kept = tokio::task::spawn_blocking(move || match asked.keeper() {
        Keeper::Nobody if doctor::held_unseen(asked.config.http.listen) => Keeper::Unseen,
        kept => kept,
    });
    let kept = kept.await.unwrap_or(Keeper::Unseen);
    let folder = subject.config.agent.data_dir.display();
    let process = match kept {
        Keeper::Nobody => return (Finding::ok(CHECK, format!("none runs on {folder}")), None),
        Keeper::Unseen => {
            let finding =
                Finding::unknown(CHECK, format!("who has {folder} cannot be seen by this user"), "run it as root");
            return (finding, Some(Err("not known".to_owned())));
        }
        Keeper::Process(process) if process.apart() => {
            let found = format!("{} (process {}) runs in a container", process.name, process.pid);
            return (Finding::unknown(CHECK, found, INSIDE), Some(Err("not known".to_owned())));
        }
        Keeper::Process(process) => process,
    };
    let finding =
        worse(Finding::ok(CHECK, format!("{} runs as process {}", process.name, process.pid)), replaced(&process));
    match status(subject).await {
        Ok(status) => {
            let version = status.get("version").and_then(Value::as_str).map(str::to_owned);
            let version = version.ok_or_else(|| "/status tells no version".to_owned());
            (worse(finding, link(status.get("link"), subject.config.gateway.url.is_some())), Some(version))
        }
        Err((verdict, why)) => {
            let remedy = match verdict {
                Verdict::Fail => "restart it; see its log",
                _ => "GODWIT_TOKEN shows a token; `godwit doctor` also has --token-file, --server and --ca-file",
            };
            (finding.and(verdict, &format!("its status is not known: {why}"), remedy), Some(Err(why)))
        }
    }
}

fn replaced(process: &Process) -> Option<(Verdict, String, &'static str)> {
    let replaced = process.replaced()?;
    replaced
        .then(|| (Verdict::Warn, "its program was replaced since it started".to_owned(), "restart it to run the new one"))
}

/// What the agent says of its link.
fn link(link: Option<&Value>, wanted: bool) -> Option<(Verdict, String, &'static str)> {
    let link = link?;
    let text = |name: &str| link.get(name).and_then(Value::as_str).unwrap_or_default();
    match text("state") {
        _ if !wanted => Some((Verdict::Ok, "it works alone".to_owned(), "")),
        "up" => Some((Verdict::Ok, "its link is up".to_owned(), "")),
        "held" => Some((Verdict::Warn, "its link is held by hand".to_owned(), "godwit link resume")),
        state => {
            let why = text("error");
            let (verdict, remedy) = if ["answers 401", "answers 403", "token-file"].iter().any(|sign| why.contains(sign)) {
                let known = "the gateway must know this agent's token: `godwit token` there, gateway.token-file here";
                (Verdict::Fail, known)
            } else {
                (Verdict::Warn, "events wait, and go up by themselves")
            };
            Some((verdict, format!("its link is {state}: {why}"), remedy))
        }
    }
}

/// What the agent says of itself, or how bad it is that it does not.
async fn status(subject: &Subject) -> Result<Value, (Verdict, String)> {
    let silent = |error: FetchError| {
        let why = error.to_string();
        let dead =
            matches!(error, FetchError::Connect { .. } | FetchError::Http { .. }) || why.contains("no answer within");
        (if dead { Verdict::Fail } else { Verdict::Unknown }, why)
    };
    let untold = |why: String| (Verdict::Unknown, why);
    let url = match &subject.server {
        Some(url) => url.clone(),
        None => own_url(&subject.config),
    };
    let endpoint = Endpoint::new(&url, subject.trust.clone()).map_err(|e| untold(e.to_string()))?;
    let addresses = endpoint.resolve().await.map_err(|e| untold(e.to_string()))?;
    let asked = subject.clone();
    let own = tokio::task::spawn_blocking(move || asked.token.is_some() && asked.is_its_own()).await.unwrap_or(false);
    let token = subject.token.as_deref().filter(|_| own);
    let answer = endpoint.get(&addresses, "/status", token).await.map_err(silent)?;
    match serde_json::from_slice::<Value>(&answer.body) {
        _ if answer.status != 200 => Err(untold(format!("/status answers {}", answer.status))),
        Ok(status) if status.get("link").is_some() => Ok(status),
        _ => Err(untold(format!("what answers at {} is no agent", endpoint.shown()))),
    }
}

/// Where the agent of this configuration is reached from its own machine.
fn own_url(config: &Config) -> String {
    let scheme = if config.http.tls_cert.is_some() { "https" } else { "http" };
    let mut address = config.http.listen;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("{scheme}://{address}")
}

/// The way to the gateway, and its version; no version where there is no gateway.
async fn way(config: &Config, send: &Sender<Finding>) -> (Vec<Finding>, Option<Version>) {
    let Some(url) = &config.gateway.url else {
        let alone = "no gateway is configured: the agent works alone, and events wait";
        return (vec![Finding::ok("name", "nothing to look up"), Finding::ok("gateway", alone)], None);
    };
    let unknown = |why: &str| Some(Err(why.to_owned()));
    // A pipe would be read for ever.
    let odd = config.gateway.ca_file.as_deref().filter(|file| file.exists() && !file.is_file());
    let endpoint = match (Endpoint::new(url, ClientTls::new(config.gateway.ca_file.as_deref())), odd) {
        (Ok(endpoint), None) => endpoint,
        (made, _) => {
            let why = made.map_or_else(|e| format!("gateway.url: {e}"), |_| "gateway.ca-file is no file".to_owned());
            let findings =
                vec![Finding::unknown("name", "not looked up", "see gateway"), Finding::fail("gateway", why, "mend it")];
            return (findings, unknown("it cannot be asked"));
        }
    };
    let (name, addresses): (Finding, Vec<SocketAddr>) = match doctor::name(&endpoint).await {
        Ok(found) => found,
        Err(failed) => {
            let gateway = Finding::fail("gateway", format!("{} has no address", endpoint.shown()), "see name");
            return (vec![failed, gateway], unknown("it has no address"));
        }
    };
    let _ = send.send(name).await;
    let config = config.clone();
    let read = tokio::task::spawn_blocking(move || {
        let of = |file: &Option<PathBuf>| file.as_deref().map_or(Ok(None), text);
        (of(&config.gateway.token_file), of(&config.gateway.ca_file), id(&config).ok())
    });
    let (token, authorities, id) = read.await.unwrap_or((Ok(None), Ok(None), None));
    let token = match &token {
        Ok(Some(token)) => Token::Is(token.trim()),
        Ok(None) => Token::None,
        Err(Unseen) => Token::Unseen,
    };
    let mut asked = doctor::gateway(&endpoint, &addresses, token, id.as_deref(), now()).await;
    if let (Err(Unseen), Some(tls)) = (authorities, asked.findings.iter_mut().find(|finding| finding.check == IF_TLS)) {
        *tls = Finding::unknown(IF_TLS, "gateway.ca-file may not be read by this user", AS_ROOT);
    }
    (asked.findings, Some(asked.version))
}

/// This user may not read a file.
struct Unseen;

/// A file's text. What else is wrong with it is the matter of other checks.
fn text(file: &Path) -> Result<Option<String>, Unseen> {
    match doors::file(file) {
        Ok(_) => Ok(std::fs::read_to_string(file).ok()),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Unseen),
        Err(_) => Ok(None),
    }
}

/// Whether this program, the running agent and the gateway fit. They talk across versions; but what is mended is so only where it
/// is installed.
fn versions(ours: &str, agent: Option<&Version>, gateway: Option<&Version>) -> Finding {
    let shown = |version: Option<&Version>, none: &str| match version {
        None => none.to_owned(),
        Some(Ok(version)) => version.clone(),
        Some(Err(why)) => format!("not known ({why})"),
    };
    let found = format!(
        "this program {ours}, agent {}, gateway {}",
        shown(agent, "not running"),
        shown(gateway, "none configured")
    );
    let known = |version: Option<&Version>| version.and_then(|version| version.as_ref().ok()).cloned();
    let (agent_is, gateway_is) = (known(agent), known(gateway));
    let mut finding = Finding::ok(VERSIONS, found).with("doctor", ours);
    finding = finding.with("agent", agent_is.clone()).with("gateway", gateway_is.clone());
    let unseen = |version: Option<&Version>| version.is_some_and(Result::is_err);
    if unseen(agent) || unseen(gateway) {
        finding = finding.and(Verdict::Unknown, "", "see agent and gateway");
    }
    if agent_is.as_deref().is_some_and(|agent| agent != ours) {
        finding = finding.and(
            Verdict::Warn,
            "the running agent is not of this version",
            "restart it, or install one version of all",
        );
    }
    let side = agent_is.as_deref().unwrap_or(ours);
    if gateway_is.as_deref().is_some_and(|gateway| minor(gateway) != minor(side)) {
        let remedy = "they talk, by the older one's protocol; bring both to one version when you can";
        finding = finding.and(Verdict::Warn, "agent and gateway are of different versions", remedy);
    }
    finding
}

/// `0.1` of `0.1.7`.
fn minor(version: &str) -> &str {
    version.rsplit_once('.').map_or(version, |(minor, _)| minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(agent: &Option<Version>, gateway: &Option<Version>) -> Verdict {
        versions("0.1.2", agent.as_ref(), gateway.as_ref()).verdict
    }

    #[test]
    fn versions_that_differ_warn_and_those_not_told_are_not_ok() {
        let is = |version: &str| Some(Ok(version.to_owned()));
        let not = || Some(Err("/status answers 401".to_owned()));
        assert_eq!(verdict(&None, &None), Verdict::Ok);
        assert_eq!(verdict(&is("0.1.2"), &is("0.1.9")), Verdict::Ok, "a patch apart");
        assert_eq!(verdict(&is("0.1.2"), &is("0.2.0")), Verdict::Warn);
        assert_eq!(verdict(&is("0.1.1"), &is("0.1.1")), Verdict::Warn, "replaced and not restarted");
        assert_eq!(verdict(&is("0.1.2"), &not()), Verdict::Unknown);
        assert_eq!(verdict(&not(), &is("0.1.2")), Verdict::Unknown);
    }

    #[test]
    fn a_link_that_is_down_or_held_is_told() {
        let of =
            |state: &str| link(Some(&serde_json::json!({ "state": state, "error": "refused" })), true).expect("a link").0;
        assert_eq!((of("up"), of("down"), of("held")), (Verdict::Ok, Verdict::Warn, Verdict::Warn));
        for error in ["the gateway answers 401 Unauthorized: no such token", "gateway.token-file /x: No such file"] {
            let said = link(Some(&serde_json::json!({ "state": "down", "error": error })), true).expect("a link");
            assert!(said.0 == Verdict::Fail && said.2.contains("godwit token"), "{said:?}");
        }
        let alone = link(Some(&serde_json::json!({ "state": "down" })), false).expect("a link");
        assert_eq!(alone.0, Verdict::Ok);
    }
}
