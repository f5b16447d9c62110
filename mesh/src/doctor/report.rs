//! What was found: one line a check for people, one object a check for machines.

use serde_json::{Map, Value, json};

/// How a thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It cannot be told from here.
    Unknown,
    /// It works, but not as well as it could, or not for ever.
    Warn,
    /// The agent does not work with it, or a promise does not hold.
    Fail,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Unknown => "36",
            Self::Warn => "33",
            Self::Fail => "31",
        }
    }
}

/// What one check found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The check's name.
    pub check: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen, in one line.
    pub found: String,
    /// What to do; empty where there is nothing.
    pub remedy: String,
    /// What was measured, for machines. The unit is in the name.
    pub values: Map<String, Value>,
}

impl Finding {
    /// A finding.
    #[must_use]
    pub fn new(check: &'static str, verdict: Verdict, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, verdict, found: found.into(), remedy: remedy.into(), values: Map::new() }
    }

    /// As it should be.
    #[must_use]
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Verdict::Ok, found, "")
    }

    /// It cannot be told.
    #[must_use]
    pub fn unknown(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, found, remedy)
    }

    /// It could be better.
    #[must_use]
    pub fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Warn, found, remedy)
    }

    /// It does not do.
    #[must_use]
    pub fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Verdict::Fail, found, remedy)
    }

    /// Adds a measured value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }

    /// The same, worse by another thing that was seen: the worse verdict counts, both are told, what is alike once.
    #[must_use]
    pub fn and(mut self, verdict: Verdict, found: &str, remedy: &str) -> Self {
        self.verdict = self.verdict.max(verdict);
        for (text, more) in [(&mut self.found, found), (&mut self.remedy, remedy)] {
            if more.is_empty() || text.split("; ").any(|told| told == more) {
                continue;
            }
            if !text.is_empty() {
                text.push_str("; ");
            }
            text.push_str(more);
        }
        self
    }
}

/// What all checks found, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The version of this program.
    pub version: &'static str,
    /// Whose configuration was looked at.
    pub subject: String,
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether any check failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.worst() == Verdict::Fail
    }

    fn worst(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Lines for people. What comes from outside is made harmless.
    #[must_use]
    pub fn text(&self, colours: bool) -> String {
        let mut text = format!("{}\n", printable(&self.subject));
        for finding in &self.findings {
            let word = format!("{:7}", finding.verdict.word());
            let word = if colours { format!("\x1b[{}m{word}\x1b[0m", finding.verdict.colour()) } else { word };
            text.push_str(&format!("{word}  {:12}  {}\n", finding.check, printable(&finding.found)));
            if !finding.remedy.is_empty() {
                text.push_str(&format!("{:23}-> {}\n", "", printable(&finding.remedy)));
            }
        }
        let count = |verdict: Verdict| format!("{} {}", self.count(verdict), verdict.word());
        let counts = [Verdict::Ok, Verdict::Warn, Verdict::Fail, Verdict::Unknown].map(count);
        text.push_str(&format!("{}\n", counts.join(", ")));
        text
    }

    /// `{version, subject, verdict, checks: [{check, verdict, found, remedy, values}]}`; `remedy` is `null` where there is
    /// nothing to do.
    #[must_use]
    pub fn json(&self) -> Value {
        let check = |finding: &Finding| {
            let remedy = Some(finding.remedy.as_str()).filter(|remedy| !remedy.is_empty());
            json!({
                "check": finding.check,
                "verdict": finding.verdict.word(),
                "found": finding.found,
                "remedy": remedy,
                "values": finding.values,
            })
        };
        json!({
            "version": self.version,
            "subject": self.subject,
            "verdict": self.worst().word(),
            "checks": self.findings.iter().map(check).collect::<Vec<_>>(),
        })
    }
}

/// Control characters, which a terminal would obey, become `\u{…}`.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let findings = vec![
            Finding::ok("kernel", "Linux 6.1").with("cores", 4),
            Finding::fail("ports", "taken by \x1b[31mevil", "stop it"),
        ];
        Report { version: "0.1.0", subject: "the defaults".to_owned(), findings }
    }

    #[test]
    fn a_line_says_what_was_seen_and_what_to_do_and_obeys_nobody() {
        let text = report().text(false);
        let wanted = "the defaults\nok       kernel        Linux 6.1\nfail     ports         taken by \\u{1b}[31mevil\n\
             \u{20}                      -> stop it\n1 ok, 0 warn, 1 fail, 0 unknown\n";
        assert_eq!(text, wanted);
        assert!(report().text(true).contains("\x1b[31mfail   \x1b[0m"));
    }

    #[test]
    fn the_worst_verdict_is_the_reports() {
        assert!(report().failed());
        let json = report().json();
        assert_eq!(json["verdict"], "fail");
        assert_eq!(json["checks"][0]["values"]["cores"], 4);
        assert_eq!(json["checks"][0]["remedy"], Value::Null);
        let mut unknown = report();
        unknown.findings.pop();
        unknown.findings.push(Finding::unknown("flash", "not told", ""));
        assert!(!unknown.failed());
        assert_eq!(unknown.json()["verdict"], "unknown");
    }

    #[test]
    fn two_things_in_one_finding_are_both_told_and_the_worse_counts() {
        let both = Finding::warn("clock", "not synchronised", "run NTP").and(Verdict::Ok, "no RTC", "");
        assert_eq!((both.verdict, both.found.as_str()), (Verdict::Warn, "not synchronised; no RTC"));
        assert_eq!(both.remedy, "run NTP");
        assert_eq!(both.and(Verdict::Ok, "", "run NTP").remedy, "run NTP");
    }
}
