//! Keeps glibc's heap small: one arena for all threads, and what is freed goes back to the system.
//!
//! Left alone, glibc gives each thread an arena of its own and keeps what they freed: several megabytes after full load. The
//! same can be had by `MALLOC_ARENA_MAX=1` in the environment, but nobody would set it.

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
