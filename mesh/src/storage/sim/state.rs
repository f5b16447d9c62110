//! What a simulated disk knows at one instant: what programs see, and what is certain to outlive a power cut.
//!
//! Every call on the disk becomes [`Effect`]s, and the state is nothing but the effects applied in order; that is what makes
//! each earlier instant cheap to come back to. A file has its `cache` (what is read) and its `firm` bytes (what is on the
//! platter for certain), with the changes between them in order. The same goes for names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::content::Content;

/// A file, whatever its name.
pub(super) type Inode = u32;

/// One thing that happened to the disk.
#[derive(Debug, Clone)]
pub(super) enum Effect {
    MakeDir(Arc<str>),
    /// A new name for a new file.
    Create(Arc<str>),
    Rename {
        from: Arc<str>,
        to: Arc<str>,
    },
    Remove(Arc<str>),
    /// The names in this folder are durable.
    SyncDir(Arc<str>),
    Change(Inode, Change),
    /// The file's changes are durable.
    Sync(Inode),
    /// A sync failed: the changes are marked clean, and whether they are on the platter nobody knows.
    SyncFailed(Inode),
    /// A sync of a file or folder that the disk lied about.
    SyncLied,
}

/// One change of a file's bytes.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { at: u64, data: Arc<[u8]> },
    SetLen(u64),
    Allocate(u64),
}

impl Change {
    pub(super) fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { at, data } => content.write(data, *at),
            Self::SetLen(len) => content.set_len(*len),
            Self::Allocate(len) => content.allocate(*len),
        }
    }
}

/// What a power cut may do with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Certainty {
    /// Not synced: may be there or not, and the next sync settles it.
    Open,
    /// Its sync failed: may be there or not, and no later sync makes it certain.
    Doubtful,
    /// Synced, but kept in the list because something doubtful lies below it.
    Firm,
}

/// A change that is not yet folded into the firm bytes.
#[derive(Debug, Clone)]
pub(super) struct Later {
    pub(super) change: Change,
    pub(super) certainty: Certainty,
    /// Its place among all effects of the disk.
    pub(super) order: usize,
}

/// One file.
#[derive(Debug, Clone, Default)]
pub(super) struct File {
    pub(super) cache: Content,
    pub(super) firm: Content,
    pub(super) later: Vec<Later>,
}

impl File {
    fn settle(&mut self) {
        for later in &mut self.later {
            if later.certainty == Certainty::Open {
                later.certainty = Certainty::Firm;
            }
        }
        let doubt = self.later.iter().position(|l| l.certainty != Certainty::Firm).unwrap_or(self.later.len());
        for later in self.later.drain(..doubt) {
            later.change.apply(&mut self.firm);
        }
    }
}

/// A change of names that is not yet durable.
#[derive(Debug, Clone)]
pub(super) struct NameChange {
    pub(super) inode: Inode,
    pub(super) kind: NameKind,
    /// Its place among all effects of the disk.
    pub(super) order: usize,
}

/// What happened to the name of a file.
#[derive(Debug, Clone)]
pub(super) enum NameKind {
    Create(Arc<str>),
    Rename { from: Arc<str>, to: Arc<str> },
    Remove(Arc<str>),
}

impl NameChange {
    /// Applies the change to durable names: a file has one name at most, so it loses whichever it has.
    pub(super) fn apply(&self, names: &mut BTreeMap<Arc<str>, Inode>) {
        names.retain(|_, inode| *inode != self.inode);
        match &self.kind {
            NameKind::Create(name) | NameKind::Rename { to: name, .. } => {
                names.insert(name.clone(), self.inode);
            }
            NameKind::Remove(_) => {}
        }
    }

    fn is_in(&self, dir: &str) -> bool {
        match &self.kind {
            NameKind::Create(name) | NameKind::Rename { to: name, .. } | NameKind::Remove(name) => parent(name) == dir,
        }
    }
}

/// The folder that a path lies in.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The disk at one instant.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// How many effects were applied.
    pub(super) effects: usize,
    pub(super) dirs: BTreeSet<Arc<str>>,
    /// Names as programs see them.
    pub(super) names: BTreeMap<Arc<str>, Inode>,
    /// Names that outlive a power cut for certain, unless something in `name_changes` becomes durable.
    pub(super) firm_names: BTreeMap<Arc<str>, Inode>,
    pub(super) name_changes: Vec<NameChange>,
    pub(super) files: BTreeMap<Inode, File>,
    /// The number that the next file made will have.
    pub(super) next_inode: Inode,
}

impl State {
    pub(super) fn apply(&mut self, effect: &Effect) {
        let order = self.effects;
        self.effects += 1;
        match effect {
            Effect::MakeDir(dir) => {
                self.dirs.insert(dir.clone());
            }
            Effect::Create(name) => {
                let inode = self.next_inode;
                self.next_inode += 1;
                self.files.insert(inode, File::default());
                self.names.insert(name.clone(), inode);
                self.name_changes.push(NameChange { inode, kind: NameKind::Create(name.clone()), order });
            }
            Effect::Rename { from, to } => {
                if let Some(inode) = self.names.remove(from) {
                    self.names.insert(to.clone(), inode);
                    let kind = NameKind::Rename { from: from.clone(), to: to.clone() };
                    self.name_changes.push(NameChange { inode, kind, order });
                }
            }
            Effect::Remove(name) => {
                if let Some(inode) = self.names.remove(name) {
                    self.name_changes.push(NameChange { inode, kind: NameKind::Remove(name.clone()), order });
                }
            }
            Effect::SyncDir(dir) => {
                let firm = &mut self.firm_names;
                self.name_changes.retain(|change| {
                    let synced = change.is_in(dir);
                    if synced {
                        change.apply(firm);
                    }
                    !synced
                });
            }
            Effect::Change(inode, change) => {
                if let Some(file) = self.files.get_mut(inode) {
                    change.apply(&mut file.cache);
                    file.later.push(Later { change: change.clone(), certainty: Certainty::Open, order });
                }
            }
            Effect::Sync(inode) => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.settle();
                }
            }
            Effect::SyncFailed(inode) => {
                let later = self.files.get_mut(inode).into_iter().flat_map(|file| &mut file.later);
                for change in later.filter(|l| l.certainty == Certainty::Open) {
                    change.certainty = Certainty::Doubtful;
                }
            }
            Effect::SyncLied => {}
        }
    }

    /// Space taken by the files that have a name, in bytes.
    pub(super) fn used(&self) -> u64 {
        self.names.values().filter_map(|inode| self.files.get(inode)).map(|file| file.cache.used()).sum()
    }
}
