//! Knative manifests: parse, validate, apply.
