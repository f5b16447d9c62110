//! Certificates: when they end, and whether a file holds a whole chain.
//!
//! Of a certificate (X.509, DER; RFC 5280 section 4.1) only the few fields are read that say this: whether it is to be trusted is
//! for rustls. Input from outside: every length is checked, and what is not of the expected shape is `None`.

use std::io;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use time::{Date, Month};

use super::report::{Finding, Verdict};
use super::units::long;

const CHECK: &str = "certificates";

const DAY: u64 = 86_400;

/// So long before its end a certificate should have been renewed: what renews by itself does it 30 days before.
const SOON: u64 = 14 * DAY;

/// What a file of certificates is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A listener of ours shows it, with those that lead to its authority.
    Ours,
    /// Authorities that we trust.
    Trusted,
}

/// A file of certificates that the configuration names.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    /// Its key: `http.tls-cert`.
    pub key: &'static str,
    /// The file.
    pub path: &'a Path,
    /// What it is for.
    pub owner: Owner,
}

/// What is read of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    issuer: Vec<u8>,
    subject: Vec<u8>,
    /// Seconds since 1970.
    pub(crate) from: i64,
    pub(crate) until: i64,
}

/// The certificate files of the configuration. `now` is the wall clock in seconds since 1970, `None` while it is not set.
#[must_use]
pub fn certificates(chains: &[Chain<'_>], now: Option<u64>) -> Finding {
    if chains.is_empty() {
        return Finding::ok(CHECK, "none are configured");
    }
    let mut finding = Finding::ok(CHECK, "");
    for chain in chains {
        let (verdict, found, remedy) = match read(chain.path) {
            Ok(read) => judge(&read, chain.owner, now),
            Err(PemError::Io(e)) if e.kind() == io::ErrorKind::PermissionDenied => {
                (Verdict::Unknown, "may not be read by this user".to_owned(), "run it as root or as the agent's user")
            }
            Err(e) => (Verdict::Fail, format!("cannot be read: {e}"), "it must hold PEM certificates"),
        };
        let remedy = if remedy.is_empty() { String::new() } else { format!("{}: {remedy}", chain.key) };
        finding = finding.and(verdict, &format!("{} ({}) {found}", chain.key, chain.path.display()), &remedy);
    }
    finding
}

fn read(path: &Path) -> Result<Vec<Option<Certificate>>, PemError> {
    if !std::fs::metadata(path).map_err(PemError::Io)?.is_file() {
        return Err(PemError::Io(io::Error::other("it is no file")));
    }
    let found: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if found.is_empty() { Err(PemError::NoItemsFound) } else { Ok(found.iter().map(|der| parse(der)).collect()) }
}

fn judge(read: &[Option<Certificate>], owner: Owner, now: Option<u64>) -> (Verdict, String, &'static str) {
    let all: Option<Vec<&Certificate>> = read.iter().map(Option::as_ref).collect();
    let Some(all) = all else {
        let remedy = "openssl x509 -noout -dates -in FILE tells when it ends";
        return (Verdict::Unknown, "holds a certificate that is not understood".to_owned(), remedy);
    };
    if owner == Owner::Ours && all.windows(2).any(|pair| matches!(pair, [one, next] if one.issuer != next.subject)) {
        let remedy = "put the server's certificate first, then the one that signed it, and so on";
        return (Verdict::Fail, "is no chain: a certificate is not followed by its issuer's".to_owned(), remedy);
    }
    let Some(now) = now.and_then(|now| i64::try_from(now).ok()) else {
        return (Verdict::Unknown, "cannot be judged: the clock is not set".to_owned(), "set the clock");
    };
    // Of our own chain each must hold; of authorities one that holds may be enough.
    let one = worst(all.iter().copied(), now);
    let early = one.is_some_and(|one| now < one.from);
    let some = all.iter().any(|one| one.standing(now).0 < Verdict::Fail);
    match (owner, one.map_or((Verdict::Unknown, String::new()), |one| one.standing(now))) {
        (_, (Verdict::Ok, found)) => (Verdict::Ok, found, ""),
        (Owner::Trusted, (Verdict::Fail, found)) if some => {
            (Verdict::Warn, format!("holds one that {found}, beside others that hold"), "take it out")
        }
        (_, (verdict, found)) if early => (verdict, found, "set the clock"),
        (Owner::Ours, (verdict, found)) => (verdict, found, "renew it; kill -HUP makes the agent read it again"),
        (Owner::Trusted, (verdict, found)) => (verdict, found, "get the authority's new certificate"),
    }
}

/// The one that stands worst; of those that stand alike, the first to end.
pub(super) fn worst<'a>(all: impl Iterator<Item = &'a Certificate>, now: i64) -> Option<&'a Certificate> {
    all.max_by_key(|one| (one.standing(now).0, std::cmp::Reverse(one.until)))
}

impl Certificate {
    /// How it stands at `now`.
    pub(super) fn standing(&self, now: i64) -> (Verdict, String) {
        let span = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        if now < self.from {
            return (
                Verdict::Fail,
                format!("is not valid until {} from now: is the clock right?", long(span(now, self.from))),
            );
        }
        if now > self.until {
            return (Verdict::Fail, format!("expired {} ago", long(span(self.until, now))));
        }
        let left = span(now, self.until);
        (if left < SOON { Verdict::Warn } else { Verdict::Ok }, format!("expires in {}", long(left)))
    }
}

/// Reads a certificate.
pub(crate) fn parse(der: &[u8]) -> Option<Certificate> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const VERSION: u8 = 0xa0;
    let (certificate, _) = element(der, SEQUENCE)?;
    let (signed, _) = element(certificate, SEQUENCE)?;
    let rest = element(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = element(rest, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (issuer, rest) = element(rest, SEQUENCE)?;
    let (validity, rest) = element(rest, SEQUENCE)?;
    let (subject, _) = element(rest, SEQUENCE)?;
    let (from, validity) = time(validity)?;
    let (until, _) = time(validity)?;
    Some(Certificate { issuer: issuer.to_owned(), subject: subject.to_owned(), from, until })
}

/// The content of an element with this tag, and what follows it.
fn element(input: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&have, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Up to 3 bytes of length: no certificate has 16 MiB.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| have == tag)
}

/// `UTCTime` (`YYMMDDHHMMSSZ`, 1950 to 2049) or `GeneralizedTime` (`YYYYMMDDHHMMSSZ`), in seconds since 1970.
fn time(input: &[u8]) -> Option<(i64, &[u8])> {
    const UTC: u8 = 0x17;
    const GENERALIZED: u8 = 0x18;
    let ((text, rest), digits) =
        element(input, UTC).map(|found| (found, 2)).or_else(|| Some((element(input, GENERALIZED)?, 4)))?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, text) = text.split_at_checked(digits)?;
    let year: i32 = year.parse().ok()?;
    let year = if digits == 4 { year } else { year + if year < 50 { 2000 } else { 1900 } };
    let pair = |at: usize| text.get(at * 2..at * 2 + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(pair(0)?).ok()?, pair(1)?).ok()?;
    let time = date.with_hms(pair(2)?, pair(3)?, pair(4)?).ok().filter(|_| text.len() == 10)?;
    Some((time.assume_utc().unix_timestamp(), rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    /// A certificate of an authority, and the authority's: both PEM. The first is valid from 2020 to `until`.
    fn pair(until: i32) -> (String, String) {
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("key")).expect("signed");
        let mut server = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        server.distinguished_name.push(rcgen::DnType::CommonName, "server");
        server.not_before = rcgen::date_time_ymd(2020, 1, 1);
        server.not_after = rcgen::date_time_ymd(until, 1, 1);
        let server = server.signed_by(&KeyPair::generate().expect("key"), &authority).expect("signed");
        (server.pem(), authority.pem())
    }

    fn look(text: &str, owner: Owner, now: Option<u64>) -> Finding {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("cert.pem");
        std::fs::write(&path, text).expect("written");
        certificates(&[Chain { key: "http.tls-cert", path: &path, owner }], now)
    }

    /// 2026-01-01.
    const NOW: Option<u64> = Some(1_767_225_600);

    #[test]
    fn what_has_ended_fails_and_what_ends_soon_warns() {
        let (server, authority) = pair(2030);
        let good = look(&format!("{server}{authority}"), Owner::Ours, NOW);
        assert_eq!(good.verdict, Verdict::Ok, "{}", good.found);
        assert!(good.found.contains("expires in 4.0 years"), "{}", good.found);
        assert_eq!(look(&server, Owner::Ours, Some(1_893_456_000 - 5 * DAY)).verdict, Verdict::Warn);
        let ended = look(&pair(2025).0, Owner::Ours, NOW);
        assert_eq!(ended.verdict, Verdict::Fail);
        assert!(ended.found.contains("expired 365 days ago"), "{}", ended.found);
        assert_eq!(look(&server, Owner::Ours, Some(1)).verdict, Verdict::Fail, "not valid yet");
        assert_eq!(look(&server, Owner::Ours, None).verdict, Verdict::Unknown, "without a clock");
        assert_eq!(look("nonsense", Owner::Ours, NOW).verdict, Verdict::Fail);
    }

    #[test]
    fn before_a_certificate_is_valid_it_is_the_clock_that_is_to_be_set() {
        let server = pair(2030).0;
        // 2019-12-01, a month before it.
        for owner in [Owner::Ours, Owner::Trusted] {
            let early = look(&server, owner, Some(1_575_158_400));
            assert_eq!((early.verdict, early.remedy.as_str()), (Verdict::Fail, "http.tls-cert: set the clock"));
            assert!(early.found.contains("not valid until 31 days from now"), "{}", early.found);
        }
    }

    #[test]
    fn a_chain_in_the_wrong_order_fails() {
        let (server, authority) = pair(2030);
        assert_eq!(look(&format!("{authority}{server}"), Owner::Ours, NOW).verdict, Verdict::Fail);
        assert_eq!(look(&format!("{authority}{server}"), Owner::Trusted, NOW).verdict, Verdict::Ok);
    }

    #[test]
    fn one_authority_that_has_ended_among_others_is_a_warning() {
        let (ended, good) = (pair(2025).0, pair(2030).0);
        assert_eq!(look(&format!("{ended}{good}"), Owner::Trusted, NOW).verdict, Verdict::Warn);
        assert_eq!(look(&ended, Owner::Trusted, NOW).verdict, Verdict::Fail);
    }

    #[test]
    fn times_beyond_2049_and_before_1970_are_read() {
        let tagged = |tag: u8, text: &str| [&[tag, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
        let seconds = |tag, text| time(&tagged(tag, text)).map(|(seconds, _)| seconds);
        assert_eq!(seconds(0x17, "700101000000Z"), Some(0));
        assert_eq!(seconds(0x17, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(seconds(0x18, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(seconds(0x18, "99991231235959Z"), Some(253_402_300_799));
        assert_eq!(seconds(0x17, "500101000000Z"), Some(-631_152_000));
        for wrong in ["", "Z", "991301000000Z", "990230000000Z", "9901010000Z", "9901010000000Z", "990101000000+0100"] {
            assert_eq!(seconds(0x17, wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_certificate_or_not(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
        }

        #[test]
        fn a_damaged_certificate_does_no_harm(at in 0usize..400, byte in any::<u8>()) {
            let der = CertificateDer::from_pem_slice(DAMAGED.as_bytes()).expect("PEM");
            let mut der = der.to_vec();
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            parse(&der);
        }
    }

    const DAMAGED: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBbTCCAROgAwIBAgIUPMy1fmoNn992vm7PzxeyFZcx0ogwCgYIKoZIzj0EAwIw\n\
        DDEKMAgGA1UEAwwBeDAeFw0yNjExMjYwMDM4MzBaFw0zNjExMjMwMDM4MzBaMAwx\n\
        CjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASPx8eKRYsKvOyh\n\
        B2AzobYdUXYYNNu0NUWiOPC7voAYMkMWUq2PPLGdolZEPDQib7bxZKwbQqkIniYb\n\
        h6XsJarOo1MwUTAdBgNVHQ4EFgQU/HiYZD8azvdEL088tSiTXnW6ESkwHwYDVR0j\n\
        BBgwFoAU/HiYZD8azvdEL088tSiTXnW6ESkwDwYDVR0TAQH/BAUwAwEB/zAKBggq\n\
        hkjOPQQDAgNIADBFAiA2zl8h0x8yJuEfog4WGS4OzpkkaYmtS+C+IPjyp44dOQIh\n\
        APzoo7iPaA3wR8yKm1a8HWjrxNCKKE/dL8+6nWgwN0JV\n\
        -----END CERTIFICATE-----\n";
}
