//! The configuration, the manifests, and the doors: rule for listeners, certificates, credentials, and who may read the secrets.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use godwit_mesh::doctor::{Finding, Process, Verdict};
use godwit_mesh::manifest::Manifests;
use godwit_mesh::process::told;

use super::{Subject, worse};
use crate::check;
use crate::config::Config;

/// What to do about what this user may not read.
pub(super) const AS_ROOT: &str = "run it as root or as the agent's user";

/// A user, and its groups where they are known.
type User = (u32, Option<Vec<u32>>);

/// Whether the configuration and the folder of manifests can be used.
pub(super) fn config(subject: &Subject) -> Finding {
    const CHECK: &str = "config";
    if let Some((verdict, why, remedy)) = &subject.wrong {
        return Finding::new(CHECK, *verdict, why, *remedy);
    }
    if let Err(error) = check::values(&subject.config) {
        return Finding::fail(CHECK, told(error.as_ref()), "mend that key");
    }
    let mut finding = Finding::ok(CHECK, "valid");
    for warning in &subject.warnings {
        finding = finding.and(Verdict::Warn, warning, "mend the name, or unset it");
    }
    worse(finding, subject.config.agent.manifests.as_deref().map(manifests))
}

fn manifests(folder: &Path) -> (Verdict, String, &'static str) {
    let shown = folder.display();
    if let Err(e) = fs::read_dir(folder)
        && e.kind() == io::ErrorKind::PermissionDenied
    {
        return (Verdict::Unknown, format!("the manifests in {shown} may not be read by this user"), AS_ROOT);
    }
    match Manifests::load_dir(folder) {
        Ok(set) => (Verdict::Ok, format!("manifests in {shown}: {} objects", set.len()), ""),
        Err(error) => (Verdict::Fail, error.to_string(), "mend it: godwit check -f FOLDER says more"),
    }
}

/// A finding where the configuration cannot be used: what depends on it is not known.
pub(super) fn without_config(finding: Finding) -> Finding {
    const WHY: &str = "the configuration cannot be used";
    match finding.check {
        "kernel" | "libc" | "entropy" | "config" => finding,
        // They tell of the machine too.
        "memory" | "files" | "clock" => finding.and(Verdict::Unknown, WHY, "see config"),
        check => Finding::unknown(check, WHY, "see config"),
    }
}

/// The agent's user, for root, who may read everything; `None` for who reads only what it may.
fn user(config: &Config, running: Option<&Process>) -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let owner = fs::metadata(&config.agent.data_dir).ok().map(|about| about.uid()).filter(|id| *id != 0);
    let named = || {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        users.lines().find_map(|line| line.strip_prefix("godwit:"))?.split(':').nth(1)?.parse().ok()
    };
    let running = running.and_then(Process::user);
    let running = running.map(|(id, group, groups)| (id, Some([vec![group], groups].concat())));
    running.or_else(|| Some((owner.or_else(named)?, None))).filter(|(id, _)| *id != 0)
}

/// Whether the bits of a mode (4 to read) are granted. Of a user whose groups are not known, any group but root's may be one.
fn may((id, groups): &User, about: &Metadata, bits: u32) -> bool {
    let mode = about.mode();
    let granted = match groups {
        _ if about.uid() == *id => mode >> 6,
        Some(groups) if groups.contains(&about.gid()) => mode >> 3,
        None if about.gid() != 0 => mode >> 3 | mode,
        _ => mode,
    };
    granted & bits == bits
}

/// Whether listeners are protected as they must be, and secrets are secret, but not to the agent.
pub(super) fn doors(subject: &Subject, running: Option<&Process>) -> Finding {
    judge(&subject.config, user(&subject.config, running).as_ref(), subject.became)
}

/// `became`: the agent's user, where this process has become it.
fn judge(config: &Config, user: Option<&User>, became: Option<u32>) -> Finding {
    const CHECK: &str = "doors";
    // Key, file, and whether it is a secret.
    let named = [
        ("mqtt.tls-cert", &config.mqtt.tls_cert, false),
        ("mqtt.tls-key", &config.mqtt.tls_key, true),
        ("http.tls-cert", &config.http.tls_cert, false),
        ("http.tls-key", &config.http.tls_key, true),
        ("auth.credentials", &config.auth.credentials, true),
        ("gateway.token-file", &config.gateway.token_file, true),
    ];
    let mut finding = Finding::ok(CHECK, "");
    let mut unseen = false;
    let tokens = config.delivery.tokens.0.values().map(|path| ("delivery.tokens", path.as_path(), true));
    let named = named.iter().filter_map(|(key, path, secret)| Some((*key, path.as_deref()?, *secret)));
    for (key, path, secret) in named.chain(tokens) {
        let shown = path.display();
        match file(path) {
            Ok(about) => {
                let closed =
                    |above: &Path| fs::metadata(above).is_ok_and(|above| user.is_some_and(|user| !may(user, &above, 1)));
                if let Some(above) = path.ancestors().skip(1).find(|above| closed(above)) {
                    let found = format!("{key}: {} may not be entered by the agent's user", above.display());
                    finding = finding.and(Verdict::Fail, &found, "put the file into a folder of that user");
                } else if let Some(user) = user.filter(|user| !may(user, &about, 4)) {
                    let found = format!("{key} ({shown}) may not be read by the agent's user");
                    finding = finding.and(Verdict::Fail, &found, &format!("chown {} {shown}", user.0));
                }
                if secret && about.mode() & 0o004 != 0 {
                    let found = format!("{key} ({shown}) can be read by all (mode {:o})", about.mode() & 0o777);
                    // Of another's file the agent is among all.
                    let first =
                        user.filter(|user| about.uid() != user.0).map(|user| format!("chown {} {shown} && ", user.0));
                    let remedy = format!("{}chmod 600 {shown}", first.unwrap_or_default());
                    finding = finding.and(Verdict::Warn, &found, &remedy);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                unseen = true;
                finding = match became {
                    Some(id) => {
                        let found = format!("{key} ({shown}) may not be read by the agent's user");
                        finding.and(Verdict::Fail, &found, &format!("chown {id} {shown}"))
                    }
                    None => finding.and(Verdict::Unknown, &format!("{key} may not be read by this user"), AS_ROOT),
                };
            }
            Err(e) => {
                unseen = true;
                finding = finding.and(Verdict::Fail, &format!("{key} ({shown}): {e}"), "mend the path or the file");
            }
        }
    }
    let folder = &config.agent.data_dir;
    if let (Some(user), Ok(about)) = (user, fs::metadata(folder))
        && !may(user, &about, 7)
    {
        let shown = folder.display();
        let found = format!("{shown} may not be written by the agent's user");
        finding = finding.and(Verdict::Fail, &found, &format!("chown -R {} {shown}", user.0));
    }
    if unseen {
        return finding;
    }
    match check::doors(config) {
        Err(error) => finding.and(Verdict::Fail, &told(error.as_ref()), "mend it: the agent does not start like this"),
        Ok(()) => {
            let credentials = config.auth.credentials.is_some();
            let (mqtt, http) = (&config.mqtt, &config.http);
            let listeners = [
                ("mqtt", mqtt.listen, mqtt.tls_cert.is_some(), mqtt.insecure),
                ("http", Some(http.listen), http.tls_cert.is_some(), http.insecure),
            ];
            let open: Vec<_> = listeners
                .into_iter()
                .filter(|(_, address, ..)| address.is_some_and(|one| !one.ip().to_canonical().is_loopback()))
                .collect();
            let bare = open.iter().filter(|(_, _, tls, insecure)| *insecure && !(*tls && credentials));
            let bare: Vec<String> = bare.map(|(name, ..)| format!("{name}.listen")).collect();
            if !bare.is_empty() {
                let found = format!(
                    "open to other machines without TLS, credentials or both, as insecure = true allows: {}",
                    bare.join(", ")
                );
                return finding.and(Verdict::Warn, &found, "leave it so only where the network is yours alone");
            }
            let found = match (open.is_empty(), credentials) {
                (true, false) => "listeners are for this machine alone; who is on it comes in without credentials",
                (true, true) => "listeners are for this machine alone, with credentials",
                (false, _) => "listeners that are open to other machines have TLS and credentials",
            };
            finding.and(Verdict::Ok, found, "")
        }
    }
}

/// Opens a file to see whether it can be read. What is no file is not opened: a pipe would wait for a writer.
pub(super) fn file(path: &Path) -> io::Result<Metadata> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    File::open(path)?.metadata()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use godwit_mesh::config::Loader;

    use super::*;

    fn doors(config: &Config) -> Finding {
        judge(config, None, None)
    }

    fn with(set: &[(&str, &str)]) -> Config {
        let loader = set.iter().fold(Loader::new(), |loader, (key, value)| loader.flag(key, key, Some(*value)));
        loader.finish().expect("valid").0
    }

    #[test]
    fn a_listener_open_to_all_fails_and_with_insecure_warns() {
        assert_eq!(doors(&with(&[])).verdict, Verdict::Ok);
        let open = doors(&with(&[("http.listen", "0.0.0.0:8080")]));
        assert_eq!(open.verdict, Verdict::Fail);
        assert!(open.found.contains("insecure = true"), "{}", open.found);
        let insecure = doors(&with(&[("http.listen", "0.0.0.0:8080"), ("http.insecure", "true")]));
        assert!(insecure.verdict == Verdict::Warn && insecure.found.ends_with(": http.listen"), "{}", insecure.found);
        let set = [("listen", "0.0.0.0:0"), ("insecure", "true")];
        let set = ["mqtt", "http"].map(|name| set.map(|(key, value)| (format!("{name}.{key}"), value)));
        let both: Vec<(&str, &str)> = set.iter().flatten().map(|(key, value)| (key.as_str(), *value)).collect();
        assert!(doors(&with(&both)).found.ends_with(": mqtt.listen, http.listen"), "{}", doors(&with(&both)).found);
        let behind_a_proxy = doors(&with(&[("mqtt.insecure", "true"), ("http.insecure", "true")]));
        assert_eq!(behind_a_proxy.verdict, Verdict::Ok, "for this machine alone: {}", behind_a_proxy.found);
    }

    #[test]
    fn a_secret_that_all_may_read_is_told_and_an_absent_one_fails() {
        let dir = tempfile::tempdir().expect("a folder");
        let token = dir.path().join("token");
        fs::write(&token, "x").expect("written");
        let config = with(&[("gateway.token-file", token.to_str().expect("text"))]);
        for (mode, verdict) in [(0o600, Verdict::Ok), (0o644, Verdict::Warn)] {
            fs::set_permissions(&token, fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(doors(&config).verdict, verdict, "{mode:o}");
        }
        fs::remove_file(&token).expect("removed");
        assert_eq!(doors(&config).verdict, Verdict::Fail);
        symlink(dir.path(), &token).expect("linked");
        assert!(doors(&config).found.contains("no file"), "a folder");
        let tokens = format!("hook={}", dir.path().join("none").display());
        assert_eq!(doors(&with(&[("delivery.tokens", &tokens)])).verdict, Verdict::Fail);
    }

    #[test]
    fn what_the_agents_user_may_not_read_or_write_fails() {
        let dir = tempfile::tempdir().expect("a folder");
        let token = dir.path().join("token");
        fs::write(&token, "x").expect("written");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        let config = with(&[("gateway.token-file", &text(&token)), ("agent.data-dir", &text(dir.path()))]);
        let owner = fs::metadata(&token).expect("there");
        let verdict = |mode, user: User| {
            fs::set_permissions(&token, fs::Permissions::from_mode(mode)).expect("set");
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode | 0o700)).expect("set");
            judge(&config, Some(&user), None).verdict
        };
        let other = owner.uid() + 1;
        assert_eq!(verdict(0o600, (owner.uid(), None)), Verdict::Ok);
        assert_eq!(verdict(0o600, (other, None)), Verdict::Fail);
        assert_eq!(verdict(0o670, (other, Some(vec![owner.gid()]))), Verdict::Ok);
        assert_eq!(verdict(0o670, (other, Some(vec![owner.gid() + 1]))), Verdict::Fail);
        fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(judge(&config, Some(&(other, None)), None).remedy.contains(" && chmod 600"), "it goes on reading it");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("set");
        let said = judge(&config, Some(&(other, Some(Vec::new()))), None);
        assert!(said.found.contains("token-file") && said.remedy.contains("chown -R"), "{said:?}");
    }

    #[test]
    fn without_a_configuration_nothing_that_depends_on_it_is_well_or_ill() {
        let of = |check| without_config(Finding::fail(check, "taken", "stop it")).verdict;
        assert_eq!((of("ports"), of("kernel")), (Verdict::Unknown, Verdict::Fail));
        assert_eq!(without_config(Finding::ok("memory", "enough")).verdict, Verdict::Unknown);
    }
}
