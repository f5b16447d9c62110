//! Keeps a daemon small: one heap for all threads, and no pages of code that only the start needed.
//!
//! Left alone, glibc gives each thread an arena of its own and keeps what they freed: several megabytes after full load. The
//! same can be had by `MALLOC_ARENA_MAX=1` in the environment, but nobody would set it. And the kernel maps code in stretches of
//! 64 KiB around what runs, so that after a start most of the program is in the process's account, YAML parser and all.

use std::time::Duration;

/// Sets the heap up. Call it first in `main`, before any other thread exists. Does nothing where the C library is not glibc.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_small() {
    // Large buffers are mapped and unmapped; a fixed threshold stops glibc from raising it as buffers come and go.
    const MAPPED_FROM_BYTES: libc::c_int = 128 << 10;
    const TRIM_BYTES: libc::c_int = 128 << 10;

    for (parameter, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_MMAP_THRESHOLD, MAPPED_FROM_BYTES), (libc::M_TRIM_THRESHOLD, TRIM_BYTES)]
    {
        // SAFETY: mallopt takes two integers and touches nothing but the allocator's own settings under its own lock; an
        // unknown parameter is answered by 0 and changes nothing.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(parameter, value);
        }
    }
}

/// Sets the heap up: nothing to do with this C library.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_small() {}

/// Gives back what the heap keeps between pieces in use: after a burst of connections that can be most of it. To be called now
/// and then; it costs a walk through what is free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back() {
    // SAFETY: malloc_trim takes a number and touches only what is free, under the allocator's own lock.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back what the heap keeps: nothing to do with this C library.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back() {}

/// Processor time that this process has used.
pub(super) fn process_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Sees a load end: what it made the heap hold is given back then, not only when its turn comes.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// The processor time at the last look, and what was used between the last two.
    last: Duration,
    used: Duration,
}

impl Load {
    /// Whether the process, busy for a quarter of a processor or more between the last two looks, has done less than half of that
    /// since. `time` is its processor time by now, `every` the time between looks.
    pub(super) fn fell(&mut self, time: Duration, every: Duration) -> bool {
        let used = time.saturating_sub(self.last);
        let fell = self.used >= every / 4 && used < self.used / 2;
        (self.last, self.used) = (time, used);
        fell
    }
}

/// Gives the program's code pages back to the page cache; what runs again is mapped again without reading the disk, as long as
/// memory is not short. Call it once the start is done. Failing costs nothing but the pages.
#[cfg(target_os = "linux")]
pub fn forget_start() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let Ok(program) = std::env::current_exe() else { return };
    let program = program.to_string_lossy();
    let code = |line: &&str| line.contains(" r-xp ") && line.ends_with(&*program);
    for (start, end) in maps.lines().filter(code).filter_map(range) {
        // SAFETY: the range is one whole mapping of our own file, private, executable and never writable, so that no page of it
        // differs from the file. Dropping such pages changes nothing that can be read: the next access maps the same bytes.
        #[allow(unsafe_code)]
        unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(start), end - start, libc::MADV_DONTNEED);
        }
    }
}

/// Gives the program's code pages back: nothing to do on this system.
#[cfg(not(target_os = "linux"))]
pub fn forget_start() {}

/// The addresses of a line of `/proc/self/maps`: `start-end …`, in hexadecimal.
#[cfg(target_os = "linux")]
fn range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod load_tests {
    use super::*;

    #[test]
    fn the_end_of_a_load_is_seen_once_and_idling_never() {
        let mut load = Load::default();
        let mut time = Duration::ZERO;
        let mut look = |ms| {
            time += Duration::from_millis(ms);
            load.fell(time, Duration::from_secs(1))
        };
        let seen: Vec<bool> = [10, 5, 900, 950, 700, 600, 100, 5, 0, 0].into_iter().map(&mut look).collect();
        assert_eq!(seen, [false, false, false, false, false, false, true, false, false, false]);
        assert!(process_time() > Duration::ZERO);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_on_when_its_start_is_forgotten() {
        forget_start();
        assert_eq!(range("55d0-55f0 r-xp 00000000 fe:00 12 /x"), Some((0x55d0, 0x55f0)));
        assert_eq!(range("nonsense"), None);
    }
}
