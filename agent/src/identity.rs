//! Who this agent is: the id from the configuration, or one made once and kept in the data folder.
//!
//! A made id begins with the host's name, so that people find the machine, and ends with random digits, because hosts with the
//! same image have the same name. It is written before anything uses it; a data folder that moves takes its agent along.

use std::io;

use anyhow::Context;
use godwit_mesh::names::AgentId;
use godwit_mesh::process::{read_small, write_small};
use godwit_mesh::storage::Storage;

/// Where a made id is kept in the data folder.
pub(crate) const FILE: &str = "agent-id";

/// Longest part of the host's name that goes into an id.
const MAX_HOST_CHARACTERS: usize = 40;

/// The agent's id. Blocks: reads and, the first time, writes a file.
///
/// # Errors
/// When the configured or kept id is not a valid name, or the file cannot be read or written.
pub(crate) fn agent_id(configured: Option<&str>, storage: &dyn Storage) -> anyhow::Result<AgentId> {
    if let Some(id) = configured {
        return AgentId::new(id).context("agent.id");
    }
    let kept = read_small(storage, FILE).with_context(|| format!("reading {FILE} in the data folder"))?;
    if let Some(id) = kept.as_deref().map(parse).transpose()?.flatten() {
        return Ok(id);
    }
    if kept.is_some() {
        // Better than to take no event until somebody comes; but the gateway cannot know that it is still the same agent.
        tracing::warn!(
            "the file {FILE} in the data folder is damaged: this agent gets a new id, and the gateway will take it for another; \
             to keep the old one, set agent.id"
        );
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let id = AgentId::new(&made(&host)?).context("making an agent id")?;
    write_small(storage, FILE, &format!("{id}\n")).with_context(|| format!("writing {FILE} in the data folder"))?;
    tracing::info!(agent = %id, "this agent has made itself an id");
    Ok(id)
}

/// The id that a kept file says; `None` where it is damaged.
///
/// # Errors
/// When a person wrote what is no id.
pub(crate) fn parse(kept: &str) -> anyhow::Result<Option<AgentId>> {
    let kept = kept.trim();
    if kept.is_empty() || kept.contains(|c: char| c.is_control() || c == '\u{fffd}') {
        return Ok(None);
    }
    let id = AgentId::new(kept).with_context(|| {
        format!("the file {FILE} in the data folder; set agent.id, or write the right id into the file")
    })?;
    Ok(Some(id))
}

fn made(host: &str) -> io::Result<String> {
    let random = getrandom::u32().map_err(io::Error::other)?;
    let name: String = host
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(MAX_HOST_CHARACTERS)
        .collect();
    let name = name.trim_matches('-');
    let name = if name.is_empty() { "agent" } else { name };
    Ok(format!("{name}-{random:08x}"))
}

#[cfg(test)]
mod tests {
    use godwit_mesh::storage::Disk;

    use super::*;

    #[test]
    fn an_id_is_made_once_and_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(dir.path()).expect("a disk");
        let first = agent_id(None, &disk).expect("made");
        assert_eq!(agent_id(None, &disk).expect("kept"), first);
        assert_eq!(agent_id(Some("boat-7"), &disk).expect("configured").as_str(), "boat-7");
        assert_eq!(agent_id(None, &disk).expect("still kept"), first);
    }

    #[test]
    fn a_damaged_file_makes_a_new_id_and_a_wrong_one_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(dir.path()).expect("a disk");
        for damage in [&b""[..], b"\0\0\0\0\0\0\0\0", b"boat-\xff\xfe\x80"] {
            std::fs::write(dir.path().join(FILE), damage).expect("written");
            let id = agent_id(None, &disk).expect("made");
            assert_eq!(agent_id(None, &disk).expect("kept"), id, "{damage:?}");
        }
        std::fs::write(dir.path().join(FILE), "Boat 7").expect("written");
        assert!(agent_id(None, &disk).is_err(), "what a person wrote is for a person to mend");
    }

    #[test]
    fn any_host_name_makes_a_valid_id() {
        for host in ["Raspberry_Pi.local", "", "---", "ünï", "a-very-long-name-that-goes-on-and-on-and-on-and-on-and-on"]
        {
            let id = made(host).expect("random");
            assert!(AgentId::new(&id).is_ok(), "{host} gave {id}");
        }
        assert!(made("Boat 7").expect("random").starts_with("boat-7-"));
    }

    #[test]
    fn a_wrong_id_is_refused_with_the_place_to_mend_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = Disk::new(dir.path()).expect("a disk");
        let error = format!("{:#}", agent_id(Some("Boat 7"), &disk).expect_err("refused"));
        assert!(error.starts_with("agent.id: "), "{error}");
    }
}
