//! The documents of the configuration say what the code says. `GODWIT_WRITE_DOCUMENTS=1 cargo test -p godwit-cli --test
//! documents` writes them anew.

use std::path::{Path, PathBuf};

use godwit_mesh::config::{Loader, Sections, to_markdown, to_toml};
use godwit_mesh::manifest::ANNOTATIONS;
use godwit_mesh::manifest::schema::{RESOURCES, Runs};
use godwit_mesh::objects::openapi::crd;

const AGENT_HEAD: &str = "The agent's configuration: every key with its default. Run `godwit-agent --config agent.toml`.\n\
    Each key can also be set by the environment, GODWIT_<SECTION>_<KEY>; docs/configuration.md says more.";

const GATEWAY_HEAD: &str = "The gateway's configuration: every key with its default. Run `godwit-gateway --config gateway.toml`.\n\
    Each key can also be set by the environment, GODWIT_<SECTION>_<KEY>; docs/configuration.md says more.";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Compares a file with what it should be, or writes it where that is asked for.
fn expect(path: &str, wanted: &str) {
    let file = root().join(path);
    if std::env::var_os("GODWIT_WRITE_DOCUMENTS").is_some() {
        std::fs::write(&file, wanted).expect("written");
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    let line = there.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    assert!(
        there == wanted,
        "{path} differs from the code, first at line {}: run this test with GODWIT_WRITE_DOCUMENTS=1",
        line.map_or_else(|| "the end".to_owned(), |line| (line + 1).to_string())
    );
}

#[test]
fn the_explained_files_hold_every_key_with_its_default() {
    expect("config/agent.toml", &to_toml::<godwit_agent::config::Config>(AGENT_HEAD));
    expect("config/gateway.toml", &to_toml::<godwit_gateway::config::Config>(GATEWAY_HEAD));
}

#[test]
fn the_explained_files_load_as_the_defaults() {
    let agent = Loader::new().file(&root().join("config/agent.toml")).expect("read").finish();
    let (agent, _): (godwit_agent::config::Config, _) = agent.expect("valid");
    assert_eq!(agent, Loader::new().finish().expect("defaults").0);
    let gateway = Loader::new().file(&root().join("config/gateway.toml")).expect("read").finish();
    let (gateway, _): (godwit_gateway::config::Config, _) = gateway.expect("valid");
    assert_eq!(gateway, Loader::new().finish().expect("defaults").0);
}

#[test]
fn the_reference_holds_every_key() {
    let path = "docs/configuration.md";
    let text = std::fs::read_to_string(root().join(path)).expect("read");
    let text = between(&text, "<!-- agent -->", &to_markdown::<godwit_agent::config::Config>());
    let text = between(&text, "<!-- gateway -->", &to_markdown::<godwit_gateway::config::Config>());
    expect(path, &text);
}

/// Replaces what stands between a mark and the next `<!-- end -->`.
fn between(text: &str, mark: &str, table: &str) -> String {
    let (before, after) = text.split_once(mark).expect("the mark is there");
    let (_, rest) = after.split_once("<!-- end -->").expect("the end is there");
    format!("{before}{mark}\n{table}\n<!-- end -->{rest}")
}

#[test]
fn the_reference_of_objects_holds_every_kind_and_annotation() {
    let mut kinds = String::from("| kind | API versions | runs | |\n|---|---|---|---|\n");
    for resource in &RESOURCES {
        let versions: Vec<String> = resource.versions.iter().map(|v| format!("`{}/{}`", resource.group, v.name)).collect();
        let runs = if resource.runs == Runs::Yes { "yes" } else { "not yet" };
        kinds.push_str(&format!("| {} | {} | {runs} | {} |\n", resource.name, versions.join(", "), resource.doc));
    }
    let mut annotations = String::from("| annotation | on | value | unit | default | |\n|---|---|---|---|---|---|\n");
    for annotation in &ANNOTATIONS {
        let on: Vec<String> = annotation.kinds.iter().map(ToString::to_string).collect();
        let on = if on.is_empty() { "every kind".to_owned() } else { on.join(", ") };
        annotations.push_str(&format!(
            "| `godwit.dev/{}` | {on} | {} | {} | {} | {} |\n",
            annotation.name, annotation.value, annotation.unit, annotation.default, annotation.doc
        ));
    }
    let path = "docs/reference.md";
    let text = std::fs::read_to_string(root().join(path)).expect("read");
    let text = between(&text, "<!-- kinds -->", kinds.trim_end());
    let text = between(&text, "<!-- annotations -->", annotations.trim_end());
    expect(path, &text);
}

#[test]
fn our_kinds_have_their_crds() {
    for resource in RESOURCES.iter().filter(|r| r.group == "godwit.dev") {
        let yaml = serde_saphyr::to_string(&crd(resource)).expect("YAML");
        let head = "# Made from the table of kinds; a test holds it against the code.\n";
        expect(&format!("config/crds/{}.yaml", resource.plural), &format!("{head}{yaml}"));
    }
}

#[test]
fn every_number_size_and_duration_has_a_range_that_its_default_lies_in() {
    let keys = godwit_agent::config::Config::keys().into_iter().chain(godwit_gateway::config::Config::keys());
    let lacking: Vec<String> = keys
        .filter(|key| matches!(key.kind, "number" | "size" | "duration") && key.range.is_none())
        .map(|key| key.path())
        .collect();
    assert!(lacking.is_empty(), "without a range, `in \"least\" ..= \"most\"`: {lacking:?}");
    // The defaults are read like everything else, so this fails where one is out of its range.
    assert!(Loader::new().finish::<godwit_agent::config::Config>().is_ok());
    assert!(Loader::new().finish::<godwit_gateway::config::Config>().is_ok());
}
