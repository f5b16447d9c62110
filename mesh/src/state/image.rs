//! The bytes of the state file: all tables, whole.
//!
//! ```text
//! "GODWSTAT"  version u32  crc32c u32 of all that follows
//! rows, in the order of table and key: table u8 + bytes, key u16 + bytes, value u32 + bytes
//! ```
//! Numbers are little-endian. What does not read back to the last byte is damaged.

use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"GODWSTAT";
const VERSION: u32 = 1;
const HEAD: usize = 16;

/// Values by table and key.
pub(super) type Rows = BTreeMap<(String, Vec<u8>), Vec<u8>>;

/// The file that holds `rows`. Tables' names are at most 255 bytes long, keys and values within the limits of a table.
pub(super) fn write(rows: &Rows) -> Vec<u8> {
    let mut out = Vec::with_capacity(
        HEAD + rows.iter().map(|((table, key), value)| 7 + table.len() + key.len() + value.len()).sum::<usize>(),
    );
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for ((table, key), value) in rows {
        put(&mut out, 1, table.as_bytes());
        put(&mut out, 2, key);
        put(&mut out, 4, value);
    }
    let sum = crc32c::crc32c(out.get(HEAD..).unwrap_or_default());
    if let Some(place) = out.get_mut(12..HEAD) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    out
}

/// Reads a file back.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<Rows, &'static str> {
    let (head, mut rest) = bytes.split_at_checked(HEAD).ok_or("it is shorter than its head")?;
    if !head.starts_with(MAGIC) {
        return Err("it is no state file");
    }
    if number(head.get(8..12).unwrap_or_default()) != VERSION as usize {
        return Err("its version is not known");
    }
    if number(head.get(12..).unwrap_or_default()) != crc32c::crc32c(rest) as usize {
        return Err("its checksum is wrong");
    }
    let mut rows = Rows::new();
    while !rest.is_empty() {
        let mut take = |size| take(&mut rest, size).ok_or("a row is cut short");
        let (table, key, value) = (take(1)?, take(2)?, take(4)?);
        let table = std::str::from_utf8(table).map_err(|_| "a table's name is not UTF-8")?;
        rows.insert((table.to_owned(), key.to_vec()), value.to_vec());
    }
    Ok(rows)
}

/// Appends the length of `bytes` in `size` bytes, and them.
fn put(out: &mut Vec<u8>, size: usize, bytes: &[u8]) {
    out.extend_from_slice(bytes.len().to_le_bytes().get(..size).unwrap_or_default());
    out.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_at_checked(size)?;
    let (bytes, behind) = behind.split_at_checked(number(length))?;
    *rest = behind;
    Some(bytes)
}

/// Little-endian, at most four bytes.
fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else(rows: BTreeMap<(String, Vec<u8>), Vec<u8>>, at: prop::sample::Index, flip in 1..=255_u8) {
            let mut bytes = write(&rows);
            prop_assert_eq!(read(&bytes), Ok(rows));
            let at = at.index(bytes.len());
            prop_assert!(read(bytes.get(..at).expect("within")).is_err());
            bytes[at] ^= flip;
            prop_assert!(read(&bytes).is_err(), "byte {} changed", at);
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes: Vec<u8>) {
            let sum = crc32c::crc32c(&bytes);
            bytes.splice(0..0, MAGIC.iter().copied().chain(VERSION.to_le_bytes()).chain(sum.to_le_bytes()));
            let _ = read(&bytes);
        }
    }
}
