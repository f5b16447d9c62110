//! The Prometheus text format 0.0.4 and OpenMetrics 1.0.0.
//!
//! They differ where a counter's family is named (with and without `_total`), in `# UNIT`, and in the end mark. All samples of
//! a family stand together, so what collectors tell is gathered by family before it is written.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use http::HeaderValue;

use super::Histogram;

/// In which of the two formats metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for.
    #[must_use]
    pub fn accepted(accept: Option<&HeaderValue>) -> Self {
        match accept.and_then(|a| a.to_str().ok()) {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// The format's content type.
    #[must_use]
    pub fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// What a scrape gathers.
#[derive(Debug)]
pub struct Samples {
    format: Format,
    families: BTreeMap<&'static str, Gathered>,
}

#[derive(Debug)]
struct Gathered {
    kind: &'static str,
    help: &'static str,
    lines: String,
}

impl Samples {
    pub(super) fn new(format: Format) -> Self {
        Self { format, families: BTreeMap::new() }
    }

    /// Tells a counter; the name has no `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: u64) {
        self.written_counter(name, help, &self::labels(labels), value);
    }

    /// Tells a gauge.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, labels: &[(&str, &str)], value: impl Display) {
        self.written_gauge(name, help, &self::labels(labels), value);
    }

    pub(super) fn written_counter(&mut self, name: &'static str, help: &'static str, labels: &str, value: u64) {
        line(self.family(name, "counter", help), name, "_total", labels, value);
    }

    pub(super) fn written_gauge(&mut self, name: &'static str, help: &'static str, labels: &str, value: impl Display) {
        line(self.family(name, "gauge", help), name, "", labels, value);
    }

    pub(super) fn histogram(&mut self, name: &'static str, help: &'static str, labels: &str, histogram: &Histogram) {
        let lines = self.family(name, "histogram", help);
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        let bounds = histogram.0.bounds.iter().map(Some).chain([None]);
        for (count, bound) in histogram.0.counts.iter().zip(bounds) {
            total += count.load(Ordering::Relaxed);
            let le = bound.map_or_else(|| "+Inf".to_owned(), |&us| seconds(us));
            line(lines, name, "_bucket", &format!("{labels}{comma}le=\"{le}\""), total);
        }
        line(lines, name, "_sum", labels, seconds(histogram.0.sum_us.load(Ordering::Relaxed)));
        line(lines, name, "_count", labels, total);
    }

    fn family(&mut self, name: &'static str, kind: &'static str, help: &'static str) -> &mut String {
        &mut self.families.entry(name).or_insert_with(|| Gathered { kind, help, lines: String::new() }).lines
    }

    pub(super) fn finish(self) -> String {
        let mut out = String::new();
        for (name, family) in &self.families {
            let suffix = if self.format == Format::Prometheus && family.kind == "counter" { "_total" } else { "" };
            let _ = writeln!(out, "# TYPE {name}{suffix} {}", family.kind);
            if self.format == Format::OpenMetrics
                && let Some(unit) = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit))
            {
                let _ = writeln!(out, "# UNIT {name} {unit}");
            }
            let _ = writeln!(out, "# HELP {name}{suffix} {}", family.help);
            out.push_str(&family.lines);
        }
        if self.format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

fn line(out: &mut String, name: &str, suffix: &str, labels: &str, value: impl Display) {
    let _ = match labels {
        "" => writeln!(out, "{name}{suffix} {value}"),
        _ => writeln!(out, "{name}{suffix}{{{labels}}} {value}"),
    };
}

/// Labels as they are written, their values escaped.
pub(super) fn labels(labels: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        let _ = write!(out, "{name}=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}

/// Microseconds as seconds, exactly, with at least one decimal.
fn seconds(us: u64) -> String {
    let mut text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    while text.ends_with('0') && !text.ends_with(".0") {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;
    use std::time::Duration;

    fn metrics() -> Metrics {
        let metrics = Metrics::new();
        metrics.counter("b_events", "Events.", &[("broker", "de\"f\\a\nult")]).add(7);
        metrics.gauge("a_bytes", "Bytes.", &[]).set(-3);
        let histogram = metrics.histogram("c_wait_seconds", "Waits.", &[("x", "y")], &[1_000, 2_500_000]);
        histogram.observe(Duration::from_micros(1_000));
        histogram.observe(Duration::from_secs(2));
        histogram.observe(Duration::from_secs(3));
        metrics.collect(|samples| {
            samples.counter("b_events", "Events.", &[("broker", "other")], 1);
            samples.gauge("d_ratio", "Ratio.", &[], 0.5);
        });
        metrics
    }

    #[test]
    fn prometheus_text_has_families_whole_and_in_order() {
        assert_eq!(
            metrics().render(Format::Prometheus),
            "# TYPE a_bytes gauge\n# HELP a_bytes Bytes.\na_bytes -3\n\
             # TYPE b_events_total counter\n# HELP b_events_total Events.\n\
             b_events_total{broker=\"de\\\"f\\\\a\\nult\"} 7\nb_events_total{broker=\"other\"} 1\n\
             # TYPE c_wait_seconds histogram\n# HELP c_wait_seconds Waits.\n\
             c_wait_seconds_bucket{x=\"y\",le=\"0.001\"} 1\nc_wait_seconds_bucket{x=\"y\",le=\"2.5\"} 2\n\
             c_wait_seconds_bucket{x=\"y\",le=\"+Inf\"} 3\nc_wait_seconds_sum{x=\"y\"} 5.001\nc_wait_seconds_count{x=\"y\"} 3\n\
             # TYPE d_ratio gauge\n# HELP d_ratio Ratio.\nd_ratio 0.5\n"
        );
    }

    #[test]
    fn openmetrics_names_units_and_ends() {
        let text = metrics().render(Format::OpenMetrics);
        assert!(text.contains("# TYPE b_events counter\n# HELP b_events Events.\nb_events_total{"), "{text}");
        assert!(text.contains("# TYPE a_bytes gauge\n# UNIT a_bytes bytes\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn the_format_follows_the_accept_header() {
        let accept = HeaderValue::from_static("application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
        assert_eq!(Format::accepted(Some(&accept)), Format::OpenMetrics);
        assert_eq!(Format::accepted(Some(&HeaderValue::from_static("*/*"))), Format::Prometheus);
        assert_eq!(Format::accepted(None), Format::Prometheus);
    }
}
