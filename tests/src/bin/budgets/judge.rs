//! Holds figures against budgets: one line for each budget, which `tests/run` counts by its first word.

use std::fmt;

use crate::file::{Budgets, Build, Limit, Record};

/// One measured figure.
#[derive(Debug)]
pub(crate) struct Figure {
    /// The name that the budget has.
    pub(crate) name: &'static str,
    /// What was measured.
    pub(crate) value: Measured,
}

/// What came of measuring.
#[derive(Debug)]
pub(crate) enum Measured {
    /// A number in the budget's unit.
    Value(f64),
    /// A number that is only told: what it is, its unit.
    Told(f64, &'static str, &'static str),
    /// A number that depends on how the program was built.
    Built(f64, Build),
    /// It could not be measured here, and why.
    Skipped(String),
    /// Measuring went wrong.
    Failed(String),
}

impl Figure {
    pub(crate) const fn new(name: &'static str, value: f64) -> Self {
        Self { name, value: Measured::Value(value) }
    }

    pub(crate) fn skipped(name: &'static str, why: impl Into<String>) -> Self {
        Self { name, value: Measured::Skipped(why.into()) }
    }

    pub(crate) fn failed(name: &'static str, why: &anyhow::Error) -> Self {
        Self { name, value: Measured::Failed(format!("{why:#}")) }
    }

    /// One that no budget holds.
    pub(crate) const fn told(name: &'static str, value: f64, unit: &'static str, what: &'static str) -> Self {
        Self { name, value: Measured::Told(value, unit, what) }
    }
}

/// What is said of one budget or figure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds.
    Ok(String),
    /// It does not.
    Failed(String),
    /// It could not be measured.
    Skipped(String),
    /// A figure without a judgement.
    Recorded(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok(text) => write!(f, "ok: {text}"),
            Self::Failed(text) => write!(f, "FAILED: {text}"),
            Self::Skipped(text) => write!(f, "skipped: {text}"),
            Self::Recorded(text) => write!(f, "recorded: {text}"),
        }
    }
}

/// One verdict for each budget of the file, then one for each figure that none of them names.
pub(crate) fn judge(budgets: &Budgets, figures: &[Figure]) -> Vec<Verdict> {
    let find = |name: &str| figures.iter().find(|figure| figure.name == name).map(|figure| &figure.value);
    let limits = budgets.limits.iter().map(|limit| judge_limit(limit, find(&limit.name)));
    let records = budgets.records.iter().map(|record| judge_record(record, find(&record.name)));
    let known = |name: &str| {
        budgets.limits.iter().any(|limit| limit.name == name) || budgets.records.iter().any(|record| record.name == name)
    };
    let others = figures.iter().filter(|figure| !known(figure.name)).map(|figure| match &figure.value {
        Measured::Told(value, unit, what) => {
            Verdict::Recorded(format!("{}: {}: {what}", figure.name, number(*value, unit)))
        }
        Measured::Skipped(why) => Verdict::Skipped(format!("{}: {why}", figure.name)),
        Measured::Failed(why) => Verdict::Failed(format!("{}: {why}", figure.name)),
        other => Verdict::Failed(format!("{}: no budget has this name: {other:?}", figure.name)),
    });
    limits.chain(records).chain(others).collect()
}

fn judge_limit(limit: &Limit, measured: Option<&Measured>) -> Verdict {
    let Limit { name, what, unit, most, aim } = limit;
    let value = match measured {
        Some(Measured::Value(value)) => *value,
        other => return unusable(name, what, other),
    };
    let shown = number(value, unit);
    if value > *most {
        return Verdict::Failed(format!("{name}: {shown}, and {} are the most: {what}", number(*most, unit)));
    }
    let reached = if value <= *aim { "the aim of" } else { "aim" };
    Verdict::Ok(format!("{name}: {shown} of {} ({reached} {}): {what}", number(*most, unit), number(*aim, unit)))
}

fn judge_record(record: &Record, measured: Option<&Measured>) -> Verdict {
    let Record { name, what, unit, percent, figures } = record;
    let (value, build) = match measured {
        Some(Measured::Built(value, build)) => (*value, build),
        other => return unusable(name, what, other),
    };
    let shown = number(value, unit);
    let line = format!("{{ rustc = \"{}\", profile = \"{}\", figure = {value:.0} }}", build.rustc, build.profile);
    let record = format!("to record it, write {line} among the figures of {name} in cross/budgets.toml");
    let Some(recorded) = figures.iter().find(|recorded| recorded.is_of(build)) else {
        return Verdict::Skipped(format!("{name}: {shown} ({build}, for which no figure is recorded; {record}): {what}"));
    };
    let change = (value / recorded.figure - 1.0) * 100.0;
    let beside = format!("{shown}, {change:+.1} % of the {} recorded ({build})", number(recorded.figure, unit));
    // A figure of exactly so much more or less is within, whatever the division makes of it.
    if change.abs() <= *percent + 1e-9 {
        return Verdict::Ok(format!("{name}: {beside}: {what}"));
    }
    let todo = if change < 0.0 {
        format!("It fell, and must not rise again unseen: {record}")
    } else {
        format!(
            "Find what it is spent on (valgrind --tool=callgrind), or, where the change is worth it, {record} and say in the commit why"
        )
    };
    Verdict::Failed(format!("{name}: {beside}: {what}. {todo}"))
}

fn unusable(name: &str, what: &str, measured: Option<&Measured>) -> Verdict {
    match measured {
        Some(Measured::Skipped(why)) => Verdict::Skipped(format!("{name}: {why}: {what}")),
        Some(Measured::Failed(why)) => Verdict::Failed(format!("{name}: {why}: {what}")),
        Some(other) => Verdict::Failed(format!("{name}: measured as something else: {other:?}: {what}")),
        None => Verdict::Failed(format!("{name}: nothing measures it: {what}")),
    }
}

/// A number with as many digits as matter.
fn number(value: f64, unit: &str) -> String {
    let digits = if value.fract() == 0.0 || value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::Recorded;

    fn build(rustc: &str) -> Build {
        Build { rustc: rustc.to_owned(), profile: "fast".to_owned() }
    }

    fn budgets() -> Budgets {
        let text = |text: &str| text.to_owned();
        let limit = Limit { name: text("size"), what: text("it"), unit: text("MB"), most: 5.0, aim: 3.5 };
        let figures = vec![Recorded { rustc: text("1.95.0"), profile: text("fast"), figure: 1000.0 }];
        let record = Record { name: text("work"), what: text("work"), unit: text("instructions"), percent: 3.0, figures };
        Budgets { limits: vec![limit], records: vec![record] }
    }

    fn verdicts(size: Measured, work: Measured) -> Vec<Verdict> {
        judge(&budgets(), &[Figure { name: "size", value: size }, Figure { name: "work", value: work }])
    }

    fn of_work(value: f64, rustc: &str) -> Verdict {
        verdicts(Measured::Value(1.0), Measured::Built(value, build(rustc))).remove(1)
    }

    #[test]
    fn a_limit_holds_up_to_itself_and_no_further() {
        let of_size = |value| verdicts(Measured::Value(value), Measured::Skipped(String::new())).remove(0);
        assert!(matches!(of_size(5.0), Verdict::Ok(_)));
        assert!(matches!(of_size(5.001), Verdict::Failed(_)));
        assert_eq!(of_size(3.5), Verdict::Ok("size: 3.50 MB of 5 MB (the aim of 3.50 MB): it".to_owned()));
    }

    #[test]
    fn what_rose_fails_and_what_fell_must_be_recorded() {
        assert!(matches!(of_work(1030.0, "1.95.0"), Verdict::Ok(_)));
        assert!(matches!(of_work(970.0, "1.95.0"), Verdict::Ok(_)));
        assert!(matches!(of_work(1031.0, "1.95.0"), Verdict::Failed(text) if text.contains("figure = 1031")));
        assert!(
            matches!(of_work(969.0, "1.95.0"), Verdict::Failed(text) if text.contains("fell") && text.contains("figure = 969"))
        );
    }

    #[test]
    fn a_figure_of_another_compiler_is_told_and_counts_as_skipped() {
        assert!(matches!(of_work(2000.0, "1.96.0"), Verdict::Skipped(text) if text.contains("\"1.96.0\"")));
    }

    #[test]
    fn a_budget_that_nothing_measures_fails_and_one_that_cannot_be_measured_is_skipped() {
        let verdicts = judge(&budgets(), &[Figure::skipped("size", "not built")]);
        assert_eq!(verdicts.first(), Some(&Verdict::Skipped("size: not built: it".to_owned())));
        assert!(matches!(verdicts.get(1), Some(Verdict::Failed(_))));
    }

    #[test]
    fn a_figure_that_no_budget_names_is_told_only_where_that_is_meant() {
        let figures = [Figure::new("other", 1.0), Figure::told("trend", 2.0, "MB", "armhf")];
        let verdicts = judge(&budgets(), &figures);
        assert!(matches!(verdicts.get(2), Some(Verdict::Failed(_))));
        assert_eq!(verdicts.get(3), Some(&Verdict::Recorded("trend: 2 MB: armhf".to_owned())));
    }
}
