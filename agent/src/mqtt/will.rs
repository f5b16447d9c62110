//! Wills that are kept: from CONNECT until they are published or forgotten, which may be days.
//!
//! A client that has the right to connect could leave 64 KiB with each of thousands of connections. So a will of more than a few
//! hundred bytes has its share of a room of its own; while that is full, further clients with large wills are refused. The room is
//! not that of large packets on their way: wills stay, and would starve those.

use std::sync::Arc;

use godwit_mesh::room::{Held, Room};

use super::packet::connect::Will;

/// A will up to this size needs no room: a part of what its connection costs anyway.
const SMALL_WILL: usize = 512;

/// A will, with the room that it has.
#[derive(Debug)]
pub(super) struct KeptWill {
    pub(super) will: Box<Will>,
    _room: Option<Held>,
}

/// The room for wills of one listener.
#[derive(Debug)]
pub(super) struct WillRoom(Arc<Room>);

impl WillRoom {
    /// Room for so many bytes of wills that are not small.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Room::new(bytes)))
    }

    /// Keeps a will; `None` if there is no room for it.
    pub(super) fn keep(&self, will: Box<Will>) -> Option<Box<KeptWill>> {
        let bytes = will.topic.capacity() + will.payload.capacity() + will.properties.capacity();
        let room = if bytes > SMALL_WILL { Some(self.0.try_take(bytes)?) } else { None };
        Some(Box::new(KeptWill { will, _room: room }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn will(payload: usize) -> Box<Will> {
        Box::new(Will {
            topic: "t".to_owned(),
            payload: vec![0; payload],
            qos: 0,
            retain: false,
            properties: Vec::new(),
            delay_seconds: 0,
        })
    }

    #[test]
    fn large_wills_share_a_room_and_small_ones_need_none() {
        let room = WillRoom::new(100_000);
        let first = room.keep(will(60_000)).expect("room");
        assert!(room.keep(will(60_000)).is_none());
        assert!(room.keep(will(100)).is_some());
        drop(first);
        assert!(room.keep(will(60_000)).is_some());
    }
}
