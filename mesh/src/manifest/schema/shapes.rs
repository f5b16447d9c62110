//! Shapes that several kinds share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{Field, Rule, Shape, Type};
use crate::cron::Schedule;
use crate::manifest::delivery::DeliverySpec;
use crate::manifest::destination::Destination;
use crate::manifest::error::FieldError;

pub(super) const fn field(name: &'static str, ty: Type, doc: &'static str) -> Field {
    Field { name, ty, required: false, doc }
}

pub(super) const fn required(name: &'static str, ty: Type, doc: &'static str) -> Field {
    Field { name, ty, required: true, doc }
}

pub(super) const fn shape(fields: &'static [Field]) -> Shape {
    Shape { fields, rule: None, reference: false, open: false }
}

pub(super) const fn ruled(fields: &'static [Field], rule: Rule) -> Shape {
    Shape { fields, rule: Some(rule), reference: false, open: false }
}

/// Fields that we have no list of.
pub(super) const OPEN: Shape = Shape { fields: &[], rule: None, reference: false, open: true };

const REF_FIELDS: &[Field] = &[
    field("apiVersion", Type::Text, "API version of the object referred to."),
    field("kind", Type::Text, "Kind of the object referred to."),
    field("name", Type::Text, "Name of the object referred to."),
    field("namespace", Type::Text, "Its namespace; absent: that of this object."),
    field("address", Type::Text, "Name of one of its addresses."),
    field("group", Type::Text, "API group, in place of apiVersion."),
];

/// A reference to another object.
pub(super) const REFERENCE: Shape = Shape { fields: REF_FIELDS, rule: None, reference: true, open: false };

/// Where events go (D28).
pub(super) const DESTINATION: Shape = ruled(
    &[
        field("ref", Type::Object(&REFERENCE), "The object that takes the events."),
        field("uri", Type::Text, "An absolute URL, or one relative to that of ref."),
        field("CACerts", Type::Text, "Certificates (PEM) to trust there."),
        field("audience", Type::Text, "OIDC audience of the receiver; OIDC is off here."),
    ],
    destination,
);

/// What happens when events are not taken (D12-D15).
pub(super) const DELIVERY: Shape = ruled(
    &[
        field("deadLetterSink", Type::Object(&DESTINATION), "Where events go that cannot be delivered."),
        field("retry", Type::Integer(0), "Number of retries after the first attempt."),
        field("timeout", Type::Duration, "Longest time for one attempt; absent: PT30S."),
        field("backoffPolicy", Type::OneOf(&["linear", "exponential"]), "How waits between attempts grow."),
        field("backoffDelay", Type::Duration, "The first wait."),
        field("retryAfterMax", Type::Duration, "Longest Retry-After of the receiver that is obeyed."),
        field("format", Type::OneOf(&["json", "binary"]), "The form in which events are sent."),
    ],
    delivery,
);

/// What a source adds to its events.
pub(super) const OVERRIDES: Shape =
    shape(&[field("extensions", Type::Map(&Type::Text), "Attributes to set on every event.")]);

/// A template for the channels of a flow.
pub(super) const CHANNEL_TEMPLATE: Shape = shape(&[
    field("apiVersion", Type::Text, "API version of the channels."),
    field("kind", Type::Text, "Kind of the channels."),
    field("spec", Type::AnyObject, "Their spec."),
]);

/// A label selector.
const MATCH_EXPRESSION: Shape = shape(&[
    field("key", Type::Text, "The label."),
    field("operator", Type::OneOf(&["In", "NotIn", "Exists", "DoesNotExist"]), "How the label is compared."),
    field("values", Type::List(&Type::Text), "With what."),
]);

pub(super) const MATCH_LABELS: Field = field("matchLabels", Type::Map(&Type::Text), "Labels that must have these values.");

pub(super) const MATCH_EXPRESSIONS: Field =
    field("matchExpressions", Type::List(&Type::Object(&MATCH_EXPRESSION)), "Conditions on labels.");

pub(super) const SELECTOR: Shape = shape(&[MATCH_LABELS, MATCH_EXPRESSIONS]);

/// One filter of a list of filters; which dialects there are and what they say is checked where they are compiled.
pub(super) const FILTERS: Type = Type::List(&Type::AnyObject);

const OWNER: Shape = shape(&[
    required("apiVersion", Type::Text, "API version of the owner."),
    required("kind", Type::Text, "Kind of the owner."),
    required("name", Type::Text, "Name of the owner."),
    required("uid", Type::Text, "Uid of the owner."),
    field("controller", Type::Boolean, "Whether the owner made this object."),
    field("blockOwnerDeletion", Type::Boolean, "Whether the owner waits for this object to go."),
]);

/// The metadata of every object.
pub const METADATA: Shape = shape(&[
    field("name", Type::Text, "Name, unique among the objects of its kind in the namespace."),
    field("generateName", Type::Text, "Beginning of a name that the server makes."),
    field("namespace", Type::Text, "Namespace; absent: default. Namespaces need not be made."),
    field("labels", Type::Map(&Type::Text), "Labels, for selectors."),
    field("annotations", Type::Map(&Type::Text), "Annotations; ours begin with godwit.dev/."),
    field("uid", Type::Text, "Set by the server: an object made anew has another."),
    field("resourceVersion", Type::Text, "Set by the server: changes with every change."),
    field("generation", Type::Long, "Set by the server: changes with spec."),
    field("creationTimestamp", Type::Time, "Set by the server: when it was made."),
    field("deletionTimestamp", Type::Time, "Set by the server: when it was deleted; its finalizers keep it."),
    field("deletionGracePeriodSeconds", Type::Long, "Set by the server with deletionTimestamp: 0."),
    field("finalizers", Type::List(&Type::Text), "An object of the API that is deleted goes when this is empty."),
    field("ownerReferences", Type::List(&Type::Object(&OWNER)), "Objects that this one belongs to."),
    field("managedFields", Type::List(&Type::AnyObject), "Set by the server: who set which field."),
    field("selfLink", Type::Text, "Not used any more."),
    field("clusterName", Type::Text, "Not used any more."),
]);

pub(super) fn typed<T: serde::de::DeserializeOwned>(map: &Map<String, Value>) -> Option<T> {
    // What does not fit the type has been found field by field already.
    serde_json::from_value(Value::Object(map.clone())).ok()
}

fn destination(map: &Map<String, Value>) -> Result<(), FieldError> {
    typed::<Destination>(map).map_or(Ok(()), |destination| destination.check())
}

fn delivery(map: &Map<String, Value>) -> Result<(), FieldError> {
    // The sink has been looked at by its own rule.
    let mut map = map.clone();
    map.remove("deadLetterSink");
    typed::<DeliverySpec>(&map).map_or(Ok(()), |delivery| delivery.check())
}

/// A destination with something beside it: the destination's own fields alone.
pub(super) fn destination_within(map: &Map<String, Value>) -> Result<(), FieldError> {
    let own = ["ref", "uri", "CACerts", "audience"];
    let map = map.iter().filter(|(k, _)| own.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
    destination(&map)
}

/// PingSource: one kind of data, and a schedule that can be one.
pub(super) fn ping(map: &Map<String, Value>) -> Result<(), FieldError> {
    let text = |name: &str| map.get(name).and_then(Value::as_str);
    if text("data").is_some_and(|d| !d.is_empty()) && text("dataBase64").is_some_and(|d| !d.is_empty()) {
        return Err(FieldError::new("dataBase64", "data and dataBase64 exclude each other: write one of them"));
    }
    if let Some(data) = text("dataBase64")
        && STANDARD.decode(data).is_err()
    {
        return Err(FieldError::new("dataBase64", "is not base64"));
    }
    match text("schedule").filter(|schedule| !schedule.is_empty()) {
        Some(schedule) => schedule.parse::<Schedule>().map(|_| ()).map_err(|why| FieldError::new("schedule", why)),
        None => Ok(()),
    }
}

/// SinkBinding: the subject is one object or those with some labels.
pub(super) fn subject(map: &Map<String, Value>) -> Result<(), FieldError> {
    match (map.contains_key("name"), map.contains_key("selector")) {
        (true, true) => Err(FieldError::new("selector", "name and selector exclude each other: write one of them")),
        (false, false) => Err(FieldError::new("name", "is missing; write it or a selector").missing()),
        _ => Ok(()),
    }
}
