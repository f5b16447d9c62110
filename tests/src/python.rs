//! A Python with the packages that the tests use as clients, in a virtual environment of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();

/// The packages, as pip names them.
const PACKAGES: [&str; 2] = ["paho-mqtt==2.2.0", "cloudevents==2.2.0"];

/// The interpreter, made ready on first use: `GODWIT_TEST_PYTHON`, else an environment beside the built tests. None when that
/// cannot be made, as without a network.
pub fn interpreter() -> Option<&'static Path> {
    PYTHON.get_or_init(find).as_deref()
}

/// The path of a script in `tests/clients`.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("GODWIT_TEST_PYTHON") {
        return Some(path.into());
    }
    let target = std::env::current_exe().ok()?.ancestors().nth(3)?.to_owned();
    let folder = target.join("tests-python");
    let python = folder.join("bin/python");
    let ready = folder.join("ready");
    if std::fs::read_to_string(&ready).is_ok_and(|text| text == PACKAGES.join(" ")) {
        return Some(python);
    }
    succeeds(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    succeeds(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES))?;
    std::fs::write(&ready, PACKAGES.join(" ")).ok()?;
    Some(python)
}

fn succeeds(command: &mut Command) -> Option<()> {
    command.status().ok()?.success().then_some(())
}
