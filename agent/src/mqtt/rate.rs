//! How many publishes a second one client may send: a bucket that fills with time.

/// A client's allowance.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: u64,
    /// Thousandths of a publish.
    allowance: u64,
    filled_at_ms: u64,
}

impl Rate {
    /// A full bucket: one second's worth.
    pub(super) fn new(per_second: u32, now_ms: u64) -> Self {
        let per_second = u64::from(per_second.max(1));
        Self { per_second, allowance: per_second * 1000, filled_at_ms: now_ms }
    }

    /// How long to wait until one more publish than the `gathered` ones may be taken; `None` if it may now.
    pub(super) fn wait_ms(&mut self, gathered: usize, now_ms: u64) -> Option<u64> {
        let gained = now_ms.saturating_sub(self.filled_at_ms).saturating_mul(self.per_second);
        self.allowance = self.allowance.saturating_add(gained).min(self.per_second * 1000);
        self.filled_at_ms = now_ms;
        let needed = (gathered as u64 + 1) * 1000;
        (self.allowance < needed).then(|| (needed - self.allowance).div_ceil(self.per_second).max(1))
    }

    /// Takes `count` publishes out of the bucket.
    pub(super) fn spend(&mut self, count: usize) {
        self.allowance = self.allowance.saturating_sub(count as u64 * 1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_may_come_at_once_and_then_as_time_allows() {
        let mut rate = Rate::new(10, 0);
        assert_eq!(rate.wait_ms(9, 0), None);
        assert_eq!(rate.wait_ms(10, 0), Some(100));
        rate.spend(10);
        assert_eq!(rate.wait_ms(0, 50), Some(50));
        assert_eq!(rate.wait_ms(0, 100), None);
        assert_eq!(rate.wait_ms(9, 100_000), None);
        assert_eq!(rate.wait_ms(10, 100_000), Some(100));
    }
}
