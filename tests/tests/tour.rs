//! Promise: the samples of Knative's getting-started tour run on an agent as Knative's documentation writes them, step by step as
//! `docs/tour.md` tells it, each event at its subscribers once, across a kill, in a small board's memory. The page is what is run.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use godwit_tests::footprint::settled_kib;
use godwit_tests::guide::Reader;
use godwit_tests::lab;
use godwit_tests::{binaries, ports, skip};

const PAGE: &str = include_str!("../../docs/tour.md");

/// Where the tour ends; everything still runs there.
const END: &str = "To end the tour";

/// The most memory (PSS) that an agent may have at the end.
const MEMORY_KIB: u64 = 10_000_000 / 1024;

#[test]
fn the_tour_of_knatives_samples() -> Result<()> {
    godwit_tests::need!("the_tour_of_knatives_samples", "curl", "python3");
    lab::run(|lab| {
        let mut reader = Reader::new(&lab.folder("tour")?, lab.path());
        for port in ["8080", "1883", "9001", "9002", "9003"] {
            reader.instead(port, &ports::free().to_string());
        }
        let programs = binaries::path("godwit-agent").parent().context("a folder")?.display().to_string();
        reader.set("PATH", &format!("{programs}:{}", std::env::var("PATH")?));
        // What the page leaves to the default is another port here.
        let server = reader.here("http://127.0.0.1:8080");
        reader.set("GODWIT_SERVER", &server);

        let rest = reader.follow(PAGE, Some(END))?;
        let kib = settled_kib(reader.running("agent")?)?;
        eprintln!("the agent has {kib} KiB (PSS) at the end of the tour");
        if Path::new(&programs).ends_with("debug") {
            skip::skip("the_tour_of_knatives_samples", "memory is that of an optimised program: set GODWIT_BIN_DIR");
        } else {
            ensure!(kib <= MEMORY_KIB, "{kib} KiB at the end of the tour, at most {MEMORY_KIB}");
        }
        reader.follow(rest, None)?;
        Ok(())
    })
}
