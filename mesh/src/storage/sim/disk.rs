//! The simulated disk as programs see it: every call becomes effects on its state, unless it fails.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::content::MAX_FILE;
use super::cut::{self, CrashStates, Cut};
use super::fault::{Call, Failure, Fault, Faults};
use super::state::{Change, Effect, Inode, State, parent};
use crate::storage::{Storage, StorageFile};

/// After so many effects a state is kept, so that [`SimDisk::at`] has few to apply.
const KEEP_EVERY: usize = 32;

/// A disk in memory. Clones are the same disk; [`SimDisk::at`], [`SimDisk::crash_states`] and [`SimDisk::power_cut`] make
/// new ones, which share memory with this one until they change.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Machine>>);

#[derive(Debug)]
struct Machine {
    state: State,
    log: Vec<Effect>,
    /// The state before effect 0, [`KEEP_EVERY`], twice that …
    kept: Vec<State>,
    faults: Faults,
    capacity: u64,
    lying: bool,
    calls: u64,
    cut: Option<Cut>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new(State::default(), None)
    }
}

impl Machine {
    fn new(mut state: State, cut: Option<Cut>) -> Self {
        state.effects = 0;
        state.dirs.insert("".into());
        Self {
            kept: vec![state.clone()],
            state,
            log: Vec::new(),
            faults: Faults::default(),
            capacity: u64::MAX,
            lying: false,
            calls: 0,
            cut,
        }
    }

    fn happen(&mut self, effect: Effect) {
        self.state.apply(&effect);
        self.log.push(effect);
        if self.log.len().is_multiple_of(KEEP_EVERY) {
            self.kept.push(self.state.clone());
        }
    }

    /// Counts a call; an error if it is to fail.
    fn call(&mut self, call: Call) -> Result<(), Failure> {
        self.calls += 1;
        self.faults.meet(call).map_or(Ok(()), Err)
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.state.used())
    }

    fn find(&self, path: &str) -> io::Result<Inode> {
        self.state.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, inode: Inode, data: &[u8], at: u64) {
        if !data.is_empty() {
            self.happen(Effect::Change(inode, Change::Write { at, data: data.into() }));
        }
    }
}

impl SimDisk {
    /// An empty disk of unlimited size.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn from_state(state: State, cut: Option<Cut>) -> Self {
        Self(Arc::new(Mutex::new(Machine::new(state, cut))))
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many effects the disk has seen: the instants that [`SimDisk::at`] can go back to are 0 to this.
    ///
    /// Reads and failed calls have no effect, with two exceptions: a failed sync, and the part of a failed write that came
    /// through.
    #[must_use]
    pub fn effects(&self) -> usize {
        self.machine().log.len()
    }

    /// How many calls the disk has had, reads and failed ones included.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.machine().calls
    }

    /// The disk, still under power, as it was after its first `effects` effects (now, if there were not so many).
    #[must_use]
    pub fn at(&self, effects: usize) -> Self {
        Self::from_state(self.state_at(effects), None)
    }

    fn state_at(&self, effects: usize) -> State {
        let machine = self.machine();
        let effects = effects.min(machine.log.len());
        let base = effects / KEEP_EVERY;
        let mut state = machine.kept[base].clone();
        for effect in &machine.log[base * KEEP_EVERY..effects] {
            state.apply(effect);
        }
        state
    }

    /// All that may be found after a power cut now: exhaustively while at most 8 changes are uncertain, else 256 states drawn
    /// by `seed` (which also chooses where writes over many sectors are torn).
    #[must_use]
    pub fn crash_states(&self, seed: u64) -> CrashStates {
        CrashStates::new(Arc::new(self.machine().state.clone()), seed)
    }

    /// One state that may be found after a power cut now, drawn by `seed`.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        cut::one(&self.machine().state, seed)
    }

    /// The state after a power cut now in which nothing uncertain survived.
    #[must_use]
    pub fn power_cut_losing_all(&self) -> Self {
        cut::plain(&self.machine().state, false)
    }

    /// The state after a power cut now in which all changes survived.
    #[must_use]
    pub fn power_cut_keeping_all(&self) -> Self {
        cut::plain(&self.machine().state, true)
    }

    /// What the power cut that led to this disk did to each uncertain change; empty if there was none.
    #[must_use]
    pub fn story(&self) -> String {
        self.machine().cut.as_ref().map(Cut::tell).unwrap_or_default()
    }

    /// Lets calls fail.
    pub fn inject(&self, fault: Fault) {
        self.machine().faults.add(fault);
    }

    /// Lets all calls succeed again.
    pub fn clear_faults(&self) {
        self.machine().faults.clear();
    }

    /// Gives the disk this many bytes, in blocks of 4 KiB; less than is in use means that nothing more fits. A removed file
    /// gives its space back at once, whether or not it is open.
    pub fn set_capacity(&self, bytes: u64) {
        self.machine().capacity = bytes;
    }

    /// While lying, `sync_data` and `sync_dir` return `Ok` and make nothing durable.
    pub fn set_lying(&self, lying: bool) {
        self.machine().lying = lying;
    }

    /// The bytes of a file as programs see them, `None` if there is no such file.
    #[must_use]
    pub fn contents(&self, path: &str) -> Option<Vec<u8>> {
        let machine = self.machine();
        let file = machine.state.files.get(machine.state.names.get(path)?)?;
        let mut bytes = vec![0; usize::try_from(file.cache.len()).ok()?];
        file.cache.read(&mut bytes, 0);
        Some(bytes)
    }

    /// All files, by path.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.machine().state.names.keys().map(|name| String::from(&**name)).collect()
    }

    /// Space taken by all files, in bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.machine().state.used()
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk after {} effects", self.effects())
    }
}

impl Storage for SimDisk {
    fn open(&self, path: &str, create: bool) -> io::Result<Arc<dyn StorageFile>> {
        let mut machine = self.machine();
        machine.call(Call::Open).map_err(Failure::error)?;
        let inode = match machine.state.names.get(path) {
            Some(inode) => *inode,
            None if create && machine.state.dirs.contains(parent(path)) => {
                let inode = machine.state.next_inode;
                machine.happen(Effect::Create(path.into()));
                inode
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut machine = self.machine();
        machine.call(Call::List).map_err(Failure::error)?;
        if !machine.state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = machine.state.names.keys().filter(|path| parent(path) == dir);
        Ok(inside.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        let mut machine = self.machine();
        machine.call(Call::MakeDir).map_err(Failure::error)?;
        for (end, _) in dir.match_indices('/').chain([(dir.len(), "")]) {
            if !machine.state.dirs.contains(&dir[..end]) {
                machine.happen(Effect::MakeDir(dir[..end].into()));
            }
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut machine = self.machine();
        machine.call(Call::Rename).map_err(Failure::error)?;
        machine.find(from)?;
        if !machine.state.dirs.contains(parent(to)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if from != to {
            machine.happen(Effect::Rename { from: from.into(), to: to.into() });
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut machine = self.machine();
        machine.call(Call::Remove).map_err(Failure::error)?;
        machine.find(path)?;
        machine.happen(Effect::Remove(path.into()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut machine = self.machine();
        machine.call(Call::SyncDir).map_err(Failure::error)?;
        let effect = if machine.lying { Effect::SyncLied } else { Effect::SyncDir(dir.into()) };
        machine.happen(effect);
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.machine().free())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: Inode,
}

impl StorageFile for SimFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let mut machine = self.disk.machine();
        machine.call(Call::Read).map_err(Failure::error)?;
        Ok(machine.state.files.get(&self.inode).map_or(0, |file| file.cache.read(buf, at)))
    }

    fn write_all_at(&self, buf: &[u8], at: u64) -> io::Result<()> {
        let mut machine = self.disk.machine();
        let end = within_limit(at.saturating_add(buf.len() as u64))?;
        if let Err(failure) = machine.call(Call::Write) {
            if failure == Failure::NoSpace {
                machine.write(self.inode, &buf[..buf.len() / 2], at);
            }
            return Err(failure.error());
        }
        let free = machine.free();
        let fit = machine.state.files.get(&self.inode).map_or(0, |file| file.cache.fitting(at..end, free));
        let fit = usize::try_from(fit).unwrap_or(buf.len());
        machine.write(self.inode, &buf[..fit], at);
        if fit < buf.len() { Err(Failure::NoSpace.error()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.disk.machine();
        if let Err(failure) = machine.call(Call::Sync) {
            machine.happen(Effect::SyncFailed(self.inode));
            return Err(failure.error());
        }
        let effect = if machine.lying { Effect::SyncLied } else { Effect::Sync(self.inode) };
        machine.happen(effect);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut machine = self.disk.machine();
        within_limit(len)?;
        machine.call(Call::SetLen).map_err(Failure::error)?;
        machine.happen(Effect::Change(self.inode, Change::SetLen(len)));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.machine().state.files.get(&self.inode).map_or(0, |file| file.cache.len()))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut machine = self.disk.machine();
        within_limit(len)?;
        machine.call(Call::Allocate).map_err(Failure::error)?;
        let free = machine.free();
        let fit = machine.state.files.get(&self.inode).map_or(0, |file| file.cache.fitting(0..len, free));
        if fit < len {
            return Err(Failure::NoSpace.error());
        }
        machine.happen(Effect::Change(self.inode, Change::Allocate(len)));
        Ok(())
    }
}

fn within_limit(len: u64) -> io::Result<u64> {
    if len <= MAX_FILE { Ok(len) } else { Err(io::ErrorKind::FileTooLarge.into()) }
}
