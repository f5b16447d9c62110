//! Where the programs under test are: in `GODWIT_BIN_DIR`, else beside the running test, built first.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// The path of one of our programs.
///
/// # Panics
/// When it is not there and cannot be built.
pub fn path(name: &str) -> PathBuf {
    let path = FOLDER.get_or_init(find).join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

fn find() -> PathBuf {
    if let Some(folder) = std::env::var_os("GODWIT_BIN_DIR") {
        return folder.into();
    }
    let this = std::env::current_exe().expect("a test knows its own path");
    // A test is `target/<profile>/deps/<name>-<hash>`, a program of this crate `target/<profile>/<name>`.
    let mut folder = this.parent().expect("a program has a folder");
    if folder.ends_with("deps") {
        folder = folder.parent().expect("deps has a parent");
    }
    build(folder);
    folder.to_owned()
}

fn build(folder: &Path) {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let target = folder.parent().expect("a profile's folder has a parent");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--profile", profile, "-p", "godwit-agent", "-p", "godwit-gateway", "-p", "godwit-cli"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(built.as_ref().is_ok_and(std::process::ExitStatus::success), "cannot build the programs under test: {built:?}");
}
