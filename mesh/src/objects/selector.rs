//! Which objects of a list are wanted: by namespace, labels and fields.

use super::error::ApiError;
use super::view::{Key, Labels};
use crate::manifest::{Kind, LabelSelector};

/// What a list or a watch asks for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) kind: Kind,
    /// `None`: all.
    pub(super) namespace: Option<String>,
    labels: LabelSelector,
    fields: Vec<(Field, String, bool)>,
}

/// The fields that can be selected by, as for every custom resource of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
}

impl Wanted {
    /// Reads the two selectors.
    pub(super) fn new(kind: Kind, namespace: Option<&str>, labels: &str, fields: &str) -> Result<Self, ApiError> {
        let labels = labels.parse().map_err(|e| ApiError::BadRequest(format!("labelSelector: {e}")))?;
        let fields =
            fields.split(',').map(str::trim).filter(|part| !part.is_empty()).map(field).collect::<Result<_, _>>()?;
        Ok(Self { kind, namespace: namespace.map(str::to_owned), labels, fields })
    }

    /// Whether an object is wanted that has these labels.
    pub(super) fn takes(&self, key: &Key, labels: &Labels) -> bool {
        self.kind == key.kind
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == key.name.namespace)
            && self.fields.iter().all(|(field, value, equal)| {
                let is = match field {
                    Field::Name => &key.name.name,
                    Field::Namespace => &key.name.namespace,
                };
                (is == value) == *equal
            })
            && self.labels.matches(labels)
    }
}

fn field(part: &str) -> Result<(Field, String, bool), ApiError> {
    let (name, value, equal) = match part.split_once("!=") {
        Some((name, value)) => (name, value, false),
        None => {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| ApiError::BadRequest(format!("fieldSelector: \"{part}\" is not field=value")))?;
            (name, value.strip_prefix('=').unwrap_or(value), true)
        }
    };
    let field = match name.trim() {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        other => {
            let why = format!("field label not supported: {other}; metadata.name and metadata.namespace are");
            return Err(ApiError::BadRequest(why));
        }
    };
    Ok((field, value.trim().to_owned(), equal))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::manifest::ObjectName;

    fn takes(labels: &str, fields: &str) -> bool {
        let wanted = Wanted::new(Kind::Trigger, Some("n"), labels, fields).expect("valid");
        let key = Key { kind: Kind::Trigger, name: ObjectName { namespace: "n".to_owned(), name: "x".to_owned() } };
        wanted.takes(&key, &Arc::new(BTreeMap::from([("a".to_owned(), "1".to_owned())])))
    }

    #[test]
    fn labels_and_fields_choose_together() {
        assert!(takes("", ""));
        assert!(takes("a=1", "metadata.name=x,metadata.namespace==n"));
        assert!(!takes("a=1", "metadata.name!=x"));
        assert!(!takes("a!=1", ""));
        assert!(Wanted::new(Kind::Trigger, None, "", "spec.broker=x").is_err());
        assert!(Wanted::new(Kind::Trigger, None, "a b", "").is_err());
        assert!(Wanted::new(Kind::Trigger, None, "", "metadata.name").is_err());
    }
}
