//! An error in one line, for people.

use std::error::Error;

/// The error with all that caused it. What a message has told already is not told again: many of ours end with their cause.
#[must_use]
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("opening x: {source}")]
        Told { source: io::Error },
        #[error("opening x")]
        Untold { source: io::Error },
    }

    #[test]
    fn a_cause_is_told_once() {
        let source = || io::Error::other("no such file");
        assert_eq!(told(&Failed::Told { source: source() }), "opening x: no such file");
        assert_eq!(told(&Failed::Untold { source: source() }), "opening x: no such file");
    }
}
