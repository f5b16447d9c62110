//! The cases of the CESQL test kit, read from the shared folder (`GODWIT_SHARED`, else `shared` beside the repository). Without
//! them the test says so and is skipped.

use std::path::PathBuf;

use godwit_mesh::filter::cesql::tck::File;

/// The one case that contradicts the text of the specification (3.7: an Integer casts to Boolean), which we follow.
const AGAINST_THE_TEXT: (&str, &str) = ("Not operator", "Invalid int cast");

#[test]
fn the_cases_of_the_test_kit_hold() {
    let shared = match std::env::var_os("GODWIT_SHARED") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let folder = shared.join("conformance/cesql");
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => return eprintln!("skipped: {}: {error}", folder.display()),
    };
    let (mut passed, mut failures) = (0, Vec::new());
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let file = File::read(&std::fs::read_to_string(&path).expect("readable")).expect("a file of the kit");
        for case in &file.tests {
            let result = case.run();
            if (&*file.name, &*case.name) == AGAINST_THE_TEXT {
                assert!(result.is_err(), "the exception is none any more");
                continue;
            }
            match result {
                Ok(()) => passed += 1,
                Err(why) => failures.push(format!("{}: {}: {}: {why}", file.name, case.name, case.expression)),
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed > 200, "only {passed} cases were found");
}
