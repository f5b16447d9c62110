//! The configuration, the manifests, and the doors: rule for listeners, certificates, credentials, and who may read the secrets.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use godwit_mesh::doctor::{Finding, Verdict};
use godwit_mesh::manifest::Manifests;

use super::{Subject, worse};
use crate::config::Config;
use crate::{check_doors, check_values};

const AS_ROOT: &str = "run it as root or as the agent's user";

/// Whether the configuration and the folder of manifests can be used.
pub(super) fn config(subject: &Subject) -> Finding {
    const CHECK: &str = "config";
    if let Some(why) = &subject.wrong {
        return Finding::fail(CHECK, format!("{why}; what follows holds for the defaults"), "mend that line");
    }
    if let Err(error) = check_values(&subject.config) {
        return Finding::fail(CHECK, format!("{error:#}"), "mend that key");
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

/// Whether listeners are protected as they must be, and secrets are secret.
pub(super) fn doors(config: &Config) -> Finding {
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
    for (key, path, secret) in named.iter().filter_map(|(key, path, secret)| Some((*key, path.as_deref()?, *secret))) {
        match file(path, secret) {
            Ok(None) => {}
            Ok(Some(mode)) => {
                let found = format!("{key} ({}) can be read by all (mode {mode:o})", path.display());
                finding = finding.and(Verdict::Warn, &found, &format!("chmod 600 {}", path.display()));
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                unseen = true;
                finding = finding.and(Verdict::Unknown, &format!("{key} may not be read by this user"), AS_ROOT);
            }
            Err(e) => {
                unseen = true;
                finding =
                    finding.and(Verdict::Fail, &format!("{key} ({}): {e}", path.display()), "mend the path or the file");
            }
        }
    }
    if unseen {
        return finding;
    }
    match check_doors(config) {
        Err(error) => finding.and(Verdict::Fail, &format!("{error:#}"), "the agent does not start like this"),
        Ok(()) => {
            let all = config.mqtt.listen.into_iter().chain([config.http.listen]);
            let open = all.filter(|address| !address.ip().to_canonical().is_loopback()).count();
            let insecure = config.http.insecure || config.mqtt.insecure;
            let credentials = config.auth.credentials.is_some();
            let found = match (open, insecure, credentials) {
                (0, _, false) => "listeners are for this machine alone; who is on it comes in without credentials",
                (0, _, true) => "listeners are for this machine alone, with credentials",
                (_, true, _) => {
                    "listeners are open to other machines, without TLS or credentials, as insecure = true allows"
                }
                (_, false, _) => "listeners are open to other machines, with TLS and credentials",
            };
            let remedy = if open > 0 && insecure { "leave it so only where the network is yours alone" } else { "" };
            let verdict = if remedy.is_empty() { Verdict::Ok } else { Verdict::Warn };
            finding.and(verdict, found, remedy)
        }
    }
}

/// Opens a file to see whether it can be read; gives its mode where it is a secret that everybody may read.
fn file(path: &Path, secret: bool) -> io::Result<Option<u32>> {
    let mode = File::open(path)?.metadata()?.permissions().mode() & 0o777;
    Ok(Some(mode).filter(|mode| secret && mode & 0o004 != 0))
}

#[cfg(test)]
mod tests {
    use godwit_mesh::config::Loader;

    use super::*;

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
        assert_eq!(doors(&with(&[("http.listen", "0.0.0.0:8080"), ("http.insecure", "true")])).verdict, Verdict::Warn);
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
    }
}
