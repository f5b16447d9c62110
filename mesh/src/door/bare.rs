//! URLs as people are shown them.

/// What is meant as a URL, without user name and password, also where it is none that we know. All up to the last `@` goes: in a
/// password anything may stand.
#[must_use]
pub fn bare(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((before, place)) if before.contains(':') => match before.split_once("://") {
            Some((scheme, _)) => format!("{scheme}://{place}"),
            None => place.to_owned(),
        },
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_wherever_it_stands() {
        for (url, shown) in [
            ("ftp://u:s3cr3t@h:1/x", "ftp://h:1/x"),
            ("--gateway=http://u:s3/cr@3t@h", "--gateway=http://h"),
            ("u:s3cr3t@h", "h"),
            ("http://h/x", "http://h/x"),
            ("/var/lib/a@b", "/var/lib/a@b"),
        ] {
            assert_eq!(bare(url), shown);
        }
    }
}
