//! Skipping in the open: a test that cannot run here says why, and `tests/run` counts it.

use std::io::Write as _;

/// Says that the test `name` is skipped and why; also written to the file named by `GODWIT_SKIP_FILE`, which `tests/run` counts.
pub fn skip(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: {why}");
    if let Some(path) = std::env::var_os("GODWIT_SKIP_FILE")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = file.write_all(format!("{name}: {why}\n").as_bytes());
    }
}

/// Whether the tests run as root, which mounts and network namespaces need.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a program is on the path, or in one of the folders for administrators.
#[must_use]
pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|folder| folder.join(name).is_file())
}

/// Returns from the test, counted as skipped, unless it runs as root and the programs named are there.
#[macro_export]
macro_rules! need {
    ($name:literal, root $(, $program:literal)*) => {
        if !$crate::skip::is_root() {
            $crate::skip::skip($name, "needs root");
            return Ok(());
        }
        $crate::need!($name $(, $program)*);
    };
    ($name:literal $(, $program:literal)*) => {
        $(if !$crate::skip::has_program($program) {
            $crate::skip::skip($name, concat!("needs the program ", $program));
            return Ok(());
        })*
    };
}
