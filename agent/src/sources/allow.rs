//! What objects may make the agent run and read: only what its own configuration lists, whoever brought the object.

use std::path::{Path, PathBuf};

/// Paths and patterns. In a pattern `*` stands for any part of a name, `**` for any part of a path.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowed(Vec<String>);

impl Allowed {
    pub(super) fn new(patterns: &[String]) -> Self {
        Self(patterns.to_vec())
    }

    /// Where `path` really is, if that is allowed. A path that is listed as it stands is, wherever links lead from it; a pattern is
    /// held against what links and `..` come to. Blocks.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, path: &Path) -> Result<PathBuf, String> {
        let real = std::fs::canonicalize(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let listed = self.0.iter().any(|pattern| Path::new(pattern) == path && !pattern.contains('*'));
        let text = real.to_str().unwrap_or_default();
        if listed || self.0.iter().any(|pattern| matches(pattern.as_bytes(), text.as_bytes())) {
            return Ok(real);
        }
        Err(real.display().to_string())
    }

    /// The same for a file that may not be there yet: its folder is what links are followed from. Blocks.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check_new(&self, path: &Path) -> Result<PathBuf, String> {
        if std::fs::symlink_metadata(path).is_ok() {
            return self.check(path);
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(path.display().to_string());
        };
        let real = std::fs::canonicalize(folder).map_err(|e| format!("{}: {e}", folder.display()))?.join(name);
        let listed = self.0.iter().any(|pattern| Path::new(pattern) == path && !pattern.contains('*'));
        let text = real.to_str().unwrap_or_default();
        if listed || self.0.iter().any(|pattern| matches(pattern.as_bytes(), text.as_bytes())) {
            return Ok(real);
        }
        Err(real.display().to_string())
    }
}

/// Whether a pattern stands for a path. Takes time in proportion to both, whatever they are.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    // Which beginnings of the pattern stand for the text so far.
    let mut now = vec![false; pattern.len() + 1];
    if let Some(first) = now.first_mut() {
        *first = true;
    }
    pass_stars(pattern, &mut now);
    for byte in text {
        let mut next = vec![false; pattern.len() + 1];
        for (at, _) in now.iter().enumerate().filter(|(_, on)| **on) {
            let (stays, goes) = match (pattern.get(at), pattern.get(at + 1)) {
                (Some(b'*'), Some(b'*')) => (true, false),
                (Some(b'*'), _) => {
                    (*byte != b'/' || at.checked_sub(1).is_some_and(|b| pattern.get(b) == Some(&b'*')), false)
                }
                (Some(wanted), _) => (false, wanted == byte),
                (None, _) => (false, false),
            };
            if let Some(on) = next.get_mut(at).filter(|_| stays) {
                *on = true;
            }
            if let Some(on) = next.get_mut(at + 1).filter(|_| goes) {
                *on = true;
            }
        }
        now = next;
        pass_stars(pattern, &mut now);
    }
    now.last().copied().unwrap_or(false)
}

/// A star may stand for nothing.
fn pass_stars(pattern: &[u8], states: &mut [bool]) {
    for (at, byte) in pattern.iter().enumerate() {
        if *byte == b'*'
            && states.get(at) == Some(&true)
            && let Some(next) = states.get_mut(at + 1)
        {
            *next = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stay_within_a_name_and_two_of_them_do_not() {
        for (pattern, path, wanted) in [
            ("/opt/sensors/*", "/opt/sensors/read", true),
            ("/opt/sensors/*", "/opt/sensors/sub/read", false),
            ("/opt/sensors/**", "/opt/sensors/sub/read", true),
            ("/opt/**/read", "/opt/a/b/read", true),
            ("/opt/*/read", "/opt/a/b/read", false),
            ("/usr/bin/python3*", "/usr/bin/python3.13", true),
            ("/usr/bin/true", "/usr/bin/true", true),
            ("/usr/bin/true", "/usr/bin/false", false),
            ("**", "/anything/at/all", true),
            ("*", "/x", false),
            ("", "/x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), path.as_bytes()), wanted, "{pattern} {path}");
        }
    }

    #[test]
    fn dots_and_links_do_not_lead_out_of_a_pattern() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = std::fs::canonicalize(dir.path()).expect("real");
        std::fs::create_dir(root.join("in")).expect("made");
        for file in ["in/a", "out"] {
            std::fs::write(root.join(file), "").expect("written");
        }
        std::os::unix::fs::symlink(root.join("out"), root.join("in/link")).expect("linked");
        let allowed = Allowed::new(&[format!("{}/in/*", root.display())]);
        assert!(allowed.check(&root.join("in/a")).is_ok());
        assert!(allowed.check_new(&root.join("in/new")).is_ok());
        for path in ["in/../out", "in/link", "out", "in/none"] {
            assert!(allowed.check(&root.join(path)).is_err(), "{path}");
        }
        assert!(allowed.check_new(&root.join("in/../new")).is_err());
        // What the list names itself may be a link.
        let named = Allowed::new(&[root.join("in/link").display().to_string()]);
        assert_eq!(named.check(&root.join("in/link")), Ok(root.join("out")));
        assert!(Allowed::default().check(&root.join("in/a")).is_err());
    }

    proptest! {
        #[test]
        fn a_pattern_without_stars_is_itself_alone(a in "[a-c/]{0,8}", b in "[a-c/]{0,8}") {
            prop_assert_eq!(matches(a.as_bytes(), b.as_bytes()), a == b);
        }

        #[test]
        fn many_stars_take_no_time(text in "[ab/]{0,200}") {
            let _ = matches("**a".repeat(40).as_bytes(), text.as_bytes());
        }
    }
}
