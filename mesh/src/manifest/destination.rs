//! Where events go: a reference, a URI, or a URI relative to a reference (D28).

use serde::Deserialize;
use url::Url;

use super::error::FieldError;
use super::kind::Kind;
use super::topic::Topic;
use crate::door::{bare, check_authorities};
use crate::names::check_name;

/// A reference to an object that has an address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Reference {
    /// The object's API version; Knative's own pages leave it out at times.
    pub api_version: Option<String>,
    /// The object's kind.
    pub kind: String,
    /// The object's name.
    pub name: String,
    /// The object's namespace; absent: that of the object with the reference.
    pub namespace: Option<String>,
    /// Name of one of the object's addresses; ours have one.
    pub address: Option<String>,
    /// The object's API group, in place of the API version.
    pub group: Option<String>,
}

/// A destination as written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The object that is addressed.
    #[serde(rename = "ref")]
    pub reference: Option<Reference>,
    /// An absolute URL, or one relative to the reference's.
    pub uri: Option<String>,
    /// Certificates of authorities (PEM) to trust for this destination, beside the process's own.
    #[serde(rename = "CACerts")]
    pub ca_certs: Option<String>,
    /// Knative's OIDC audience; it means nothing while OIDC is off, as it always is here.
    pub audience: Option<String>,
}

impl Reference {
    /// Whether this is a Knative Broker.
    #[must_use]
    pub fn is_broker(&self) -> bool {
        self.is(&["Broker"], "eventing.knative.dev")
    }

    /// Whether this is a Channel of a kind that runs here.
    #[must_use]
    pub fn is_channel(&self) -> bool {
        self.is(&["Channel", "InMemoryChannel"], "messaging.knative.dev")
    }

    /// The kind, if this is a Sequence or a Parallel.
    #[must_use]
    pub(crate) fn flow(&self) -> Option<Kind> {
        let kind = [Kind::Sequence, Kind::Parallel].into_iter().find(|kind| kind.resource().name == self.kind)?;
        self.is(&[kind.resource().name], kind.resource().group).then_some(kind)
    }

    /// Whether this is a Service, Kubernetes' or Knative's.
    #[must_use]
    pub(crate) fn is_service(&self) -> bool {
        self.kind == "Service" && matches!(self.api_group(), None | Some("v1" | "" | "serving.knative.dev"))
    }

    fn is(&self, kinds: &[&str], group: &str) -> bool {
        kinds.contains(&&*self.kind) && self.api_group().is_none_or(|written| written == group)
    }

    /// The API group, or the version of Kubernetes' own; absent where nothing is written.
    fn api_group(&self) -> Option<&str> {
        self.api_version.as_deref().map(|v| v.split('/').next().unwrap_or_default()).or(self.group.as_deref())
    }
}

impl Destination {
    /// The certificates in `CACerts` (PEM), if there are any.
    pub(crate) fn authorities(&self) -> Option<&str> {
        self.ca_certs.as_deref().filter(|pem| !pem.is_empty())
    }

    /// Checks what types cannot. Paths are relative to the destination.
    pub(crate) fn check(&self) -> Result<(), FieldError> {
        if let Some(reference) = &self.reference {
            check_name("name", &reference.name).map_err(|e| FieldError::new("ref.name", e))?;
            if let Some(namespace) = &reference.namespace {
                check_name("namespace", namespace).map_err(|e| FieldError::new("ref.namespace", e))?;
            }
            if reference.kind.is_empty() {
                return Err(FieldError::new("ref.kind", "must not be empty").missing());
            }
        }
        if let Some(pem) = self.authorities() {
            check_authorities(pem).map_err(|e| FieldError::new("CACerts", e))?;
        }
        match (&self.reference, &self.uri) {
            (None, None) => Err(FieldError::new("", "needs a ref or a uri").missing()),
            (Some(_), None) => Ok(()),
            (None, Some(uri)) => absolute(uri).map(|_| ()).map_err(|why| FieldError::new("uri", why)),
            (Some(_), Some(uri)) => match Url::parse(uri) {
                Err(url::ParseError::RelativeUrlWithoutBase) if !uri.starts_with("//") => Ok(()),
                Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => {
                    Err(FieldError::new("uri", format!("{uri} must be relative, because there is a ref beside it")))
                }
                Err(e) => Err(FieldError::new("uri", format!("{uri}: {e}"))),
            },
        }
    }
}

/// An absolute `http` or `https` URL, or `mqtt:///topic`.
///
/// # Errors
/// Why the text is none.
pub(crate) fn absolute(uri: &str) -> Result<Url, String> {
    let shown = bare(uri);
    let url = Url::parse(uri).map_err(|e| match e {
        url::ParseError::RelativeUrlWithoutBase => format!("\"{shown}\" must be absolute, as in http://host:port/path"),
        e => format!("\"{shown}\": {e}"),
    })?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        "http" | "https" => Err(format!("\"{shown}\" has no host")),
        "mqtt" if !url.has_host() || url.host_str() == Some("") => {
            Topic::parse(&url).map_err(|why| format!("\"{shown}\": {why}"))?;
            Ok(url)
        }
        "mqtt" => Err(format!("\"{shown}\": mqtt:///topic is this agent's own listener and has no host")),
        scheme => Err(format!("\"{shown}\": the scheme {scheme} is not known; http and https are")),
    }
}
