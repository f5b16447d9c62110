//! Metrics: atomics that are registered once, with their labels, and written out when asked for.
//!
//! A family has one name, type and help text and any number of series. What is counted often is a [`Counter`], [`Gauge`] or
//! [`Histogram`] held by who counts; what is known elsewhere already (a journal's offsets) is told by a collector when
//! somebody asks. Names are given without `_total`; a name that ends in `_seconds` or `_bytes` tells its unit by that.

mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use text::{Format, Samples};

/// A set of metrics. Cheap to clone; clones share it.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Registry>);

type Collector = Box<dyn Fn(&mut Samples) + Send + Sync>;

#[derive(Default)]
struct Registry {
    families: Mutex<BTreeMap<&'static str, Family>>,
    collectors: Mutex<Vec<Collector>>,
}

struct Family {
    help: &'static str,
    series: Vec<(Labels, Value)>,
}

/// Labels as they are written: `a="b",c="d"`, escaped.
type Labels = Box<str>;

#[derive(Clone)]
enum Value {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// A number that only grows. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Moves the number by `n`.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets the number.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations sorted into buckets. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// Upper bounds in microseconds, rising.
    bounds: &'static [u64],
    /// One more than there are bounds: the last is for all above.
    counts: Vec<AtomicU64>,
    sum_us: AtomicU64,
}

/// Bounds for what waits for a disk or a network, in microseconds: 100 µs to 10 s.
pub const LATENCY_US: &[u64] =
    &[100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 10_000_000];

impl Histogram {
    /// Adds one duration.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let at = self.0.bounds.partition_point(|&bound| bound < us);
        if let Some(count) = self.0.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.0.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

impl Metrics {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a counter, or finds the one with this name and these labels. The name has no `_total`.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Counter {
        match self.register(name, help, labels, || Value::Counter(Counter::default())) {
            Value::Counter(counter) => counter,
            _ => Counter::default(),
        }
    }

    /// Registers a gauge, or finds the one with this name and these labels.
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&str, &str)]) -> Gauge {
        match self.register(name, help, labels, || Value::Gauge(Gauge::default())) {
            Value::Gauge(gauge) => gauge,
            _ => Gauge::default(),
        }
    }

    /// Registers a histogram of seconds with bounds in microseconds; its name ends in `_seconds`.
    #[must_use]
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        bounds_us: &'static [u64],
    ) -> Histogram {
        let new = || {
            let counts = std::iter::repeat_with(AtomicU64::default).take(bounds_us.len() + 1).collect();
            Histogram(Arc::new(Buckets { bounds: bounds_us, counts, sum_us: AtomicU64::default() }))
        };
        match self.register(name, help, labels, || Value::Histogram(new())) {
            Value::Histogram(histogram) => histogram,
            _ => new(),
        }
    }

    /// Registers a collector: called at each scrape, it tells what is known elsewhere. It must not block.
    pub fn collect(&self, collector: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.0.collectors.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(collector));
    }

    /// Everything as text.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let mut samples = Samples::new(format);
        for (name, family) in self.0.families.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            for (labels, value) in &family.series {
                match value {
                    Value::Counter(counter) => samples.written_counter(name, family.help, labels, counter.get()),
                    Value::Gauge(gauge) => samples.written_gauge(name, family.help, labels, gauge.get()),
                    Value::Histogram(histogram) => samples.histogram(name, family.help, labels, histogram),
                }
            }
        }
        for collector in self.0.collectors.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            collector(&mut samples);
        }
        samples.finish()
    }

    /// A name registered as two types is a mistake of ours that a debug build stops at; otherwise the second counts unseen.
    fn register(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&str, &str)],
        new: impl FnOnce() -> Value,
    ) -> Value {
        debug_assert!(!name.ends_with("_total"), "{name}: the writer adds _total");
        let labels = text::labels(labels);
        let mut families = self.0.families.lock().unwrap_or_else(PoisonError::into_inner);
        let family = families.entry(name).or_insert_with(|| Family { help, series: Vec::new() });
        if let Some((_, value)) = family.series.iter().find(|(l, _)| **l == *labels) {
            return value.clone();
        }
        let value = new();
        family.series.push((labels.into(), value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_and_labels_are_one_counter() {
        let metrics = Metrics::new();
        metrics.counter("a_things", "Things.", &[("k", "v")]).add(2);
        metrics.counter("a_things", "Things.", &[("k", "v")]).add(3);
        assert_eq!(metrics.counter("a_things", "Things.", &[("k", "v")]).get(), 5);
        assert_eq!(metrics.counter("a_things", "Things.", &[("k", "w")]).get(), 0);
    }
}
