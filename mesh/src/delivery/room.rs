//! Room for events on their way to subscribers: so many bytes of one Trigger's, and so many of all. A single event that is larger goes
//! alone. A Trigger's only small event always finds room, so that no other's can keep it from going.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of all Triggers' events that are on their way, but for each one's only small one.
const ALL_KIB: u32 = 4 << 10;
/// Of one Trigger's.
const ONE_KIB: u32 = 1 << 10;
/// A Trigger's only event of no more than this goes in any case.
const SMALL_KIB: u32 = 4;

/// The room of a process. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Room(Arc<Semaphore>);

/// What one delivery takes.
#[derive(Debug)]
pub(crate) struct Taken {
    kib: u32,
    _all: Option<OwnedSemaphorePermit>,
}

/// What one Trigger has taken.
#[derive(Debug, Default)]
pub(crate) struct Share {
    kib: u32,
    deliveries: u32,
}

/// Whether there is room.
#[derive(Debug)]
pub(crate) enum Found {
    Room(Taken),
    /// When something of the Trigger's own has come back.
    Later,
    /// When something of all has: so many KiB of it.
    Wait(u32),
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(ALL_KIB).unwrap_or(4096))))
    }
}

impl Room {
    /// Takes room for `bytes`. `waited` is what [`Room::wait`] gave.
    pub(crate) fn take(&self, share: &mut Share, bytes: usize, waited: &mut Option<OwnedSemaphorePermit>) -> Found {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, ALL_KIB);
        let alone = share.deliveries == 0;
        if !alone && share.kib + kib > ONE_KIB {
            return Found::Later;
        }
        let all = if alone && kib <= SMALL_KIB {
            None
        } else {
            let enough = waited.take().filter(|permit| permit.num_permits() >= usize::try_from(kib).unwrap_or(usize::MAX));
            match enough.map_or_else(|| Arc::clone(&self.0).try_acquire_many_owned(kib), Ok) {
                Ok(permit) => Some(permit),
                Err(_) => return Found::Wait(kib),
            }
        };
        share.kib += kib;
        share.deliveries += 1;
        Found::Room(Taken { kib, _all: all })
    }

    /// Resolves when there is room for so many KiB. Cancel-safe; who comes back stands behind those who waited on.
    pub(crate) async fn wait(&self, kib: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_many_owned(kib).await.ok()
    }
}

impl Share {
    /// A delivery has come back.
    pub(crate) fn give_back(&mut self, taken: &Taken) {
        self.kib = self.kib.saturating_sub(taken.kib);
        self.deliveries = self.deliveries.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triggers_bytes_and_everybodys_are_bounded_and_one_small_event_always_goes() {
        let room = Room::default();
        let take = |share: &mut Share, bytes| room.take(share, bytes, &mut None);
        let mut one = Share::default();
        let Found::Room(large) = take(&mut one, 20 << 20) else { panic!("a larger one goes alone") };
        assert!(matches!(take(&mut one, 1), Found::Later));
        let mut other = Share::default();
        assert!(matches!(take(&mut other, 5000), Found::Wait(5)), "all is taken");
        let Found::Room(small) = take(&mut other, 4096) else { panic!("its only one, and small") };
        assert!(matches!(take(&mut other, 1), Found::Wait(1)));
        one.give_back(&large);
        drop(large);
        let Found::Room(second) = take(&mut other, 1) else { panic!("there is room again") };
        other.give_back(&second);
        other.give_back(&small);
        let taken: Vec<_> = std::iter::from_fn(|| match take(&mut one, 256 << 10) {
            Found::Room(taken) => Some(taken),
            _ => None,
        })
        .collect();
        assert_eq!(taken.len(), 4, "1 MiB");
    }
}
