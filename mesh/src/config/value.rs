//! The kinds of value a key can have, each read from the text that a file, a variable or a flag gives.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw {
    /// A string, number or boolean; also all that comes from the environment or a flag.
    Text(String),
    /// An array of a file.
    List(Vec<String>),
    /// A table of a file.
    Table(BTreeMap<String, String>),
}

/// A kind of value.
pub trait Setting: Sized {
    /// What it is called in the documents.
    const KIND: &'static str;

    /// How much it is, in the smallest unit of its kind, where it is a quantity and set. What a key's range is compared with.
    fn quantity(&self) -> Option<u64> {
        None
    }

    /// Reads it from text.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn from_text(text: &str) -> Result<Self, String>;

    /// Reads it from what a file gave.
    ///
    /// # Errors
    /// What is wrong with the value.
    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Text(text) => Self::from_text(text),
            Raw::List(_) => Err(format!("is a list, but {} is wanted", Self::KIND)),
            Raw::Table(_) => Err(format!("is a table, but {} is wanted", Self::KIND)),
        }
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;

    fn quantity(&self) -> Option<u64> {
        self.as_ref().and_then(T::quantity)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::from_text(text).map(Some) }
    }
}

impl Setting for String {
    const KIND: &'static str = "text";

    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("is empty, but a path is wanted".to_owned()) } else { Ok(Self::from(text)) }
    }
}

impl Setting for bool {
    const KIND: &'static str = "true or false";

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("\"{text}\" is neither true nor false")),
        }
    }
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Setting for $kind {
            const KIND: &'static str = "number";

            fn quantity(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }

            fn from_text(text: &str) -> Result<Self, String> {
                let digits = text.replace('_', "");
                digits.parse().map_err(|_| format!("\"{text}\" is not a whole number from 0 to {}", Self::MAX))
            }
        }
    )*};
}
number!(u16, u32, u64, usize);

impl Setting for SocketAddr {
    const KIND: &'static str = "address:port";

    fn from_text(text: &str) -> Result<Self, String> {
        let plain = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        plain.parse().map_err(|_| {
            format!("\"{text}\" is not an address with a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080")
        })
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration";

    fn quantity(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }

    /// `500ms`, `30s`, `5m`, `24h`, `7d`, or several in a row: `1h30m`.
    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a duration such as 500ms, 30s, 5m, 24h, 7d or 1h30m");
        let mut rest = text;
        let mut total_ms = 0u64;
        while !rest.is_empty() {
            let (number, after) = split_number(rest).ok_or_else(wrong)?;
            let end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
            let (unit, next) = after.split_at(end);
            let ms = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return Err(wrong()),
            };
            total_ms = number.checked_mul(ms).and_then(|n| total_ms.checked_add(n)).ok_or_else(wrong)?;
            rest = next;
        }
        if text.is_empty() { Err(wrong()) } else { Ok(Self::from_millis(total_ms)) }
    }
}

/// A number of bytes: `65536`, `64KiB`, `8MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// As a length in memory.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Setting for Size {
    const KIND: &'static str = "size";

    fn quantity(&self) -> Option<u64> {
        Some(self.0)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not a size such as 65536, 64KiB, 8MiB, 1GiB or 10GB");
        let (number, unit) = split_number(text).ok_or_else(wrong)?;
        let factor = match unit.trim_start() {
            "" | "B" => 1,
            "kB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(wrong()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

impl Setting for Vec<String> {
    const KIND: &'static str = "list";

    /// Words with commas between them.
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::List(words) => Ok(words.clone()),
            Raw::Text(text) => Self::from_text(text),
            Raw::Table(_) => Err("is a table, but a list is wanted".to_owned()),
        }
    }
}

/// Names with values, such as an agent's labels.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(pub BTreeMap<String, String>);

impl Setting for Labels {
    const KIND: &'static str = "table";

    /// `name=value` pairs with commas between them.
    fn from_text(text: &str) -> Result<Self, String> {
        let mut labels = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| format!("\"{pair}\" is not name=value"))?;
            labels.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        Ok(Self(labels))
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        match raw {
            Raw::Table(labels) => Ok(Self(labels.clone())),
            Raw::Text(text) => Self::from_text(text),
            Raw::List(_) => Err("is a list, but a table is wanted".to_owned()),
        }
    }
}

/// Files by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files(pub BTreeMap<String, PathBuf>);

impl Setting for Files {
    const KIND: &'static str = "table";

    /// `name=path` pairs with commas between them.
    fn from_text(text: &str) -> Result<Self, String> {
        let Labels(pairs) = Labels::from_text(text)?;
        Self::of(pairs)
    }

    fn from_raw(raw: &Raw) -> Result<Self, String> {
        Labels::from_raw(raw).and_then(|Labels(pairs)| Self::of(pairs))
    }
}

impl Files {
    fn of(pairs: BTreeMap<String, String>) -> Result<Self, String> {
        if let Some((name, _)) = pairs.iter().find(|(_, path)| path.is_empty()) {
            return Err(format!("has no path for \"{name}\""));
        }
        Ok(Self(pairs.into_iter().map(|(name, path)| (name, PathBuf::from(path))).collect()))
    }
}

/// Declares a kind of value that is one of a few words.
#[macro_export]
macro_rules! choice {
    ($(#[$outer:meta])* $vis:vis enum $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name { $($(#[doc = $doc])+ $variant),+ }

        impl $crate::config::Setting for $name {
            const KIND: &'static str = concat!("one of" $(, " ", $word)+);

            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("\"{text}\" is not {}", Self::KIND)),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                <Self as $crate::config::Setting>::from_text(text)
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        let ms = |text| Duration::from_text(text).map(|d| d.as_millis());
        assert_eq!(ms("500ms"), Ok(500));
        assert_eq!(ms("1h30m"), Ok(5_400_000));
        assert_eq!(ms("7d"), Ok(604_800_000));
        for wrong in ["", "30", "s", "-1s", "1.5s", "3 s", "99999999999999999999s", "99999999999999999d"] {
            assert!(ms(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_may_have_units() {
        assert_eq!(Size::from_text("65536"), Ok(Size(65536)));
        assert_eq!(Size::from_text("8MiB"), Ok(Size(8 << 20)));
        assert_eq!(Size::from_text("10 GB"), Ok(Size(10_000_000_000)));
        assert!(Size::from_text("8Mi").is_err());
        assert!(Size::from_text("99999999999TiB").is_err());
    }

    #[test]
    fn an_address_may_be_localhost_and_must_have_a_port() {
        assert_eq!(SocketAddr::from_text("localhost:1883"), Ok(SocketAddr::from(([127, 0, 0, 1], 1883))));
        assert!(SocketAddr::from_text("[::]:1883").is_ok());
        assert!(SocketAddr::from_text("127.0.0.1").is_err());
    }

    #[test]
    fn labels_come_from_a_table_or_from_pairs() {
        let labels = Labels::from_text("site=north, line=3").expect("pairs");
        assert_eq!(labels.0.get("line").map(String::as_str), Some("3"));
        assert!(Labels::from_text("site").is_err());
    }
}
