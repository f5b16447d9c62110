//! A configuration file in TOML, with the sections that agent and gateway share.
#![no_main]

use godwit_mesh::config::{Auth, Http, Loader, Log, Storage};
use godwit_mesh::sections;
use libfuzzer_sys::fuzz_target;

sections! {
    /// The shared sections.
    pub struct Config {
        /// The HTTP listener.
        http: Http,
        /// Who may come in.
        auth: Auth,
        /// How brokers keep events.
        storage: Storage,
        /// Logs.
        log: Log,
    }
}

fuzz_target!(|input: &[u8]| {
    let path = std::env::temp_dir().join(format!("godwit-fuzz-{}-config", std::process::id()));
    std::fs::write(&path, input).expect("a file can be written");
    if let Ok(loader) = Loader::new().file(&path) {
        let _ = loader.finish::<Config>();
    }
});
