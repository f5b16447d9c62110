//! From YAML or JSON text, and from a folder of it, to a set.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::ManifestError;
use super::object::{Object, label};
use super::set::{MAX_OBJECTS, Manifests};

/// Largest manifest file in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Stack for the YAML library, which calls itself for each of the 64 levels that it allows, and more than once; our own threads have
/// much less.
const YAML_STACK_BYTES: usize = 4 << 20;

/// One document of a file, or one item of a list in it, as it was written.
#[derive(Debug)]
pub struct Document {
    /// Where it stands, as in `document 3`.
    pub place: String,
    /// The document.
    pub value: Value,
}

impl Document {
    /// `Kind namespace/name`, as far as it has them; else its place.
    #[must_use]
    pub fn label(&self) -> String {
        label(&self.value, &self.place)
    }
}

/// Takes one YAML or JSON text apart. `file` is only named in errors. Empty documents are left out, and a `List` stands for its
/// items.
///
/// # Errors
/// When the text is neither YAML nor JSON, or a list has no items.
pub fn documents(file: &str, text: &str) -> Result<Vec<Document>, ManifestError> {
    let parsed = yaml(text).map_err(|why| ManifestError::file(file, one_line(&why)))?;
    let mut found = Vec::new();
    for (i, document) in parsed.into_iter().enumerate() {
        let place = format!("document {}", i + 1);
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind").and_then(Value::as_str) == Some("List") => {
                let Some(Value::Array(items)) = list.remove("items") else {
                    return Err(ManifestError::field(file, &place, "items", "is missing, or no array"));
                };
                let items = items.into_iter().enumerate();
                found.extend(items.map(|(j, value)| Document { place: format!("{place}, item {}", j + 1), value }));
            }
            value => found.push(Document { place, value }),
        }
    }
    Ok(found)
}

/// The values of a YAML text.
fn yaml(text: &str) -> Result<Vec<Value>, String> {
    let read = || {
        // A file may hold a whole set; other bounds against hostile YAML are the library's.
        let budget = serde_saphyr::budget! { max_documents: MAX_OBJECTS, max_nodes: 40 * MAX_OBJECTS };
        let read = serde_saphyr::from_multiple_with_options(text, serde_saphyr::options! { budget: budget });
        read.map_err(|e| e.to_string())
    };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("yaml".to_owned()).stack_size(YAML_STACK_BYTES);
        let reader = reader.spawn_scoped(scope, read).map_err(|e| format!("starting a thread to read it: {e}"))?;
        reader.join().map_err(|_| "the YAML library failed on it".to_owned())?
    })
}

/// Reads the objects of one YAML or JSON text; see [`documents`].
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_str(file: &str, text: &str) -> Result<Vec<Object>, ManifestError> {
    documents(file, text)?.into_iter().map(|d| Object::from_value(file, &d.place, d.value)).collect()
}

/// The manifests of a folder: every `*.yaml`, `*.yml` and `*.json` in the order of their names. Hidden files and folders below
/// are left out. Blocks.
///
/// # Errors
/// When the folder cannot be read.
pub fn manifest_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        let ours = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if !hidden && ours && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Reads one manifest file whole. Blocks.
///
/// # Errors
/// When it cannot be read or is larger than 4 MiB.
pub fn read_file(path: &Path) -> Result<String, ManifestError> {
    let file = path.display().to_string();
    let length = std::fs::metadata(path).map_err(|e| ManifestError::file(&file, e))?.len();
    if length > MAX_FILE_BYTES {
        let why = format!("{length} bytes are more than the {MAX_FILE_BYTES} a manifest may have");
        return Err(ManifestError::file(&file, why));
    }
    std::fs::read_to_string(path).map_err(|e| ManifestError::file(&file, e))
}

/// Reads the manifests of a folder (see [`manifest_files`]) as one set: all or nothing. Blocks.
///
/// # Errors
/// The first thing that is wrong in any of the files.
pub fn load_dir(dir: &Path) -> Result<Manifests, ManifestError> {
    let folder = dir.display().to_string();
    let mut objects = Vec::new();
    for path in manifest_files(dir).map_err(|e| ManifestError::file(&folder, e))? {
        objects.extend(parse_str(&path.display().to_string(), &read_file(&path)?)?);
    }
    Manifests::new(objects).map_err(|e| ManifestError { file: if e.file.is_empty() { folder } else { e.file }, ..e })
}

/// What the YAML parser says and where, without the picture of the place that it draws below.
fn one_line(error: &str) -> &str {
    let line = error.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line)
}
