//! A server's objects: which kind a word means, where its objects are, and how they are asked for.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use godwit_mesh::manifest::schema::{RESOURCES, Resource};
use godwit_mesh::manifest::{Kind, documents, manifest_files, read_file};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::Value;

use crate::client::{Client, ClientError};
use crate::output;

/// The name under which this program sets fields.
const MANAGER: &str = "godwit";

/// The kind that a word means: `trigger`, `triggers`, `Trigger`, a short name, or `triggers.eventing.knative.dev`.
pub(crate) fn kind(word: &str) -> Result<Kind, String> {
    let wanted = word.to_lowercase();
    let is = |r: &&Resource| {
        let short = r.short.contains(&wanted.as_str());
        let whole = format!("{}.{}", r.plural, r.group);
        short || wanted == r.plural || wanted == r.singular() || wanted == whole
    };
    RESOURCES.iter().find(is).map(|r| r.kind).ok_or_else(|| {
        let known: Vec<&str> = RESOURCES.iter().map(|r| r.plural).collect();
        format!("there is no kind \"{word}\"; there are {}", known.join(", "))
    })
}

/// Where the objects of a kind are, in one namespace or all.
pub(crate) fn list_path(kind: Kind, namespace: Option<&str>) -> String {
    let resource = kind.resource();
    let (group, version, plural) = (resource.group, resource.stored().name, resource.plural);
    match namespace {
        Some(namespace) => format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}"),
        None => format!("/apis/{group}/{version}/{plural}"),
    }
}

/// Where one object is.
pub(crate) fn path(kind: Kind, namespace: &str, name: &str) -> String {
    format!("{}/{name}", list_path(kind, Some(namespace)))
}

/// One object; `None` if it is not there.
pub(crate) async fn find(client: &mut Client, path: &str) -> anyhow::Result<Option<Value>> {
    match client.json(Method::GET, path, None).await {
        Ok(object) => Ok(Some(object)),
        Err(error) => match error.downcast_ref::<ClientError>() {
            Some(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            _ => Err(error),
        },
    }
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    pub(crate) dry_run: bool,
    pub(crate) lenient: bool,
    pub(crate) force: bool,
}

/// Applies one object (server-side apply). Warnings go to stderr.
pub(crate) async fn apply(client: &mut Client, path: &str, object: &Value, how: How) -> anyhow::Result<Value> {
    let mut query = format!("{path}?fieldManager={MANAGER}");
    for (on, word) in [(how.dry_run, "&dryRun=All"), (how.lenient, "&fieldValidation=Warn"), (how.force, "&force=true")] {
        if on {
            query.push_str(word);
        }
    }
    send(client, Method::PATCH, &query, "application/apply-patch+yaml", object).await
}

/// Sends an object; warnings go to stderr.
pub(crate) async fn send(
    client: &mut Client,
    method: Method,
    path: &str,
    media: &'static str,
    object: &Value,
) -> anyhow::Result<Value> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    let (headers, body) = client.exchange(method, path, &headers, Bytes::from(serde_json::to_vec(object)?)).await?;
    for warning in headers.get_all("warning").iter().filter_map(|w| w.to_str().ok()) {
        let text = warning.split_once('"').map_or(warning, |(_, text)| text.trim_end_matches('"'));
        eprintln!("warning: {}", output::printable(text));
    }
    serde_json::from_slice(&body).with_context(|| format!("{}{path} did not answer with JSON", client.server()))
}

/// One object of a file.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) value: Value,
}

impl Written {
    /// Where it is on a server, in the version in which it is written.
    pub(crate) fn path(&self) -> String {
        let resource = self.kind.resource();
        let version = self.value.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        format!("/apis/{version}/namespaces/{}/{}/{}", self.namespace, resource.plural, self.name)
    }

    /// As in `trigger/x`.
    pub(crate) fn shown(&self) -> String {
        shown(self.kind, &self.name)
    }
}

/// As in `trigger/x`.
pub(crate) fn shown(kind: Kind, name: &str) -> String {
    output::printable(&format!("{}/{name}", kind.resource().singular()))
}

/// What files hold.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// Objects of kinds that are known here, in order.
    pub(crate) objects: Vec<Written>,
    /// Where there is an object of another kind, and of which.
    foreign: Vec<String>,
}

impl Files {
    /// Says which objects are left alone because nobody here knows their kind. False if there are any.
    pub(crate) fn tell(&self) -> bool {
        for foreign in &self.foreign {
            output::error(&anyhow::anyhow!("{foreign}"));
        }
        self.foreign.is_empty()
    }
}

/// The objects in files and folders; `-` is stdin. `namespace` is for those that name none.
pub(crate) fn written(files: &[PathBuf], namespace: &str) -> anyhow::Result<Files> {
    let mut all = Files::default();
    for file in files {
        if file.as_os_str() == "-" {
            let text = std::io::read_to_string(std::io::stdin().lock()).context("reading stdin")?;
            take(&mut all, "stdin", &text, namespace)?;
        } else if file.is_dir() {
            for path in manifest_files(file).with_context(|| format!("reading {}", file.display()))? {
                take_file(&mut all, &path, namespace)?;
            }
        } else {
            take_file(&mut all, file, namespace)?;
        }
    }
    let empty = all.objects.is_empty() && all.foreign.is_empty();
    anyhow::ensure!(!empty, "there are no objects in what was given: manifests are *.yaml, *.yml or *.json");
    Ok(all)
}

fn take_file(all: &mut Files, path: &Path, namespace: &str) -> anyhow::Result<()> {
    let text = read_file(path)?;
    take(all, &path.display().to_string(), &text, namespace)
}

fn take(all: &mut Files, file: &str, text: &str, namespace: &str) -> anyhow::Result<()> {
    for document in documents(file, text)? {
        let label = document.label();
        let field = |name: &str| document.value.pointer(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, word, name) = (field("/apiVersion"), field("/kind"), field("/metadata/name"));
        let group = api_version.split('/').next().unwrap_or_default();
        let resource = RESOURCES.iter().find(|r| r.name == word && r.group == group);
        let Some(resource) = resource else {
            all.foreign.push(format!("{file}: {label}: {word} of {api_version} is not a kind known here"));
            continue;
        };
        if let Some(other) = document.value.pointer("/metadata/name").filter(|name| !name.is_string() && !name.is_null()) {
            anyhow::bail!("{file}: {label}: metadata.name: must be a string, not {other}: put it in quotes");
        }
        anyhow::ensure!(!name.is_empty(), "{file}: {label}: metadata.name: is missing");
        let own = field("/metadata/namespace");
        let namespace = if own.is_empty() { namespace.to_owned() } else { own };
        all.objects.push(Written { kind: resource.kind, namespace, name, value: document.value });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_many_names() {
        for word in ["trigger", "Triggers", "TRIGGER", "triggers.eventing.knative.dev"] {
            assert_eq!(kind(word), Ok(Kind::Trigger), "{word}");
        }
        assert_eq!(kind("sub"), Ok(Kind::Subscription));
        assert!(kind("pods").is_err_and(|why| why.contains("triggers")));
        assert_eq!(path(Kind::Broker, "site-1", "b"), "/apis/eventing.knative.dev/v1/namespaces/site-1/brokers/b");
    }

    #[test]
    fn objects_are_read_from_folders_with_their_namespaces() {
        let dir = tempfile::tempdir().expect("a folder");
        let broker = "apiVersion: eventing.knative.dev/v1\nkind: Broker\nmetadata: {name: a}\n";
        std::fs::write(
            dir.path().join("a.yaml"),
            format!("{broker}---\n{}", broker.replace("name: a", "name: b, namespace: north")),
        )
        .expect("written");
        let all = written(&[dir.path().to_owned()], "site-1").expect("read");
        let places: Vec<_> = all.objects.iter().map(|o| (o.namespace.as_str(), o.name.as_str())).collect();
        assert_eq!(places, [("site-1", "a"), ("north", "b")]);
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n";
        std::fs::write(dir.path().join("a.yaml"), format!("{pod}---\n{broker}")).expect("written");
        let all = written(&[dir.path().to_owned()], "default").expect("read");
        assert_eq!(all.objects.len(), 1, "others go on");
        assert!(all.foreign[0].ends_with("Pod default/p: Pod of v1 is not a kind known here"), "{:?}", all.foreign);
        std::fs::write(dir.path().join("a.yaml"), broker.replace("name: a", "name: true")).expect("written");
        let error = written(&[dir.path().to_owned()], "default").expect_err("no name").to_string();
        assert!(error.contains("must be a string, not true"), "{error}");
    }
}
