//! The manifests of Knative's own documentation, read from the shared folder (`GODWIT_SHARED`, else `shared` beside the
//! repository): those that are right are taken, those that are wrong are refused with the field named. Its CRDs say what else a
//! field may be. Without the folder the tests say so and are skipped.

use std::path::{Path, PathBuf};

use godwit_mesh::manifest::schema::{RESOURCES, Runs, Shape, Type};
use godwit_mesh::manifest::{Kind, Object, Strictness, documents, manifest_files, read_file};
use serde_json::Value;

fn folder(name: &str) -> Option<PathBuf> {
    let shared = match std::env::var_os("GODWIT_SHARED") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let path = shared.join("conformance/knative").join(name);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}

fn values(path: &Path) -> Vec<Value> {
    let text = read_file(path).expect("readable");
    documents(&path.display().to_string(), &text).expect("YAML").into_iter().map(|d| d.value).collect()
}

#[test]
fn every_documented_manifest_is_taken() {
    let Some(folder) = folder("") else { return };
    let mut taken = 0;
    for path in manifest_files(&folder).expect("a folder") {
        for value in values(&path) {
            let name = format!("{}: {}", path.display(), value["metadata"]["name"]);
            let object = Object::read("f", value, Strictness::Strict).unwrap_or_else(|e| panic!("{name}: {:?}", e.all()));
            let runs = object.kind().resource().runs == Runs::Yes;
            assert!(runs || object.warnings().iter().any(|w| w.contains("NotImplemented")), "{name}");
            // What is served is valid too, and stays what it is.
            let again = Object::read("f", object.current(), Strictness::Strict).expect("valid with its defaults");
            assert_eq!(again.current(), object.current(), "{name}");
            taken += 1;
        }
    }
    assert!(taken >= 57, "{taken} manifests");
}

#[test]
fn every_wrong_manifest_is_refused_with_its_field() {
    let Some(folder) = folder("refused") else { return };
    let mut fields = Vec::new();
    for path in manifest_files(&folder).expect("a folder") {
        for value in values(&path) {
            let name = value["metadata"]["name"].to_string();
            let rejected = Object::read("f", value, Strictness::Strict).expect_err(&name);
            fields.extend(rejected.all().into_iter().map(|e| e.field));
        }
    }
    assert_eq!(fields, ["spec.filter.subscriber", "spec.subscriber", "spec.filters"]);
}

/// Fields of Knative's CRD that our shape does not have.
fn unknown_to_us(shape: &Shape, crd: &Value, at: &str, missing: &mut Vec<String>) {
    for (name, property) in crd["properties"].as_object().into_iter().flatten() {
        let path = format!("{at}.{name}");
        let Some(field) = shape.fields.iter().find(|f| f.name == name) else {
            missing.push(path);
            continue;
        };
        let (mut ty, mut property) = (field.ty, property);
        if let (Type::List(inner), true) = (ty, property["type"] == "array") {
            (ty, property) = (*inner, &property["items"]);
        }
        let word = match ty {
            Type::Text | Type::OneOf(_) | Type::Duration | Type::Time => "string",
            Type::Integer(_) | Type::Long => "integer",
            Type::Boolean => "boolean",
            Type::Map(_) | Type::AnyObject | Type::Object(_) => "object",
            Type::List(_) => "array",
            Type::Any => continue,
        };
        assert_eq!(property["type"], word, "{path}");
        if let Type::Object(inner) = ty {
            unknown_to_us(inner, property, &path, missing);
        }
    }
}

#[test]
fn our_kinds_have_every_field_column_and_name_of_knatives_crds() {
    let Some(folder) = folder("crds") else { return };
    let mut seen = 0;
    for path in manifest_files(&folder).expect("a folder") {
        for crd in values(&path) {
            let (spec, names) = (&crd["spec"], &crd["spec"]["names"]);
            let ours = RESOURCES.iter().find(|r| spec["group"] == r.group && names["kind"] == r.name);
            let ours = ours.unwrap_or_else(|| panic!("{names}"));
            assert_eq!(names["plural"], ours.plural);
            assert_eq!(names["singular"], ours.singular());
            assert_eq!(names["categories"], Value::from(ours.categories.to_vec()), "{}", ours.name);
            if names["shortNames"].is_array() {
                assert_eq!(names["shortNames"], Value::from(ours.short.to_vec()), "{}", ours.name);
            }
            for version in spec["versions"].as_array().expect("versions") {
                let name = version["name"].as_str().expect("a name");
                let known = ours.version(name).unwrap_or_else(|| panic!("{} {name}", ours.name));
                let mut missing = Vec::new();
                unknown_to_us(
                    known.spec,
                    &version["schema"]["openAPIV3Schema"]["properties"]["spec"],
                    "spec",
                    &mut missing,
                );
                assert!(missing.is_empty(), "{} {name}: {missing:?}", ours.name);
                let columns = version["additionalPrinterColumns"].as_array().expect("columns");
                let theirs: Vec<_> =
                    columns.iter().filter_map(|c| Some((c["name"].as_str()?, c["jsonPath"].as_str()?))).collect();
                let normal = |path: &str| path.replace('\'', "\"");
                let ours: Vec<_> = known.columns.iter().map(|c| (c.name, normal(c.path))).collect();
                let theirs: Vec<_> = theirs.into_iter().map(|(n, p)| (n, normal(p))).collect();
                assert_eq!(ours, theirs);
                seen += 1;
            }
        }
    }
    assert!(seen >= 16, "{seen} versions; {} kinds", Kind::COUNT);
}
