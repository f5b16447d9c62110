//! DELETE: of one object, and of all in a namespace that a selector takes (Kubernetes' `deletecollection`).

use http::StatusCode;
use serde_json::{Value, json};

use super::body::body;
use super::{Target, change, in_version, wanted};
use crate::http::{Request, Response, respond};
use crate::manifest::ObjectName;
use crate::objects::error::ApiError;
use crate::objects::store::Objects;
use crate::objects::view::Key;

/// Deletes one object. The answer is a `Status`, or the object where finalizers keep it.
pub(super) async fn one(
    objects: &Objects,
    target: Target,
    name: ObjectName,
    request: &mut Request,
) -> Result<Response, ApiError> {
    let key = Key { kind: target.kind(), name };
    let options = Options::read(target, request).await?;
    let (uid, revision) = (options.precondition("uid"), options.precondition("resourceVersion"));
    let deleted = objects.delete(&key, uid, revision, options.dry_run).await?;
    if !deleted.gone {
        return Ok(respond::json(StatusCode::OK, &in_version(target, deleted.object)?));
    }
    Ok(respond::json(
        StatusCode::OK,
        &json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {
                "name": key.name.name,
                "group": target.resource.group,
                "kind": target.resource.plural,
                "uid": deleted.object.pointer("/metadata/uid"),
            },
        }),
    ))
}

/// Deletes what the selectors take, all of it or nothing. The answer is the list of it.
pub(super) async fn all(
    objects: &Objects,
    target: Target,
    namespace: &str,
    request: &mut Request,
) -> Result<Response, ApiError> {
    let chosen = wanted(target, Some(namespace), request)?;
    let options = Options::read(target, request).await?;
    if options.precondition("uid").or(options.precondition("resourceVersion")).is_some() {
        return Err(ApiError::BadRequest("preconditions are for one object, and this deletes all of a list".to_owned()));
    }
    let deleted = objects.delete_all(&chosen, options.dry_run).await?;
    let items = deleted.into_iter().map(|deleted| in_version(target, deleted.object));
    let items = items.collect::<Result<Vec<_>, ApiError>>()?;
    let metadata = json!({"resourceVersion": objects.view().revision.to_string()});
    let kind = format!("{}List", target.resource.name);
    let list = json!({"kind": kind, "apiVersion": target.api_version(), "metadata": metadata, "items": items});
    Ok(respond::json(StatusCode::OK, &list))
}

/// Kubernetes' `DeleteOptions`, from the query and the body.
struct Options {
    dry_run: bool,
    body: Value,
}

impl Options {
    async fn read(target: Target, request: &mut Request) -> Result<Self, ApiError> {
        let change = change(target, request)?;
        let body = body(request, true).await?.value;
        let dry_run = match body.get("dryRun").filter(|value| !value.is_null()) {
            None => false,
            Some(Value::Array(all)) if all.iter().all(|value| value == "All") => !all.is_empty(),
            Some(_) => return Err(ApiError::BadRequest("dryRun can only be All".to_owned())),
        };
        Ok(Self { dry_run: change.dry_run || dry_run, body })
    }

    fn precondition(&self, name: &str) -> Option<&str> {
        self.body.get("preconditions")?.get(name)?.as_str()
    }
}
