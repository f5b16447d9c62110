//! Secrets as they are kept: passwords as argon2id with at most 2 MiB of memory, tokens as the SHA-256 of 256 random bits.
//!
//! A token needs no slow hash: nobody can try 2^256 of them. A password does, and boards have little memory, so the cost is in
//! passes rather than bytes. A hash whose parameters ask for more than the limits here is refused when the file is read: it
//! would let whoever can write the file, or a slip of the pen, take the board's memory at each log-in.

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, PasswordHash, Version};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Memory of one password check in KiB, and the most that a hash in the file may ask for.
const MEMORY_KIB: u32 = 2048;

/// Passes over that memory for new hashes: about 15 ms on a desktop, 100 ms on a small board.
const PASSES: u32 = 8;

/// The most passes that a hash in the file may ask for.
const MAX_PASSES: u32 = 64;

/// The most lanes that a hash in the file may ask for.
const MAX_LANES: u32 = 4;

/// Longest password in bytes.
pub(super) const MAX_PASSWORD_BYTES: usize = 1024;

/// What every token begins with, so that a leaked one can be found by a search.
const TOKEN_PREFIX: &str = "gwt_";

/// Why a password cannot be hashed, or a hash not be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PasswordError {
    /// The password is empty or too long.
    #[error("a password has 1 to 1024 bytes")]
    Length,
    /// The text is not a PHC string of argon2id.
    #[error("not an argon2id hash ($argon2id$v=19$…); make one with `godwit passwd`")]
    NotArgon2id,
    /// The hash asks for more than is allowed.
    #[error(
        "the hash asks for {memory_kib} KiB, {passes} passes and {lanes} lanes; the most is {MEMORY_KIB}, {MAX_PASSES} and {MAX_LANES}. Make a new one with `godwit passwd`"
    )]
    TooCostly {
        /// Memory asked for in KiB.
        memory_kib: u32,
        /// Passes asked for.
        passes: u32,
        /// Lanes asked for.
        lanes: u32,
    },
    /// The system gave no random numbers, or no memory.
    #[error("the system has no random numbers or no memory to give")]
    System,
}

/// A password's hash as the file keeps it. Its `Debug` shows nothing of it.
#[derive(Clone)]
pub(super) struct StoredPassword(PasswordHash);

impl std::fmt::Debug for StoredPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredPassword(…)")
    }
}

impl StoredPassword {
    /// Reads a PHC string.
    ///
    /// # Errors
    /// [`PasswordError::NotArgon2id`] and [`PasswordError::TooCostly`].
    pub(super) fn parse(text: &str) -> Result<Self, PasswordError> {
        let hash = PasswordHash::new(text).map_err(|_| PasswordError::NotArgon2id)?;
        if hash.algorithm.as_str() != "argon2id" || hash.salt.is_none() || hash.hash.is_none() {
            return Err(PasswordError::NotArgon2id);
        }
        let params = Params::try_from(&hash).map_err(|_| PasswordError::NotArgon2id)?;
        let (memory_kib, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
        if memory_kib > MEMORY_KIB || passes > MAX_PASSES || lanes > MAX_LANES {
            return Err(PasswordError::TooCostly { memory_kib, passes, lanes });
        }
        Ok(Self(hash))
    }

    /// A hash that no password fits, of the same cost as those that [`hash_password`] makes: checked for users that do not
    /// exist, so that the time of an answer does not tell who does.
    pub(super) fn nobody() -> Result<Self, PasswordError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| PasswordError::System)?;
        hash(&secret).map(Self)
    }

    /// Tells this hash from others, for ever: what stands in the file, hashed once more.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.0.to_string()).into()
    }

    /// Checks a password. Takes tens of milliseconds: not for the runtime's thread.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        hasher().verify_password(password, &self.0).is_ok()
    }
}

/// Hashes a password for the credentials file. Takes tens of milliseconds.
///
/// # Errors
/// [`PasswordError::Length`] and [`PasswordError::System`].
pub fn hash_password(password: &[u8]) -> Result<String, PasswordError> {
    if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
        return Err(PasswordError::Length);
    }
    hash(password).map(|hash| hash.to_string())
}

/// Makes a bearer token of 256 random bits: what the client keeps. The file keeps its digest only.
///
/// # Errors
/// [`PasswordError::System`].
pub fn make_token() -> Result<String, PasswordError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|_| PasswordError::System)?;
    Ok(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(secret)))
}

/// What the file keeps of a token.
pub(super) fn token_digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, 1, None).expect("constants within argon2's limits");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash(password: &[u8]) -> Result<PasswordHash, PasswordError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| PasswordError::System)?;
    hasher().hash_password_with_salt(password, &salt).map_err(|_| PasswordError::System)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_fits_its_password_and_no_other() {
        let text = hash_password(b"correct horse").expect("hashed");
        assert!(text.starts_with("$argon2id$v=19$m=2048,t=8,p=1$"), "{text}");
        let stored = StoredPassword::parse(&text).expect("our own format");
        assert!(stored.verify(b"correct horse"));
        assert!(!stored.verify(b"correct horsf"));
        assert_eq!(format!("{stored:?}"), "StoredPassword(…)");
    }

    #[test]
    fn a_hash_that_would_take_too_much_memory_is_refused() {
        let text = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(matches!(StoredPassword::parse(text), Err(PasswordError::TooCostly { memory_kib: 65536, .. })));
        let other = "$argon2i$v=19$m=1024,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        assert!(matches!(StoredPassword::parse(other), Err(PasswordError::NotArgon2id)));
        assert!(matches!(StoredPassword::parse("secret"), Err(PasswordError::NotArgon2id)));
    }

    #[test]
    fn tokens_have_256_random_bits() {
        let (one, two) = (make_token().expect("random"), make_token().expect("random"));
        assert_ne!(one, two);
        assert_eq!(one.len(), TOKEN_PREFIX.len() + 43);
    }
}
