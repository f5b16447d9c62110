//! How Brokers share the room on the disk.
//!
//! The limit holds for all Brokers together. Each may use what the others leave, so that one alone has everything; none can be
//! pushed below the least a journal needs. Limits follow what is used, so one that grows takes only what is free, and when
//! two have grown into the same room both give back a part.

/// The fewest segments a journal works with.
const LEAST_SEGMENTS: u64 = 4;

/// The limit of each Broker in bytes, given how much each uses, in the same order.
pub(super) fn limits(total: u64, segment: u64, used: &[u64]) -> Vec<u64> {
    let least = segment.saturating_mul(LEAST_SEGMENTS);
    let reserved = |bytes: u64| bytes.max(least);
    let all: u64 = used.iter().fold(0, |sum, bytes| sum.saturating_add(reserved(*bytes)));
    used.iter().map(|bytes| total.saturating_sub(all - reserved(*bytes)).max(least)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_broker_alone_has_everything() {
        assert_eq!(limits(1000, 10, &[0]), [1000]);
        assert_eq!(limits(1000, 10, &[2000]), [1000]);
    }

    #[test]
    fn a_new_broker_takes_only_what_is_free() {
        assert_eq!(limits(1000, 10, &[600, 0]), [960, 400]);
    }

    #[test]
    fn none_falls_below_four_segments() {
        assert_eq!(limits(100, 10, &[500, 0, 0]), [40, 40, 40]);
    }

    proptest! {
        #[test]
        fn with_room_for_all_no_broker_that_fits_is_cut(used in prop::collection::vec(0u64..1000, 1..8)) {
            let total: u64 = used.iter().map(|u| u.max(&40)).sum();
            for (limit, used) in limits(total, 10, &used).iter().zip(&used) {
                prop_assert!(limit >= used);
            }
        }
    }
}
