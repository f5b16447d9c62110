//! The kinds: those of Knative as its CRDs give them, and ours.

use super::shapes::{
    CHANNEL_TEMPLATE, DELIVERY, DESTINATION, FILTERS, MATCH_EXPRESSIONS, MATCH_LABELS, OPEN, OVERRIDES, REFERENCE,
    SELECTOR, destination_within, field, ping, required, ruled, shape, subject,
};
use super::{Column, Field, Resource, Runs, Shape, Type, Version};
use crate::manifest::kind::Kind;

const EVENTING: &str = "eventing.knative.dev";
const MESSAGING: &str = "messaging.knative.dev";
const FLOWS: &str = "flows.knative.dev";
const SOURCES: &str = "sources.knative.dev";
const SINKS: &str = "sinks.knative.dev";
const OURS: &str = "godwit.dev";

const fn column(name: &'static str, path: &'static str) -> Column {
    Column { name, path, priority: 0 }
}

const URL: Column = column("URL", ".status.address.url");
const SINK: Column = column("Sink", ".status.sinkUri");
const AGE: Column = column("Age", ".metadata.creationTimestamp");
const READY: Column = column("Ready", ".status.conditions[?(@.type==\"Ready\")].status");
const REASON: Column = column("Reason", ".status.conditions[?(@.type==\"Ready\")].reason");

const ADDRESSABLE: &[Column] = &[URL, AGE, READY, REASON];
const SOURCE: &[Column] = &[SINK, AGE, READY, REASON];

const fn version(name: &'static str, spec: &'static Shape, columns: &'static [Column]) -> Version {
    Version { name, deprecated: false, spec, columns }
}

const fn old(name: &'static str, spec: &'static Shape, columns: &'static [Column]) -> Version {
    Version { name, deprecated: true, spec, columns }
}

const DELIVERY_FIELD: Field = field(
    "delivery",
    Type::Object(&DELIVERY),
    "What happens when events are not taken; absent: they wait and are tried again.",
);
const SUBSCRIBERS: Field =
    field("subscribers", Type::List(&Type::AnyObject), "Set by Knative's controllers; not used here.");
const SINK_FIELD: Field = required("sink", Type::Object(&DESTINATION), "Where the events go.");
const OPTIONAL_SINK: Field = field("sink", Type::Object(&DESTINATION), "Where the events go.");
const OVERRIDES_FIELD: Field = field("ceOverrides", Type::Object(&OVERRIDES), "What is set on every event.");

const BROKER: Shape = shape(&[
    field("config", Type::Object(&REFERENCE), "Configuration of Knative's own classes; ours need none."),
    field("delivery", Type::Object(&DELIVERY), "The delivery of Triggers that have none of their own."),
]);

const TRIGGER_FILTER: Shape = shape(&[field(
    "attributes",
    Type::Map(&Type::Text),
    "Attributes that must have exactly these values; an empty value asks for any that is not empty.",
)]);

const TRIGGER: Shape = shape(&[
    field("broker", Type::Text, "The Broker whose events are wanted; never changes."),
    field("brokerRef", Type::Object(&REFERENCE), "The Broker, where it is in another namespace."),
    field("filter", Type::Object(&TRIGGER_FILTER), "Which events are wanted; filters wins over it."),
    field("filters", FILTERS, "Which events are wanted: all of these must hold."),
    required("subscriber", Type::Object(&DESTINATION), "Where the events go."),
    DELIVERY_FIELD,
]);

const CHANNEL: Shape = shape(&[
    field("channelTemplate", Type::Object(&CHANNEL_TEMPLATE), "What backs the channel; here always a journal."),
    DELIVERY_FIELD,
    SUBSCRIBERS,
]);

const IN_MEMORY_CHANNEL: Shape = shape(&[DELIVERY_FIELD, SUBSCRIBERS]);

const SUBSCRIPTION: Shape = shape(&[
    field("channel", Type::Object(&REFERENCE), "The channel whose events are wanted."),
    field("subscriber", Type::Object(&DESTINATION), "Where the events go."),
    field("reply", Type::Object(&DESTINATION), "Where the subscriber's replies go."),
    DELIVERY_FIELD,
]);

const STEP: Shape = ruled(
    &[
        field("ref", Type::Object(&REFERENCE), "The object that takes the events."),
        field("uri", Type::Text, "An absolute URL, or one relative to that of ref."),
        field("CACerts", Type::Text, "Certificates (PEM) to trust there."),
        field("audience", Type::Text, "OIDC audience of the receiver; OIDC is off here."),
        DELIVERY_FIELD,
    ],
    destination_within,
);

const SEQUENCE: Shape = shape(&[
    required("steps", Type::List(&Type::Object(&STEP)), "The subscribers, each fed by the replies of the one before."),
    field("channelTemplate", Type::Object(&CHANNEL_TEMPLATE), "The channels in between; here always journals."),
    field("reply", Type::Object(&DESTINATION), "Where the last step's replies go."),
]);

const BRANCH: Shape = shape(&[
    field("filter", Type::Object(&DESTINATION), "Asked for each event; answers with an event if the branch is to have it."),
    required("subscriber", Type::Object(&DESTINATION), "Where the branch's events go."),
    field("reply", Type::Object(&DESTINATION), "Where its replies go; absent: where those of the Parallel go."),
    DELIVERY_FIELD,
]);

const PARALLEL: Shape = shape(&[
    required("branches", Type::List(&Type::Object(&BRANCH)), "The branches."),
    field("channelTemplate", Type::Object(&CHANNEL_TEMPLATE), "The channels in between; here always journals."),
    field("reply", Type::Object(&DESTINATION), "Where replies of branches without one of their own go."),
]);

const EVENT_ATTRIBUTE: Shape = shape(&[
    required("name", Type::Text, "The attribute."),
    field("required", Type::Boolean, "Whether events of this type always have it."),
    field("value", Type::Text, "Its value, or a pattern with {variables}."),
]);

const EVENT_TYPE: Shape = shape(&[
    field("reference", Type::Object(&REFERENCE), "Where events of this type can be had."),
    field("description", Type::Text, "What the events are."),
    field("attributes", Type::List(&Type::Object(&EVENT_ATTRIBUTE)), "Their attributes."),
    field("variables", Type::List(&Type::AnyObject), "What the variables in values stand for."),
]);

/// As it was before attributes were a list.
const EVENT_TYPE_FLAT: Shape = shape(&[
    field("type", Type::Text, "The events' type."),
    field("source", Type::Text, "The events' source."),
    field("schema", Type::Text, "URL of a schema of the data."),
    field("schemaData", Type::Text, "A schema of the data."),
    field("broker", Type::Text, "The Broker where they can be had, if there is no reference."),
    field("reference", Type::Object(&REFERENCE), "Where they can be had."),
    field("description", Type::Text, "What the events are."),
]);

const PING_SOURCE: Shape = ruled(
    &[
        SINK_FIELD,
        field("schedule", Type::Text, "When, as cron writes it; absent: every minute."),
        field("timezone", Type::Text, "The time zone of the schedule; absent: UTC."),
        field("contentType", Type::Text, "Media type of the data."),
        field("data", Type::Text, "The events' data."),
        field("dataBase64", Type::Text, "The same for data that is not text."),
        OVERRIDES_FIELD,
    ],
    ping,
);

const CONTAINER_SOURCE: Shape =
    shape(&[SINK_FIELD, required("template", Type::AnyObject, "The pod to run."), OVERRIDES_FIELD]);

const SUBJECT: Shape = Shape {
    fields: &[
        required("apiVersion", Type::Text, "API version of the objects."),
        required("kind", Type::Text, "Kind of the objects."),
        field("name", Type::Text, "Name of the one object."),
        field("namespace", Type::Text, "Their namespace; absent: that of this object."),
        field("selector", Type::Object(&SELECTOR), "Labels of the objects."),
    ],
    rule: Some(subject),
    reference: true,
    open: false,
};

const SINK_BINDING: Shape =
    shape(&[SINK_FIELD, required("subject", Type::Object(&SUBJECT), "What is told where the sink is."), OVERRIDES_FIELD]);

const POLICY_FROM: Shape = shape(&[
    field("ref", Type::Object(&REFERENCE), "An object that may send."),
    field("sub", Type::Text, "A subject of OIDC that may send."),
]);

const POLICY_REF: Shape = shape(&[
    field("apiVersion", Type::Text, "API version of the object."),
    field("kind", Type::Text, "Kind of the object."),
    field("name", Type::Text, "Name of the object."),
]);

const POLICY_SELECTOR: Shape = shape(&[
    field("apiVersion", Type::Text, "API version of the objects."),
    field("kind", Type::Text, "Kind of the objects."),
    MATCH_LABELS,
    MATCH_EXPRESSIONS,
]);

const POLICY_TO: Shape = shape(&[
    field("ref", Type::Object(&POLICY_REF), "An object that may be sent to."),
    field("selector", Type::Object(&POLICY_SELECTOR), "Objects that may be sent to."),
]);

const EVENT_POLICY: Shape = shape(&[
    field("from", Type::List(&Type::Object(&POLICY_FROM)), "Who may send."),
    field("to", Type::List(&Type::Object(&POLICY_TO)), "To what."),
    field("filters", FILTERS, "Which events."),
]);

const REQUEST_REPLY: Shape = shape(&[
    field("brokerRef", Type::Object(&REFERENCE), "The Broker that requests go through."),
    field("correlationAttribute", Type::Text, "The attribute that names a request."),
    field("replyAttribute", Type::Text, "The attribute by which a reply names its request."),
    field("timeout", Type::Duration, "How long a reply is waited for."),
    field("secrets", Type::List(&Type::Text), "Names of secrets."),
    DELIVERY_FIELD,
]);

const JSONATA: Shape = shape(&[field("expression", Type::Text, "The expression.")]);

const TRANSFORM_REPLY: Shape = shape(&[
    field("jsonata", Type::Object(&JSONATA), "How a reply is transformed."),
    field("discard", Type::Boolean, "Whether replies are thrown away."),
]);

const EVENT_TRANSFORM: Shape = shape(&[
    field("jsonata", Type::Object(&JSONATA), "How an event is transformed."),
    field("reply", Type::Object(&TRANSFORM_REPLY), "What becomes of replies of the sink."),
    OPTIONAL_SINK,
]);

const JOB_SINK: Shape = shape(&[
    field("job", Type::AnyObject, "The job to run for each event."),
    field("execution", Type::AnyObject, "How it is run."),
]);

const MQTT_SOURCE: Shape = shape(&[
    required("topics", Type::List(&Type::Text), "Topic filters."),
    SINK_FIELD,
    field("server", Type::Text, "URL of another MQTT broker, which is not built yet; absent: the agent's own listener."),
    field(
        "type",
        Type::Text,
        "Template of the events' type; {topic}, {topic.1}, {client} and {agent} stand for what they say.",
    ),
    field("source", Type::Text, "Template of the events' source."),
    field("subject", Type::Text, "Template of the events' subject."),
    OVERRIDES_FIELD,
]);

const TYPE_FIELD: Field = field("type", Type::Text, "The events' type.");
const CONTENT_TYPE_FIELD: Field =
    field("contentType", Type::Text, "Media type of the events' data; absent: what it looks like.");

const HTTP_POLL_SOURCE: Shape = shape(&[
    required("uri", Type::Text, "What is asked."),
    required("interval", Type::Duration, "How often."),
    field("items", Type::Text, "JSON pointer to the list whose items become events; absent: the answer is one event."),
    field("id", Type::Text, "JSON pointer, within an item, to what it is known by; absent: all of it."),
    TYPE_FIELD,
    SINK_FIELD,
    OVERRIDES_FIELD,
]);

const FILE_SOURCE: Shape = shape(&[
    required("path", Type::Text, "The file, or the folder."),
    field(
        "mode",
        Type::OneOf(&["lines", "files"]),
        "Whether each line of the file is an event, or each file of the folder; absent: lines.",
    ),
    field(
        "start",
        Type::OneOf(&["beginning", "end"]),
        "Where lines are read from at the very first start; absent: from the beginning.",
    ),
    field(
        "done",
        Type::Text,
        "Folder on the same disk that files go to when their events are durable; absent: they are deleted.",
    ),
    field(
        "inlineBytes",
        Type::Long,
        "Largest file whose content is in its event; a larger one stays, and dataref names it. Absent: 65536.",
    ),
    CONTENT_TYPE_FIELD,
    TYPE_FIELD,
    SINK_FIELD,
    OVERRIDES_FIELD,
]);

const VARIABLE: Shape = shape(&[required("name", Type::Text, "The variable."), field("value", Type::Text, "Its value.")]);

const LIMITS: Shape = shape(&[
    field("memoryBytes", Type::Long, "Most bytes of its address space."),
    field("openFiles", Type::Long, "Most files that it may have open."),
]);

const PROGRAM_SOURCE: Shape = shape(&[
    required("command", Type::List(&Type::Text), "The program, by its absolute path, and its first arguments."),
    field("args", Type::List(&Type::Text), "Further arguments."),
    field("env", Type::List(&Type::Object(&VARIABLE)), "Variables of its environment."),
    field("user", Type::Text, "The user that it runs as; absent: that of the agent."),
    field("limits", Type::Object(&LIMITS), "What it may take."),
    field("lines", Type::Boolean, "Whether each line that it prints is an event; absent: lines go to the log."),
    CONTENT_TYPE_FIELD,
    TYPE_FIELD,
    field("sink", Type::Object(&DESTINATION), "Where the events go; absent: a SinkBinding says it."),
    OVERRIDES_FIELD,
]);

const PING_COLUMNS: &[Column] = &[SINK, column("Schedule", ".spec.schedule"), AGE, READY, REASON];

const FLAT_TYPE_COLUMNS: &[Column] = &[
    column("Type", ".spec.type"),
    column("Source", ".spec.source"),
    column("Schema", ".spec.schema"),
    column("Reference Name", ".spec.reference.name"),
    column("Reference Kind", ".spec.reference.kind"),
    column("Description", ".spec.description"),
    READY,
    REASON,
];

const K: [&str; 3] = ["all", "knative", "eventing"];
const SOURCE_CATEGORIES: &[&str] = &["all", "knative", "sources"];
const OUR_SOURCES: &[&str] = &["all", "godwit", "sources"];

/// A kind of which only the name differs from its like: stored, not run.
const fn stored(
    kind: Kind,
    name: &'static str,
    group: &'static str,
    plural: &'static str,
    versions: &'static [Version],
    doc: &'static str,
) -> Resource {
    Resource { kind, name, group, versions, plural, short: &[], categories: &K, runs: Runs::NotYet, doc }
}

/// Every kind, in the order of [`Kind`].
pub static RESOURCES: [Resource; Kind::COUNT] = [
    Resource {
        runs: Runs::Yes,
        ..stored(
            Kind::Broker,
            "Broker",
            EVENTING,
            "brokers",
            &[version(
                "v1",
                &BROKER,
                &[
                    URL,
                    AGE,
                    READY,
                    REASON,
                    Column {
                        name: "Class",
                        path: ".metadata.annotations.eventing\\.knative\\.dev/broker\\.class",
                        priority: 1,
                    },
                ],
            )],
            "A durable queue of events that Triggers take from.",
        )
    },
    Resource {
        runs: Runs::Yes,
        ..stored(
            Kind::Trigger,
            "Trigger",
            EVENTING,
            "triggers",
            &[version(
                "v1",
                &TRIGGER,
                &[column("Broker", ".spec.broker"), column("Subscriber_URI", ".status.subscriberUri"), AGE, READY, REASON],
            )],
            "Takes the events that a filter chooses from a Broker to a subscriber.",
        )
    },
    Resource {
        runs: Runs::Yes,
        short: &["ch"],
        categories: &["all", "knative", "messaging", "channel"],
        ..stored(
            Kind::Channel,
            "Channel",
            MESSAGING,
            "channels",
            &[version("v1", &CHANNEL, ADDRESSABLE)],
            "A durable queue of events that Subscriptions take from.",
        )
    },
    Resource {
        runs: Runs::Yes,
        short: &["imc"],
        categories: &["all", "knative", "messaging", "channel"],
        ..stored(
            Kind::InMemoryChannel,
            "InMemoryChannel",
            MESSAGING,
            "inmemorychannels",
            &[version("v1", &IN_MEMORY_CHANNEL, ADDRESSABLE)],
            "A Channel by the name that Knative gives to its simplest one; here as durable as any.",
        )
    },
    Resource {
        runs: Runs::Yes,
        short: &["sub"],
        categories: &["all", "knative", "messaging"],
        ..stored(
            Kind::Subscription,
            "Subscription",
            MESSAGING,
            "subscriptions",
            &[version("v1", &SUBSCRIPTION, &[AGE, READY, REASON])],
            "Takes the events of a Channel to a subscriber.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: &["all", "knative", "flows"],
        ..stored(
            Kind::Sequence,
            "Sequence",
            FLOWS,
            "sequences",
            &[version("v1", &SEQUENCE, ADDRESSABLE)],
            "Subscribers one after the other, each fed by the one before.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: &["all", "knative", "flows"],
        ..stored(
            Kind::Parallel,
            "Parallel",
            FLOWS,
            "parallels",
            &[version("v1", &PARALLEL, ADDRESSABLE)],
            "Subscribers side by side, each behind a filter of its own.",
        )
    },
    Resource {
        runs: Runs::Yes,
        ..stored(
            Kind::EventType,
            "EventType",
            EVENTING,
            "eventtypes",
            &[
                version(
                    "v1beta3",
                    &EVENT_TYPE,
                    &[
                        column("Type", ".spec.attributes[?(@.name=='type')].value"),
                        column("Source", ".spec.attributes[?(@.name=='source')].value"),
                        column("Reference Name", ".spec.reference.name"),
                        column("Reference Kind", ".spec.reference.kind"),
                        column("Description", ".spec.description"),
                        READY,
                        REASON,
                    ],
                ),
                version("v1beta2", &EVENT_TYPE_FLAT, FLAT_TYPE_COLUMNS),
                old("v1beta1", &EVENT_TYPE_FLAT, FLAT_TYPE_COLUMNS),
            ],
            "Tells which events there are to be had, and where.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: SOURCE_CATEGORIES,
        ..stored(
            Kind::PingSource,
            "PingSource",
            SOURCES,
            "pingsources",
            &[version("v1", &PING_SOURCE, PING_COLUMNS), old("v1beta2", &PING_SOURCE, PING_COLUMNS)],
            "Makes an event at the times of a schedule.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: SOURCE_CATEGORIES,
        ..stored(
            Kind::ContainerSource,
            "ContainerSource",
            SOURCES,
            "containersources",
            &[version("v1", &CONTAINER_SOURCE, SOURCE)],
            "Runs a container that makes events.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: &["all", "knative", "sources", "bindings"],
        ..stored(
            Kind::SinkBinding,
            "SinkBinding",
            SOURCES,
            "sinkbindings",
            &[version("v1", &SINK_BINDING, SOURCE)],
            "Tells a program where to send its events.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: OUR_SOURCES,
        ..stored(
            Kind::MqttSource,
            "MqttSource",
            OURS,
            "mqttsources",
            &[version("v1", &MQTT_SOURCE, SOURCE)],
            "Makes events from what is published under topics of MQTT.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: OUR_SOURCES,
        ..stored(
            Kind::HttpPollSource,
            "HttpPollSource",
            OURS,
            "httppollsources",
            &[version("v1", &HTTP_POLL_SOURCE, SOURCE)],
            "Asks a URL again and again and makes events from what is new.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: OUR_SOURCES,
        ..stored(
            Kind::FileSource,
            "FileSource",
            OURS,
            "filesources",
            &[version("v1", &FILE_SOURCE, SOURCE)],
            "Makes events from the lines of a file, or from files put into a folder.",
        )
    },
    Resource {
        runs: Runs::Yes,
        categories: OUR_SOURCES,
        ..stored(
            Kind::ProgramSource,
            "ProgramSource",
            OURS,
            "programsources",
            &[version("v1", &PROGRAM_SOURCE, SOURCE)],
            "Runs a program of this machine that makes events.",
        )
    },
    stored(
        Kind::EventPolicy,
        "EventPolicy",
        EVENTING,
        "eventpolicies",
        &[version("v1alpha1", &EVENT_POLICY, &[READY, REASON])],
        "Says who may send events to what.",
    ),
    Resource {
        short: &["rr"],
        ..stored(
            Kind::RequestReply,
            "RequestReply",
            EVENTING,
            "requestreplies",
            &[version("v1alpha1", &REQUEST_REPLY, &[URL, READY, REASON])],
            "Holds a request open until its reply passes through a Broker.",
        )
    },
    stored(
        Kind::EventTransform,
        "EventTransform",
        EVENTING,
        "eventtransforms",
        &[version("v1alpha1", &EVENT_TRANSFORM, &[URL, SINK, READY, REASON])],
        "Transforms events by an expression.",
    ),
    Resource {
        categories: &["all", "knative", "eventing", "sink"],
        ..stored(
            Kind::JobSink,
            "JobSink",
            SINKS,
            "jobsinks",
            &[version("v1alpha1", &JOB_SINK, ADDRESSABLE)],
            "Runs a job for each event.",
        )
    },
    Resource {
        categories: &["all", "knative", "eventing", "sink"],
        ..stored(
            Kind::IntegrationSink,
            "IntegrationSink",
            SINKS,
            "integrationsinks",
            &[version("v1alpha1", &OPEN, ADDRESSABLE)],
            "Takes events to a service of a cloud.",
        )
    },
    Resource {
        categories: SOURCE_CATEGORIES,
        ..stored(
            Kind::IntegrationSource,
            "IntegrationSource",
            SOURCES,
            "integrationsources",
            &[version("v1alpha1", &OPEN, SOURCE)],
            "Makes events from a service of a cloud.",
        )
    },
    Resource {
        categories: SOURCE_CATEGORIES,
        ..stored(
            Kind::ApiServerSource,
            "ApiServerSource",
            SOURCES,
            "apiserversources",
            &[version("v1", &OPEN, SOURCE)],
            "Makes events from changes of Kubernetes objects.",
        )
    },
    Resource {
        categories: SOURCE_CATEGORIES,
        ..stored(
            Kind::KafkaSource,
            "KafkaSource",
            SOURCES,
            "kafkasources",
            &[version("v1", &OPEN, SOURCE), version("v1beta1", &OPEN, SOURCE)],
            "Makes events from records of Kafka.",
        )
    },
    Resource {
        categories: &["all", "knative", "eventing", "sink"],
        ..stored(
            Kind::KafkaSink,
            "KafkaSink",
            EVENTING,
            "kafkasinks",
            &[version("v1alpha1", &OPEN, ADDRESSABLE)],
            "Takes events to Kafka.",
        )
    },
];
