//! The endpoints of the API: what a path and a query mean, and which form the answer has.

mod body;
mod delete;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use self::body::{body, decode, media_type, read};
use super::change::{Change, Changed, not_found};
use super::error::ApiError;
use super::form::{convert, parsed};
use super::managed::MAX_MANAGER_BYTES;
use super::selector::Wanted;
use super::store::Objects;
use super::table::{self, Beside};
use super::view::Key;
use super::watch::{self, Form, metadata_only};
use super::{discovery, openapi, patch, protobuf};
use crate::http::{Body, Request, Response, Router, respond};
use crate::manifest::schema::{RESOURCES, Resource, Version};
use crate::manifest::{Kind, ObjectName, Strictness};

/// Most warnings beside one answer, and the longest one in bytes.
const MAX_WARNINGS: usize = 16;
const MAX_WARNING_BYTES: usize = 256;

/// Longest selector in bytes.
const MAX_SELECTOR_BYTES: usize = 4096;

/// Adds the API to a router. Add it last: it answers whatever is left under `/api`, `/apis` and `/openapi`.
#[must_use]
pub fn routes(router: Router, objects: &Objects) -> Router {
    let mut router = router
        .route(Method::GET, "/version", |_| async { respond::json(StatusCode::OK, &discovery::version()) })
        .route(Method::GET, "/api", |_| async { respond::json(StatusCode::OK, &discovery::core()) })
        .route(Method::GET, "/api/{path*}", |request| async move { nowhere(request.path()).response(None) })
        .route(Method::GET, "/openapi/{path*}", |request| async move { openapi_document(&request) })
        .route(Method::GET, "/apis", |_| async { respond::json(StatusCode::OK, &discovery::groups()) });
    for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        let objects = objects.clone();
        router = router.route(method, "/apis/{path*}", move |request| {
            let objects = objects.clone();
            async move { answer(&objects, request).await }
        });
    }
    router
}

/// What a path under `/apis` names.
#[derive(Debug, Clone)]
enum Place {
    Group(String),
    Version(String, String),
    List(Target, Option<String>),
    One(Target, ObjectName),
    Status(Target, ObjectName),
}

/// A kind in one of its versions.
#[derive(Debug, Clone, Copy)]
struct Target {
    resource: &'static Resource,
    version: &'static Version,
}

impl Target {
    fn kind(self) -> Kind {
        self.resource.kind
    }

    fn api_version(self) -> String {
        format!("{}/{}", self.resource.group, self.version.name)
    }

    fn find(group: &str, version: &str, plural: &str) -> Option<Self> {
        let resource = RESOURCES.iter().find(|r| r.group == group && r.plural == plural)?;
        Some(Self { resource, version: resource.version(version)? })
    }
}

impl Place {
    fn parse(path: &str) -> Option<Self> {
        let decoded: Vec<String> = path
            .strip_prefix("/apis/")?
            .trim_end_matches('/')
            .split('/')
            .map(|part| percent_encoding::percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned))
            .collect::<Option<_>>()?;
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let name = |namespace: &str, name: &str| ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
        Some(match parts[..] {
            [group] => Self::Group(group.to_owned()),
            [group, version] => Self::Version(group.to_owned(), version.to_owned()),
            [group, version, plural] => Self::List(Target::find(group, version, plural)?, None),
            [group, version, "namespaces", ns, plural] => {
                Self::List(Target::find(group, version, plural)?, Some(ns.to_owned()))
            }
            [group, version, "namespaces", ns, plural, one] => {
                Self::One(Target::find(group, version, plural)?, name(ns, one))
            }
            [group, version, "namespaces", ns, plural, one, "status"] => {
                Self::Status(Target::find(group, version, plural)?, name(ns, one))
            }
            _ => return None,
        })
    }
}

fn nowhere(path: &str) -> ApiError {
    let path: String = path.chars().take(200).collect();
    ApiError::NotFound(format!("the server could not find the requested resource ({path})"))
}

async fn answer(objects: &Objects, mut request: Request) -> Response {
    let Some(place) = Place::parse(request.path()) else {
        return nowhere(request.path()).response(None);
    };
    let about = match &place {
        Place::List(target, _) => Some((target.kind(), String::new())),
        Place::One(target, name) | Place::Status(target, name) => Some((target.kind(), name.name.clone())),
        Place::Group(_) | Place::Version(..) => None,
    };
    let done = serve(objects, place, &mut request).await;
    done.unwrap_or_else(|error| error.response(about.as_ref().map(|(kind, name)| (*kind, name.as_str()))))
}

async fn serve(objects: &Objects, place: Place, request: &mut Request) -> Result<Response, ApiError> {
    let method = request.head.method.clone();
    match (place, method.as_str()) {
        (Place::Group(group), "GET" | "HEAD") => {
            let found = discovery::group(&group, true).ok_or_else(|| nowhere(request.path()))?;
            Ok(respond::json(StatusCode::OK, &found))
        }
        (Place::Version(group, version), "GET" | "HEAD") => {
            let found = discovery::resources(&group, &version).ok_or_else(|| nowhere(request.path()))?;
            Ok(respond::json(StatusCode::OK, &found))
        }
        (Place::List(target, namespace), "GET" | "HEAD") => list(objects, target, namespace.as_deref(), request),
        (Place::List(target, Some(namespace)), "POST") => {
            let change = change(target, request)?;
            let (object, warnings) = body(request, false).await?.checked(change.strictness)?;
            let object = written_in(target, object)?;
            let changed = objects.create(target.kind(), &namespace, object, &change).await?;
            changed_response(target, changed, warnings, true)
        }
        (Place::One(target, name) | Place::Status(target, name), "GET" | "HEAD") => {
            let key = Key { kind: target.kind(), name };
            let entry = objects.entry(&key).ok_or_else(|| not_found(&key))?;
            let object = in_version(target, parsed(&entry.text))?;
            Ok(respond::json(StatusCode::OK, &formed(objects, target, object, form(&request.head.headers, request)?)))
        }
        (Place::One(target, name), "PUT") => {
            let change = change(target, request)?;
            let (object, warnings) = body(request, false).await?.checked(change.strictness)?;
            let object = written_in(target, object)?;
            let key = Key { kind: target.kind(), name };
            changed_response(target, objects.update(&key, object, &change).await?, warnings, false)
        }
        (Place::One(target, name), "PATCH") => patched(objects, target, name, request).await,
        (Place::One(target, name), "DELETE") => delete::one(objects, target, name, request).await,
        (Place::List(target, Some(namespace)), "DELETE") => delete::all(objects, target, &namespace, request).await,
        // A status is never taken from outside: what was sent is read, so that it is there at all, and left.
        (Place::Status(target, name), "PUT" | "PATCH") => {
            let _ = body(request, true).await?;
            let key = Key { kind: target.kind(), name };
            let entry = objects.entry(&key).ok_or_else(|| not_found(&key))?;
            Ok(respond::json(StatusCode::OK, &in_version(target, parsed(&entry.text))?))
        }
        (_, method) => Err(ApiError::MethodNotAllowed(format!("{method} is not for this path"))),
    }
}

/// One value of the query.
fn query(request: &Request, name: &str) -> Option<String> {
    request.query().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn flag(request: &Request, name: &str) -> Result<bool, ApiError> {
    match query(request, name).as_deref() {
        None | Some("false" | "0" | "") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(ApiError::BadRequest(format!("{name} is true or false"))),
    }
}

/// What the query says about a change.
fn change(target: Target, request: &Request) -> Result<Change, ApiError> {
    let dry_run = match query(request, "dryRun").as_deref() {
        None | Some("") => false,
        Some("All") => true,
        Some(_) => return Err(ApiError::BadRequest("dryRun can only be All".to_owned())),
    };
    let strictness = match query(request, "fieldValidation").as_deref() {
        None | Some("" | "Strict") => Strictness::Strict,
        Some("Warn") => Strictness::Warn,
        Some("Ignore") => Strictness::Ignore,
        Some(_) => return Err(ApiError::BadRequest("fieldValidation is Ignore, Warn or Strict".to_owned())),
    };
    let agent = || {
        let agent = request.head.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        agent.split('/').next().unwrap_or_default().chars().take(64).collect::<String>()
    };
    let manager = query(request, "fieldManager").filter(|m| !m.is_empty());
    let manager =
        manager.unwrap_or_else(|| Some(agent()).filter(|a| !a.is_empty()).unwrap_or_else(|| "unknown".to_owned()));
    if manager.len() > MAX_MANAGER_BYTES || manager.chars().any(char::is_control) {
        return Err(ApiError::BadRequest("fieldManager has at most 128 characters, all printable".to_owned()));
    }
    Ok(Change { dry_run, strictness, manager, force: flag(request, "force")?, api_version: target.api_version() })
}

/// A body as it was sent: in the version of the path.
fn written_in(target: Target, mut object: Value) -> Result<Value, ApiError> {
    let path = target.api_version();
    match object.get("apiVersion").and_then(Value::as_str) {
        Some(written) if written == path => {}
        Some(_) => {
            return Err(ApiError::BadRequest(format!("the apiVersion of the object is not that of the path, {path}")));
        }
        None => {
            if let Some(map) = object.as_object_mut() {
                map.insert("apiVersion".to_owned(), path.into());
            }
        }
    }
    Ok(object)
}

fn in_version(target: Target, mut object: Value) -> Result<Value, ApiError> {
    convert(target.kind(), &target.api_version(), &mut object)?;
    Ok(object)
}

async fn patched(objects: &Objects, target: Target, name: ObjectName, request: &mut Request) -> Result<Response, ApiError> {
    let key = Key { kind: target.kind(), name };
    let change = change(target, request)?;
    let media = media_type(&request.head.headers);
    let bytes = read(request).await?;
    let decoded = |media: &str| decode(media, &bytes)?.checked(change.strictness);
    let (changed, warnings) = match media.as_str() {
        "application/apply-patch+yaml" | "application/apply-patch+json" => {
            if query(request, "fieldManager").is_none_or(|m| m.is_empty()) {
                return Err(ApiError::BadRequest(
                    "PatchOptions: fieldManager: Required value: is required for apply patch".to_owned(),
                ));
            }
            let (applied, warnings) = decoded("application/apply-patch+yaml")?;
            (objects.apply(&key, written_in(target, applied)?, &change).await?, warnings)
        }
        "application/merge-patch+json" => {
            let (wanted, warnings) = decoded(&media)?;
            let merged = objects.patch(&key, &change, |object| {
                patch::merge(object, &wanted);
                Ok(())
            });
            (merged.await?, warnings)
        }
        "application/json-patch+json" => {
            let (wanted, warnings) = decoded(&media)?;
            let patched = objects.patch(&key, &change, |object| {
                patch::json(object, &wanted).map_err(|e| ApiError::BadRequest(e.to_string()))
            });
            (patched.await?, warnings)
        }
        other => {
            return Err(ApiError::UnsupportedMediaType(format!(
                "the body of the request was in an unknown format ({other}); accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
            )));
        }
    };
    changed_response(target, changed, warnings, false)
}

/// `warnings` are those of the body, before those of the object.
fn changed_response(
    target: Target,
    changed: Changed,
    mut warnings: Vec<String>,
    created: bool,
) -> Result<Response, ApiError> {
    let status = if changed.created || created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = respond::json(status, &in_version(target, changed.object)?);
    warnings.extend(changed.warnings);
    for warning in warnings.iter().take(MAX_WARNINGS) {
        let harmless = |c: &char| (' '..='~').contains(c) && *c != '"' && *c != '\\';
        let text: String = warning.replace('"', "'").chars().filter(harmless).take(MAX_WARNING_BYTES).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append("warning", value);
        }
    }
    Ok(response)
}

/// In which form the answer is wanted.
fn form(headers: &HeaderMap, request: &Request) -> Result<Form, ApiError> {
    let beside = match query(request, "includeObject").as_deref() {
        None | Some("" | "Metadata") => Beside::Metadata,
        Some("None") => Beside::Nothing,
        Some("Object") => Beside::Whole,
        Some(_) => return Err(ApiError::BadRequest("includeObject is None, Metadata or Object".to_owned())),
    };
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    for entry in accepted {
        let mut parts = entry.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "*/*" | "application/*")) {
            continue;
        }
        let parameters: Vec<&str> = parts.collect();
        let meta = parameters.contains(&"g=meta.k8s.io") && parameters.contains(&"v=v1");
        match parameters.iter().find_map(|p| p.strip_prefix("as=")) {
            None => return Ok(Form::Object),
            Some("Table") if meta => return Ok(Form::Table(beside)),
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => return Ok(Form::Metadata),
            Some(_) => {}
        }
    }
    Ok(Form::Object)
}

/// One object in the form wanted.
fn formed(objects: &Objects, target: Target, object: Value, form: Form) -> Value {
    match form {
        Form::Object => object,
        Form::Metadata => metadata_only(&object),
        Form::Table(beside) => {
            let metadata = json!({"resourceVersion": object.pointer("/metadata/resourceVersion")});
            let row = table::row(target.version, &object, beside, objects.clock());
            table::table(&table::columns(target.version), &[row], &metadata)
        }
    }
}

/// Which objects the query asks for.
fn wanted(target: Target, namespace: Option<&str>, request: &Request) -> Result<Wanted, ApiError> {
    let (labels, fields) =
        (query(request, "labelSelector").unwrap_or_default(), query(request, "fieldSelector").unwrap_or_default());
    if labels.len() > MAX_SELECTOR_BYTES || fields.len() > MAX_SELECTOR_BYTES {
        return Err(ApiError::BadRequest(format!("a selector has at most {MAX_SELECTOR_BYTES} bytes")));
    }
    Wanted::new(target.kind(), namespace, &labels, &fields)
}

fn list(objects: &Objects, target: Target, namespace: Option<&str>, request: &Request) -> Result<Response, ApiError> {
    let wanted = wanted(target, namespace, request)?;
    let form = form(&request.head.headers, request)?;
    if flag(request, "watch")? {
        return watch(objects, target, wanted, form, request);
    }
    let limit = match query(request, "limit").filter(|l| !l.is_empty() && l != "0") {
        None => usize::MAX,
        Some(limit) => limit.parse().map_err(|_| ApiError::BadRequest("limit is a number".to_owned()))?,
    };
    let after =
        query(request, "continue").filter(|c| !c.is_empty()).map(|token| continued(target.kind(), &token)).transpose()?;
    objects.refresh();
    let (mut texts, mut next, mut left) = (Vec::new(), None, 0u64);
    let revision = {
        let view = objects.view();
        let mut last = None;
        for (key, entry) in view
            .entries
            .iter()
            .filter(|(key, entry)| after.as_ref().is_none_or(|after| *key > after) && wanted.takes(key, &entry.labels))
        {
            if texts.len() == limit {
                next = next.or_else(|| last.clone());
                left += 1;
                continue;
            }
            texts.push(entry.text.clone());
            last = Some(key.clone());
        }
        view.revision
    };
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    if let Some(key) = next {
        let token = URL_SAFE_NO_PAD.encode(format!("{}/{}", key.name.namespace, key.name.name));
        metadata.insert("continue".to_owned(), token.into());
        metadata.insert("remainingItemCount".to_owned(), left.into());
    }
    let items = texts.iter().map(|text| in_version(target, parsed(text)));
    let metadata = Value::Object(metadata);
    let answer = match form {
        Form::Table(beside) => {
            let clock = objects.clock();
            let rows = items.map(|item| Ok(table::row(target.version, &item?, beside, clock)));
            let rows = rows.collect::<Result<Vec<_>, ApiError>>()?;
            table::table(&table::columns(target.version), &rows, &metadata)
        }
        Form::Metadata => {
            let items = items.map(|item| Ok(metadata_only(&item?))).collect::<Result<Vec<_>, ApiError>>()?;
            let kind = "PartialObjectMetadataList";
            json!({"kind": kind, "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
        }
        Form::Object => {
            let items = items.collect::<Result<Vec<_>, ApiError>>()?;
            let kind = format!("{}List", target.resource.name);
            json!({"kind": kind, "apiVersion": target.api_version(), "metadata": metadata, "items": items})
        }
    };
    Ok(respond::json(StatusCode::OK, &answer))
}

/// Where a list goes on.
fn continued(kind: Kind, token: &str) -> Result<Key, ApiError> {
    let wrong = || ApiError::BadRequest("continue key is not valid".to_owned());
    let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
    let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
    Ok(Key { kind, name: ObjectName { namespace: namespace.to_owned(), name: name.to_owned() } })
}

fn watch(objects: &Objects, target: Target, wanted: Wanted, form: Form, request: &Request) -> Result<Response, ApiError> {
    let number = |name: &str| match query(request, name).filter(|v| !v.is_empty()) {
        None => Ok(None),
        Some(value) => value.parse::<u64>().map(Some).map_err(|_| ApiError::BadRequest(format!("{name} is a number"))),
    };
    let initial = flag(request, "sendInitialEvents")?;
    let after = number("resourceVersion")?.filter(|revision| *revision != 0 && !initial);
    if let Some(asked) = after {
        objects.refresh();
        let view = objects.view();
        if asked < view.oldest() || asked > view.revision {
            return Err(ApiError::Expired { asked, known: view.oldest() });
        }
    }
    let place = objects.watch_place().ok_or_else(|| ApiError::TooMany("too many watches at once".to_owned()))?;
    let asked = watch::Request {
        wanted,
        version: target.version,
        form,
        after,
        bookmarks: flag(request, "allowWatchBookmarks")?,
        lasts: number("timeoutSeconds")?.map(Duration::from_secs),
        initial_end: initial,
    };
    let stream = watch::stream(objects, asked, cut(request), place);
    let mut response = Response::new(Body::stream(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What ends a watch before its time: the server stops, or the credential that it came with is revoked.
fn cut(request: &Request) -> watch::Cut {
    let (shutdown, revoked) = (request.shutdown().clone(), request.revoked());
    Box::pin(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = revoked => {}
        }
    })
}

fn openapi_document(request: &Request) -> Response {
    let accepts = |media: &str| {
        let mut accepted = request.head.headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
        accepted.any(|value| value.contains(media))
    };
    let parts: Vec<&str> = request.path().trim_matches('/').split('/').collect();
    match parts[..] {
        ["openapi", "v2"] if protobuf::ASKED_FOR.into_iter().any(accepts) => {
            let bytes = protobuf::document(&openapi::v2());
            respond::typed(StatusCode::OK, HeaderValue::from_static(protobuf::MEDIA_TYPE), bytes)
        }
        ["openapi", "v2"] => respond::json(StatusCode::OK, &openapi::v2()),
        ["openapi", "v3"] => respond::json(StatusCode::OK, &openapi::v3_index()),
        ["openapi", "v3", "apis", group, version] => match openapi::v3(group, version) {
            Some(document) => respond::json(StatusCode::OK, &document),
            None => nowhere(request.path()).response(None),
        },
        _ => nowhere(request.path()).response(None),
    }
}
