//! The file that says which Brokers there are: one `namespace/name` a line, a Channel as `channels/namespace/name`.

use std::io;

use crate::names::BrokerName;
use crate::storage::{Storage, read_exact_at};

const FOLDER: &str = "brokers";
const INDEX: &str = "brokers/index";
const NEW: &str = "brokers/index.new";

/// Largest index read, in bytes; what follows is not looked at.
const MAX_BYTES: u64 = 1 << 20;

/// The Brokers listed. A line that is no Broker's name is passed over with a warning: it must not keep the others from
/// opening.
pub(super) fn read(storage: &dyn Storage) -> io::Result<Vec<BrokerName>> {
    let file = match storage.open(INDEX, false) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let length = file.len()?.min(MAX_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    read_exact_at(&*file, &mut bytes, 0)?;
    let mut names: Vec<BrokerName> = Vec::new();
    for line in String::from_utf8_lossy(&bytes).lines().filter(|l| !l.is_empty()) {
        match line.parse() {
            Ok(name) if !names.contains(&name) => names.push(name),
            Ok(_) => {}
            Err(e) => tracing::warn!(file = INDEX, error = %e, "a line of the index of brokers is damaged and passed over"),
        }
    }
    Ok(names)
}

/// Replaces the index, durably.
pub(super) fn write<'a>(storage: &dyn Storage, names: impl Iterator<Item = &'a BrokerName>) -> io::Result<()> {
    let mut text = String::new();
    for name in names {
        text.push_str(&name.to_string());
        text.push('\n');
    }
    storage.make_dir(FOLDER)?;
    let file = storage.open(NEW, true)?;
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)?;
    // durable before: the rename below must never show a name whose bytes are not on disk. A cut here leaves the old index.
    file.sync_data()?;
    storage.rename(NEW, INDEX)?;
    // A cut before this sync leaves the old index or the new one, each whole.
    storage.sync_dir(FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Disk;

    #[test]
    fn what_is_written_is_read_back_and_a_damaged_line_costs_only_itself() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let disk = Disk::new(dir.path()).expect("made");
        assert!(read(&disk).expect("absent is empty").is_empty());

        let names = ["default/default", "site-1/alarms"].map(|n| n.parse::<BrokerName>().expect("valid"));
        write(&disk, names.iter()).expect("written");
        assert_eq!(read(&disk).expect("read"), names);

        std::fs::write(dir.path().join("brokers/index"), "default/default\n\0\u{1}?/x\nsite-1/alarms\nsite-1/alarms\n")
            .expect("damaged");
        assert_eq!(read(&disk).expect("read"), names);
    }
}
