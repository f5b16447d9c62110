//! One credentials file for MQTT user names and HTTP basic and bearer.
//!
//! A line is `user:password:$argon2id$…` or `user:token:<SHA-256 of the token, hex>`; `#` begins a comment line. One user may
//! have one password and several tokens. Passwords are checked one at a time on a blocking thread (so at most 2 MiB at once),
//! and a password that passed is remembered for a minute, as a digest keyed by a secret of this process, because HTTP basic
//! sends it with every request. A check for an unknown user costs what one for a known user costs.
//!
//! Who came in is known by the entry that let them in, so that a connection can be ended when that entry goes or changes
//! ([`Credentials::revoked`]): looked up after a reload, never for an event.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::password::{MAX_PASSWORD_BYTES, PasswordError, StoredPassword, token_digest};

/// How long a password that passed is taken without another slow check.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How many passwords are remembered at most: the users of one board.
const MAX_REMEMBERED: usize = 64;

/// How many password checks may wait for their turn: half a second's work.
const MAX_WAITING: usize = 32;

/// Longest user name in bytes.
pub(super) const MAX_USER_BYTES: usize = 128;

/// Who came in, and by which entry of the credentials file. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity(Arc<Who>);

#[derive(PartialEq, Eq)]
struct Who {
    user: Box<str>,
    /// What tells the password or token from others: a digest.
    proof: [u8; 32],
}

impl Identity {
    fn new(user: &str, proof: [u8; 32]) -> Self {
        Self(Arc::new(Who { user: user.into(), proof }))
    }

    /// The user's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.user
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.user).finish()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Denied {
    /// User, password or token is wrong; which one is not told.
    #[error("wrong user, password or token")]
    Wrong,
    /// Too many password checks are waiting: try again in a second, or use a token, which is checked at once.
    #[error("too many password checks are waiting; try again in a second, or use a token")]
    Busy,
}

/// Why a credentials file cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The file cannot be read or written.
    #[error("{what} credentials file {}: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is not an entry. The line itself is not shown: it may hold a secret.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: LineError,
    },
    /// A user name that cannot stand in the file.
    #[error("a user name has 1 to 128 bytes, no ':', no '#' in front, no spaces at the ends and no control characters")]
    User,
    /// A password cannot be hashed.
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// Not three fields.
    #[error("expected `user:password:$argon2id$…` or `user:token:<64 hex digits>`")]
    Shape,
    /// The second field is neither `password` nor `token`.
    #[error("the second field must be `password` or `token`")]
    Kind,
    /// A second password for one user.
    #[error("this user has a password on an earlier line; remove one of the two")]
    Twice,
    /// The hash is not usable.
    #[error(transparent)]
    Hash(#[from] PasswordError),
}

/// The users that may come in. Cheap to clone; clones share what [`Credentials::reload`] loads.
#[derive(Clone)]
pub struct Credentials(Arc<Shared>);

struct Shared {
    path: PathBuf,
    users: RwLock<Arc<Users>>,
    /// Told after `users` has changed.
    changes: watch::Sender<()>,
    one_check: Semaphore,
    waiting: AtomicUsize,
}

/// What one reading of the file gave. The remembered passwords belong to it, so that a reload forgets them.
struct Users {
    passwords: HashMap<String, (Identity, StoredPassword)>,
    /// By the first bytes of the digest, so that a look-up compares one digest, not all of them. They give nothing away:
    /// whoever can choose a digest's first bytes still does not know the 256 bits behind another's.
    tokens: HashMap<[u8; 8], Vec<(Identity, [u8; 32])>>,
    nobody: StoredPassword,
    key: [u8; 32],
    passed: Mutex<HashMap<[u8; 32], (Identity, Instant)>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the file. Blocks for a hash (tens of milliseconds): call it at start or off the runtime.
    ///
    /// A file that others may read is used, with a warning in the log.
    ///
    /// # Errors
    /// [`CredentialsError::Io`] and [`CredentialsError::Line`].
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let users = RwLock::new(Arc::new(Users::read(path)?));
        let changes = watch::Sender::new(());
        let (one_check, waiting) = (Semaphore::new(1), AtomicUsize::new(0));
        let shared = Shared { path: path.to_owned(), users, changes, one_check, waiting };
        Ok(Self(Arc::new(shared)))
    }

    /// Reads the file again (SIGHUP). On an error the users known before stay. Blocks like [`Credentials::load`].
    ///
    /// # Errors
    /// See [`Credentials::load`].
    pub fn reload(&self) -> Result<(), CredentialsError> {
        let users = Arc::new(Users::read(&self.0.path)?);
        *self.0.users.write().unwrap_or_else(PoisonError::into_inner) = users;
        self.0.changes.send_replace(());
        Ok(())
    }

    /// Whether the entry by which somebody came in is still in the file, unchanged.
    #[must_use]
    pub fn in_force(&self, identity: &Identity) -> bool {
        let users = self.users();
        let password = users.passwords.get(identity.name()).is_some_and(|(known, _)| known == identity);
        let alike = users.tokens.get(&first_bytes(&identity.0.proof));
        password || alike.is_some_and(|tokens| tokens.iter().any(|(known, _)| known == identity))
    }

    /// Tells of every reload that succeeds from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Resolves when the entry by which somebody came in is no longer in force.
    pub async fn revoked(&self, identity: &Identity) {
        // Subscribed first, so that no reload slips in between.
        let mut changes = self.changes();
        while self.in_force(identity) {
            // The sender is in `self`: it does not go.
            let _ = changes.changed().await;
        }
    }

    /// Checks a user's password, one at a time and off the runtime.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn check_password(&self, user: &str, password: &[u8]) -> Result<Identity, Denied> {
        let users = self.users();
        if user.len() > MAX_USER_BYTES || password.len() > MAX_PASSWORD_BYTES {
            return Err(Denied::Wrong);
        }
        let key = users.memory_key(user, password);
        if let Some(identity) = users.remembered(&key) {
            return Ok(identity);
        }
        let _turn = Turn::wait(&self.0.waiting)?;
        let _permit = self.0.one_check.acquire().await.map_err(|_| Denied::Busy)?;
        // Another request with the same password may have passed while this one waited.
        if let Some(identity) = users.remembered(&key) {
            return Ok(identity);
        }
        let (identity, stored) = match users.passwords.get(user) {
            Some((identity, stored)) => (Some(identity.clone()), stored.clone()),
            None => (None, users.nobody.clone()),
        };
        let password = password.to_vec();
        let fits = tokio::task::spawn_blocking(move || stored.verify(&password)).await.unwrap_or(false);
        match identity {
            Some(identity) if fits => {
                users.remember(key, identity.clone());
                Ok(identity)
            }
            _ => Err(Denied::Wrong),
        }
    }

    /// Checks a bearer token. Quick: one SHA-256.
    ///
    /// # Errors
    /// [`Denied::Wrong`].
    pub fn check_token(&self, token: &str) -> Result<Identity, Denied> {
        let digest = token_digest(token.as_bytes());
        let users = self.users();
        let alike = users.tokens.get(&first_bytes(&digest)).ok_or(Denied::Wrong)?;
        let fits = alike.iter().find(|(_, kept)| bool::from(kept.ct_eq(&digest)));
        fits.map(|(identity, _)| identity.clone()).ok_or(Denied::Wrong)
    }

    fn users(&self) -> Arc<Users> {
        self.0.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A place in the queue for a password check, given back when dropped (also by a client that went away).
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn wait(waiting: &'a AtomicUsize) -> Result<Self, Denied> {
        let turn = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING { Err(Denied::Busy) } else { Ok(turn) }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Users {
    fn read(path: &Path) -> Result<Self, CredentialsError> {
        let io = |source| CredentialsError::Io { what: "reading", path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        warn_if_others_may_read(path);
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, CredentialsError> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|_| PasswordError::System)?;
        let mut users = Self {
            passwords: HashMap::new(),
            tokens: HashMap::new(),
            nobody: StoredPassword::nobody()?,
            key,
            passed: Mutex::new(HashMap::new()),
        };
        for (number, line) in text.lines().enumerate() {
            let refused = |why| CredentialsError::Line { path: path.to_owned(), line: number + 1, why };
            let Some((user, secret)) = parse_line(line).map_err(refused)? else { continue };
            match secret {
                Secret::Password(stored) => {
                    let identity = Identity::new(user, stored.fingerprint());
                    if users.passwords.insert(user.to_owned(), (identity, *stored)).is_some() {
                        return Err(refused(LineError::Twice));
                    }
                }
                Secret::Token(digest) => {
                    let identity = Identity::new(user, digest);
                    users.tokens.entry(first_bytes(&digest)).or_default().push((identity, digest));
                }
            }
        }
        Ok(users)
    }

    fn memory_key(&self, user: &str, password: &[u8]) -> [u8; 32] {
        let mut hash = Sha256::new_with_prefix(self.key);
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((user.len() as u64).to_le_bytes());
        hash.update(user);
        hash.update(password);
        hash.finalize().into()
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Identity> {
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        passed.get(key).filter(|(_, at)| at.elapsed() < REMEMBERED).map(|(identity, _)| identity.clone())
    }

    fn remember(&self, key: [u8; 32], identity: Identity) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.len() >= MAX_REMEMBERED {
            passed.retain(|_, (_, at)| at.elapsed() < REMEMBERED);
        }
        if passed.len() >= MAX_REMEMBERED {
            passed.clear();
        }
        passed.insert(key, (identity, Instant::now()));
    }
}

/// What a line of the file keeps.
pub(super) enum Secret {
    /// A password's hash.
    Password(Box<StoredPassword>),
    /// A token's digest.
    Token([u8; 32]),
}

/// Reads one line: `None` for a comment or an empty one.
pub(super) fn parse_line(line: &str) -> Result<Option<(&str, Secret)>, LineError> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut fields = line.splitn(3, ':');
    let (Some(user), Some(kind), Some(secret)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(LineError::Shape);
    };
    if user.is_empty() || user.len() > MAX_USER_BYTES {
        return Err(LineError::Shape);
    }
    let secret = match kind {
        "password" => Secret::Password(Box::new(StoredPassword::parse(secret)?)),
        "token" => Secret::Token(from_hex(secret).ok_or(LineError::Shape)?),
        _ => return Err(LineError::Kind),
    };
    Ok(Some((user, secret)))
}

fn first_bytes(digest: &[u8; 32]) -> [u8; 8] {
    *digest.first_chunk().expect("8 of 32 bytes")
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))?;
    }
    Some(digest)
}

fn warn_if_others_may_read(path: &Path) {
    use std::os::unix::fs::MetadataExt;
    if let Ok(meta) = std::fs::metadata(path)
        && meta.mode() & 0o044 != 0
    {
        let path = path.display();
        tracing::warn!(%path, mode = format!("{:o}", meta.mode() & 0o777), "others may read the credentials file: chmod 600 {path}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::password::{hash_password, make_token};
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        std::fs::write(file.path(), text).expect("written");
        file
    }

    #[tokio::test]
    async fn a_user_comes_in_by_password_and_by_each_token() {
        let (one, two) = (make_token().expect("token"), make_token().expect("token"));
        let text = format!(
            "# users\n\nada:password:{}\nada:token:{}\nbob:token:{}\n",
            hash_password(b"lovelace").expect("hash"),
            hex(&token_digest(one.as_bytes())),
            hex(&token_digest(two.as_bytes()))
        );
        let file = file(&text);
        let credentials = Credentials::load(file.path()).expect("valid file");
        assert_eq!(credentials.check_token(&one).expect("ada's").name(), "ada");
        assert_eq!(credentials.check_token(&two).expect("bob's").name(), "bob");
        assert_eq!(credentials.check_token("gwt_x"), Err(Denied::Wrong));
        assert_eq!(credentials.check_password("ada", b"lovelace").await.expect("right").name(), "ada");
        assert_eq!(credentials.check_password("ada", b"lovelace").await.expect("remembered").name(), "ada");
        assert_eq!(credentials.check_password("ada", b"wrong").await, Err(Denied::Wrong));
        assert_eq!(credentials.check_password("bob", b"lovelace").await, Err(Denied::Wrong));
        assert_eq!(credentials.check_password("eve", b"lovelace").await, Err(Denied::Wrong));
    }

    #[tokio::test]
    async fn a_reload_forgets_who_had_passed_and_a_bad_file_changes_nothing() {
        let file = file(&format!("ada:password:{}\n", hash_password(b"old").expect("hash")));
        let credentials = Credentials::load(file.path()).expect("valid file");
        assert!(credentials.check_password("ada", b"old").await.is_ok());
        std::fs::write(file.path(), "ada:password:nonsense\n").expect("written");
        assert!(matches!(credentials.reload(), Err(CredentialsError::Line { line: 1, .. })));
        assert!(credentials.check_password("ada", b"old").await.is_ok());
        std::fs::write(file.path(), format!("ada:password:{}\n", hash_password(b"new").expect("hash"))).expect("written");
        credentials.reload().expect("valid file");
        assert_eq!(credentials.check_password("ada", b"old").await, Err(Denied::Wrong));
        assert!(credentials.check_password("ada", b"new").await.is_ok());
    }

    #[tokio::test]
    async fn who_came_in_is_in_force_until_their_entry_goes_or_changes() {
        let (one, two) = (make_token().expect("token"), make_token().expect("token"));
        let line = |token: &str| format!("ada:token:{}\n", hex(&token_digest(token.as_bytes())));
        let password = format!("bob:password:{}\n", hash_password(b"x").expect("hash"));
        let file = file(&format!("{}{}{password}", line(&one), line(&two)));
        let credentials = Credentials::load(file.path()).expect("valid file");
        let by_one = credentials.check_token(&one).expect("ada's");
        let by_two = credentials.check_token(&two).expect("ada's");
        let bob = credentials.check_password("bob", b"x").await.expect("right");
        let mut revoked = std::pin::pin!(credentials.revoked(&by_one));
        assert!(futures_util::poll!(revoked.as_mut()).is_pending());
        // The same again, in another order: nobody has to go.
        std::fs::write(file.path(), format!("{password}{}{}", line(&two), line(&one))).expect("written");
        credentials.reload().expect("valid file");
        assert!(futures_util::poll!(revoked.as_mut()).is_pending());
        assert!([&by_one, &by_two, &bob].iter().all(|who| credentials.in_force(who)));
        // One token is gone; bob's password is set anew, be it the same.
        let password = format!("bob:password:{}\n", hash_password(b"x").expect("hash"));
        std::fs::write(file.path(), format!("{}{password}", line(&two))).expect("written");
        credentials.reload().expect("valid file");
        assert!(futures_util::poll!(revoked.as_mut()).is_ready());
        assert_eq!([&by_one, &by_two, &bob].map(|who| credentials.in_force(who)), [false, true, false]);
        // A token that goes to another user is not the first one's any more.
        std::fs::write(file.path(), line(&two).replacen("ada", "eve", 1)).expect("written");
        credentials.reload().expect("valid file");
        assert!(!credentials.in_force(&by_two));
        assert!(!format!("{bob:?}").contains(|c: char| c.is_ascii_digit()), "{bob:?}");
    }

    #[tokio::test]
    async fn a_flood_of_password_checks_is_told_to_come_back() {
        let file = file("");
        let credentials = Credentials::load(file.path()).expect("valid file");
        let all = (0..MAX_WAITING + 8).map(|n| {
            let credentials = credentials.clone();
            async move { credentials.check_password(&format!("user{n}"), b"x").await }
        });
        let answers = futures_util::future::join_all(all).await;
        assert_eq!(answers.iter().filter(|a| **a == Err(Denied::Busy)).count(), 8);
        assert_eq!(credentials.0.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_bad_line_is_named_without_showing_it() {
        for (text, why) in [
            ("ada:secret\n", LineError::Shape),
            ("# x\nada:pin:1234\n", LineError::Kind),
            ("ada:token:12\n", LineError::Shape),
            ("ada:password:secret\n", LineError::Hash(PasswordError::NotArgon2id)),
        ] {
            let error = Credentials::load(file(text).path()).expect_err("bad line");
            assert!(!error.to_string().contains("secret"), "{error}");
            let CredentialsError::Line { line, why: found, .. } = error else { panic!("{error}") };
            assert_eq!((line, found), (text.lines().count(), why));
        }
    }
}
