//! What goes onto a board: the sizes of binaries and packages in `dist/`, where `cross/build` and the packaging put them.

use std::path::{Path, PathBuf};

use crate::judge::Figure;

const MB: f64 = 1e6;
/// Cargo's targets and Debian's architectures, with the names of their budgets.
const TARGETS: [(&str, &str, &str, &str); 3] = [
    ("aarch64-unknown-linux-gnu", "arm64", "binary-arm64", "deb-arm64"),
    ("armv7-unknown-linux-gnueabihf", "armhf", "binary-armhf", "deb-armhf"),
    ("x86_64-unknown-linux-gnu", "amd64", "binary-amd64", "deb-amd64"),
];

/// Sizes of the agent's binaries and packages. Those for amd64 have no budget and are told.
pub(crate) fn sizes(dist: &Path) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (target, architecture, binary_name, package_name) in TARGETS {
        let told = architecture == "amd64";
        let path = dist.join(target).join("godwit-agent");
        figures.push(size(binary_name, Some(path.clone()), told, &path));
        let wanted = dist.join(format!("godwit-agent_*_{architecture}.deb"));
        figures.push(size(package_name, package(dist, architecture), told, &wanted));
    }
    figures
}

/// The binary that `cross/build` made for a target.
pub(crate) fn binary(dist: &Path, target: &str, name: &str) -> Option<PathBuf> {
    Some(dist.join(target).join(name)).filter(|path| path.is_file())
}

fn size(name: &'static str, path: Option<PathBuf>, told: bool, wanted: &Path) -> Figure {
    match path.and_then(|path| path.metadata().ok()).map(|data| data.len() as f64 / MB) {
        Some(size) if told => Figure::told(name, size, "MB", "size, amd64"),
        Some(size) => Figure::new(name, size),
        None => Figure::skipped(name, format!("not built: there is no {}", wanted.display())),
    }
}

/// The newest package of the agent for an architecture, in `dist` or a folder in it.
pub(crate) fn package(dist: &Path, architecture: &str) -> Option<PathBuf> {
    let files = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let mut found = files(dist);
    let folders: Vec<PathBuf> = found.iter().filter(|path| path.is_dir()).cloned().collect();
    found.extend(folders.iter().flat_map(|folder| files(folder)));
    let end = format!("_{architecture}.deb");
    found.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("godwit-agent_") && name.ends_with(&end)
    });
    found.into_iter().max_by_key(|path| path.metadata().and_then(|data| data.modified()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::Measured;

    #[test]
    fn packages_are_found_by_name_and_architecture_and_what_is_missing_is_skipped() {
        let dist = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dist.path().join("debs")).expect("made");
        for name in ["godwit-agent_0.1.0_armhf.deb", "godwit-gateway_0.1.0_arm64.deb", "debs/godwit-agent_0.1.0_arm64.deb"]
        {
            std::fs::write(dist.path().join(name), [0; 1000]).expect("written");
        }
        let sizes = sizes(dist.path());
        let of = |name: &str| &sizes.iter().find(|figure| figure.name == name).expect("measured").value;
        assert!(matches!(of("deb-arm64"), Measured::Value(size) if (size - 0.001).abs() < 1e-9));
        assert!(matches!(of("deb-armhf"), Measured::Value(_)));
        assert!(matches!(of("deb-amd64"), Measured::Skipped(_)));
        assert!(matches!(of("binary-arm64"), Measured::Skipped(why) if why.starts_with("not built")));
    }
}
