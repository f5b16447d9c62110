//! Changing the credentials file: what `godwit passwd` and `godwit token` do.
//!
//! Comments and the other lines stay as they are. A new file is written beside the old one with mode 0600, made durable, and
//! renamed over it: a power cut before the rename leaves the old file (and perhaps a `.new` beside it, which the next change
//! overwrites), one after it leaves the new one.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::credentials::{CredentialsError, MAX_USER_BYTES, Secret, parse_line};
use super::password::{hash_password, make_token, token_digest};

/// What an entry lets its user come in with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// A password: MQTT, HTTP basic.
    Password,
    /// A bearer token: HTTP, agents at the gateway.
    Token,
}

/// An entry of the file, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The user.
    pub user: String,
    /// Password or token.
    pub kind: CredentialKind,
}

/// The credentials file as something to edit. An absent file is an empty one.
#[derive(Debug)]
pub struct CredentialsFile {
    path: PathBuf,
    lines: Vec<String>,
}

impl CredentialsFile {
    /// Reads the file and checks every line of it.
    ///
    /// # Errors
    /// [`CredentialsError::Io`] and [`CredentialsError::Line`].
    pub fn open(path: &Path) -> Result<Self, CredentialsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(CredentialsError::Io { what: "reading", path: path.to_owned(), source }),
        };
        let file = Self { path: path.to_owned(), lines: text.lines().map(str::to_owned).collect() };
        for (number, line) in file.lines.iter().enumerate() {
            parse_line(line).map_err(|why| CredentialsError::Line { path: file.path.clone(), line: number + 1, why })?;
        }
        Ok(file)
    }

    /// The entries in the order of the file.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lines.iter().filter_map(|line| entry(line)).collect()
    }

    /// Gives a user a password, in place of the one there was.
    ///
    /// # Errors
    /// [`CredentialsError::User`] and [`CredentialsError::Password`].
    pub fn set_password(&mut self, user: &str, password: &[u8]) -> Result<(), CredentialsError> {
        check_user(user)?;
        let line = format!("{user}:password:{}", hash_password(password)?);
        let wanted = Entry { user: user.to_owned(), kind: CredentialKind::Password };
        match self.lines.iter_mut().find(|line| entry(line).as_ref() == Some(&wanted)) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
        Ok(())
    }

    /// Gives a user one more token and returns it. It is kept nowhere else: only its digest goes into the file.
    ///
    /// # Errors
    /// [`CredentialsError::User`] and [`CredentialsError::Password`].
    pub fn add_token(&mut self, user: &str) -> Result<String, CredentialsError> {
        check_user(user)?;
        let token = make_token()?;
        let mut line = format!("{user}:token:");
        for byte in token_digest(token.as_bytes()) {
            let _ = write!(line, "{byte:02x}");
        }
        self.lines.push(line);
        Ok(token)
    }

    /// Removes a user's entries of one kind, or all of them; returns how many there were.
    pub fn remove(&mut self, user: &str, kind: Option<CredentialKind>) -> usize {
        let before = self.lines.len();
        self.lines.retain(|line| !entry(line).is_some_and(|e| e.user == user && kind.is_none_or(|kind| kind == e.kind)));
        before - self.lines.len()
    }

    /// Writes the file durably, mode 0600.
    ///
    /// # Errors
    /// [`CredentialsError::Io`]; the old file is then as it was.
    pub fn save(&self) -> Result<(), CredentialsError> {
        let new = self.path.with_extension("new");
        self.write(&new).map_err(|source| CredentialsError::Io { what: "writing", path: self.path.clone(), source })
    }

    fn write(&self, new: &Path) -> io::Result<()> {
        let mut text = self.lines.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        match std::fs::remove_file(new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(text.as_bytes())?;
        // durable before: the rename below may only show bytes that are on disk
        file.sync_all()?;
        std::fs::rename(new, &self.path)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    }
}

fn entry(line: &str) -> Option<Entry> {
    let (user, secret) = parse_line(line).ok().flatten()?;
    let kind = match secret {
        Secret::Password(_) => CredentialKind::Password,
        Secret::Token(_) => CredentialKind::Token,
    };
    Some(Entry { user: user.to_owned(), kind })
}

fn check_user(user: &str) -> Result<(), CredentialsError> {
    let bad = user.is_empty()
        || user.len() > MAX_USER_BYTES
        || user.starts_with('#')
        || user.trim() != user
        || user.chars().any(|c| c == ':' || c.is_control());
    if bad { Err(CredentialsError::User) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::Credentials;
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[tokio::test]
    async fn what_is_written_lets_in_and_what_is_removed_does_not() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("credentials");
        let mut file = CredentialsFile::open(&path).expect("absent is empty");
        file.set_password("ada", b"one").expect("set");
        file.set_password("ada", b"two").expect("replaced");
        let token = file.add_token("boat-7").expect("token");
        file.save().expect("saved");
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        let credentials = Credentials::load(&path).expect("valid");
        assert!(credentials.check_password("ada", b"two").await.is_ok());
        assert!(credentials.check_password("ada", b"one").await.is_err());
        assert_eq!(credentials.check_token(&token).expect("known").name(), "boat-7");

        let mut file = CredentialsFile::open(&path).expect("valid");
        assert_eq!(file.entries().len(), 2);
        assert_eq!(file.remove("boat-7", Some(CredentialKind::Token)), 1);
        file.save().expect("saved");
        credentials.reload().expect("valid");
        assert!(credentials.check_token(&token).is_err());
    }

    #[test]
    fn comments_survive_a_change() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("credentials");
        std::fs::write(&path, "# the crew\n\n").expect("written");
        let mut file = CredentialsFile::open(&path).expect("valid");
        file.add_token("ada").expect("token");
        file.save().expect("saved");
        assert!(std::fs::read_to_string(&path).expect("there").starts_with("# the crew\n\nada:token:"));
    }

    #[test]
    fn a_user_name_that_would_break_the_line_is_refused() {
        let mut file = CredentialsFile { path: PathBuf::new(), lines: Vec::new() };
        for user in ["", "a:b", "#a", " a", "a\nb"] {
            assert!(matches!(file.add_token(user), Err(CredentialsError::User)), "{user:?}");
        }
    }
}
