//! What a durable commit costs in a given folder, by how the blocks under it were made, and what the journal makes of it.
//!
//! `cargo run --release -p godwit-mesh --example segment_cost -- FOLDER`

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_mesh::journal::{Journal, Options, Refused};
use godwit_mesh::storage::Disk;

const SEGMENT: u64 = 8 << 20;
const COMMITS: usize = 300;
const EVENT: usize = 300;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("name a folder on the file system to measure")?;
    let folder = Path::new(&folder).join("segment-cost");
    std::fs::create_dir_all(&folder)?;
    println!("| blocks | one 4 KiB commit, median | written to the device per commit |\n|---|---|---|");
    let fresh = |name: &str| OpenOptions::new().create(true).truncate(true).read(true).write(true).open(folder.join(name));
    report("appended to an empty file", &fresh("appended")?)?;
    let file = fresh("allocated")?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT)?;
    file.sync_all()?;
    report("reserved by fallocate, never written", &file)?;
    report("the same, recycled", &file)?;
    let file = fresh("zeros")?;
    let start = Instant::now();
    for at in (0..SEGMENT).step_by(1 << 16) {
        file.write_all_at(&[0; 1 << 16], at)?;
    }
    file.sync_all()?;
    let filling = start.elapsed();
    report("filled with zeros before", &file)?;
    println!("\nfilling a segment of 8 MiB with zeros took {filling:?}\n");
    println!("| journal, {EVENT} B events | events/s | written to the device per event |\n|---|---|---|");
    for in_flight in [1, 100, 1000] {
        journal(&folder, in_flight)?;
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn report(what: &str, file: &File) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    let before = written();
    for n in 0..COMMITS {
        let start = Instant::now();
        file.write_all_at(&[7; 4096], n as u64 * 4096)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    println!("| {what} | {:?} | {} B |", times[COMMITS / 2], (written() - before) / COMMITS as u64);
    Ok(())
}

fn journal(folder: &Path, in_flight: usize) -> Result<(), Box<dyn Error>> {
    let dir = format!("journal-{in_flight}");
    // Small, so that segments are being recycled when it counts.
    let options = Options { max_bytes: 5 * SEGMENT, ..Options::default() };
    let journal = Journal::open(Arc::new(Disk::new(folder)?), &dir, options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = |time: Duration| {
        runtime.block_on(async {
            let (start, mut events) = (Instant::now(), 0_u64);
            let mut waiting = std::collections::VecDeque::new();
            while start.elapsed() < time {
                while waiting.len() < in_flight {
                    match journal.append(|a| a.event(|out| out.extend_from_slice(&[7; EVENT]))) {
                        Ok(receipt) => waiting.push_back(receipt),
                        Err(Refused::Busy) => journal.room().await,
                        Err(refused) => return Err(refused),
                    }
                }
                if let Some(receipt) = waiting.pop_front() {
                    receipt.await?;
                    events += 1;
                }
            }
            for receipt in waiting {
                receipt.await?;
            }
            Ok(events as f64 / start.elapsed().as_secs_f64())
        })
    };
    run(Duration::from_secs(2))?;
    let (before, offset) = (written(), journal.next_offset());
    let rate = run(Duration::from_secs(3))?;
    let bytes = (written() - before) / journal.next_offset().since(offset).max(1);
    println!("| {in_flight} in flight | {rate:.0} | {bytes} B |");
    runtime.block_on(journal.close());
    Ok(())
}

/// Bytes written to the busiest block device since the machine started.
fn written() -> u64 {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let sectors = devices.filter_map(|device| {
        let stat = std::fs::read_to_string(device.path().join("stat")).ok()?;
        stat.split_whitespace().nth(6)?.parse::<u64>().ok()
    });
    sectors.max().unwrap_or(0) * 512
}
