//! Keeps a daemon small: one heap for all threads, and no pages of code that only the start needed.
//!
//! Left alone, glibc gives each thread an arena of its own and keeps what they freed: several megabytes after full load. The
//! same can be had by `MALLOC_ARENA_MAX=1` in the environment, but nobody would set it. And the kernel maps code in stretches of
//! 64 KiB around what runs, so that after a start most of the program is in the process's account, YAML parser and all.

use std::time::Duration;

use crate::load;

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

/// How often a load is looked at, to see its end.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often what the heap keeps is given back whatever the load.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(30);

/// Gives memory back when a load ends, and now and then, for ever. Sleeps where nothing happens.
pub(super) async fn give_back_after_loads() {
    loop {
        if tokio::time::timeout(GIVE_BACK_EVERY, load::much()).await.is_ok() {
            let mut ending = Ending { last: load::done_bytes(), most: 0 };
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                if ending.has_come(load::done_bytes()) {
                    break;
                }
            }
        }
        give_back();
    }
}

/// Sees a load end.
#[derive(Debug)]
struct Ending {
    /// The bytes done by the last look.
    last: usize,
    /// The most that was done between two looks.
    most: usize,
}

impl Ending {
    /// Whether less than half of what was done between two looks at the height of the load has been done since the last one.
    fn has_come(&mut self, done: usize) -> bool {
        let now = done.wrapping_sub(self.last);
        (self.last, self.most) = (done, self.most.max(now));
        now <= self.most / 2
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
    fn the_end_of_a_load_is_seen_when_half_of_it_is_gone() {
        let mut ending = Ending { last: usize::MAX - 5, most: 0 };
        let mut done = usize::MAX - 5;
        let mut look = |bytes: usize| {
            done = done.wrapping_add(bytes);
            ending.has_come(done)
        };
        assert_eq!([90, 100, 70, 51, 50].map(&mut look), [false, false, false, false, true]);
        let mut idle = Ending { last: 7, most: 0 };
        assert!(idle.has_come(7), "nothing more came at all");
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
