//! Manifests of Triggers, as a user of Knative would write them.

use std::fmt::Write as _;

/// A Trigger on `default/default` with a subscriber.
#[derive(Debug, Clone, Default)]
pub struct Trigger<'a> {
    /// Its name.
    pub name: &'a str,
    /// The subscriber's URL.
    pub to: &'a str,
    /// Annotations.
    pub annotations: &'a [(&'a str, &'a str)],
    /// Attributes to match exactly; none: all events.
    pub filter: &'a [(&'a str, &'a str)],
    /// `spec.delivery`, in YAML's flow style.
    pub delivery: Option<&'a str>,
}

impl Trigger<'_> {
    /// Its YAML, with the separator of documents before it.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = format!(
            "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata:\n  name: {}\n  namespace: default\n",
            self.name
        );
        // Writing to a string cannot fail.
        if !self.annotations.is_empty() {
            text.push_str("  annotations:\n");
            for (name, value) in self.annotations {
                let _ = writeln!(text, "    {name}: {value:?}");
            }
        }
        text.push_str("spec:\n  broker: default\n");
        if !self.filter.is_empty() {
            text.push_str("  filter:\n    attributes:\n");
            for (name, value) in self.filter {
                let _ = writeln!(text, "      {name}: {value:?}");
            }
        }
        let _ = write!(text, "  subscriber:\n    uri: {}\n", self.to);
        if let Some(delivery) = self.delivery {
            let _ = writeln!(text, "  delivery: {delivery}");
        }
        text
    }
}
