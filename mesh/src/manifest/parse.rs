//! From YAML or JSON text, and from a folder of it, to a set.

use std::path::Path;

use serde_json::Value;

use super::error::ManifestError;
use super::object::Object;
use super::set::Manifests;

/// Largest manifest file in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Reads the documents of one YAML or JSON text. `file` is only named in errors. Empty documents are left out, and a `List`
/// stands for its items.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse_str(file: &str, text: &str) -> Result<Vec<Object>, ManifestError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|e| ManifestError::file(file, one_line(&e.to_string())))?;
    let mut objects = Vec::new();
    for (i, document) in documents.into_iter().enumerate() {
        let place = format!("document {}", i + 1);
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind").and_then(Value::as_str) == Some("List") => {
                let Some(Value::Array(items)) = list.remove("items") else {
                    return Err(ManifestError::field(file, &place, "items", "is missing, or no array"));
                };
                for (j, item) in items.into_iter().enumerate() {
                    objects.push(Object::from_value(file, &format!("{place}, item {}", j + 1), item)?);
                }
            }
            document => objects.push(Object::from_value(file, &place, document)?),
        }
    }
    Ok(objects)
}

/// Reads every `*.yaml`, `*.yml` and `*.json` in a folder, in the order of their names, as one set: all or nothing. Hidden
/// files and folders below are left out. Blocks.
///
/// # Errors
/// The first thing that is wrong in any of the files.
pub fn load_dir(dir: &Path) -> Result<Manifests, ManifestError> {
    let folder = dir.display().to_string();
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| ManifestError::file(&folder, e))? {
        let path = entry.map_err(|e| ManifestError::file(&folder, e))?.path();
        let hidden = path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b"."));
        let ours = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if !hidden && ours && path.is_file() {
            files.push(path);
        }
    }
    files.sort();

    let mut objects = Vec::new();
    for path in files {
        let file = path.display().to_string();
        let length = std::fs::metadata(&path).map_err(|e| ManifestError::file(&file, e))?.len();
        if length > MAX_FILE_BYTES {
            return Err(ManifestError::file(
                &file,
                format!("{length} bytes are more than the {MAX_FILE_BYTES} a manifest may have"),
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| ManifestError::file(&file, e))?;
        objects.extend(parse_str(&file, &text)?);
    }
    Manifests::new(objects).map_err(|e| ManifestError { file: if e.file.is_empty() { folder } else { e.file }, ..e })
}

/// What the YAML parser says and where, without the picture of the place that it draws below.
fn one_line(error: &str) -> &str {
    let line = error.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line)
}
