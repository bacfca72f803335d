//! What a node keeps on disk: the last state in force, and beside it the sequence numbers that are reserved (`ledger.rs`).
//!
//! A node that is started again goes on with both when the controller is away. One node at a time: a lock beside the file is held
//! as long as the node lives.

mod atomic_file;
mod ledger;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::{Flock, FlockArg};
use offload_rules::forwarding::{Sa, SaDirection, Snapshot, State};
use proto::json::{self, Defaults};

pub use self::ledger::LedgerError;
use self::{
    atomic_file::{create_new, folder_of, replace, with_suffix},
    ledger::Place,
};
use super::{
    encode,
    sequences::{NumbersUnknown, Sequences},
};
use crate::replay::{self, ReplayError};

/// Why a file cannot keep the last state.
#[derive(Debug, thiserror::Error)]
pub enum LastStateError {
    /// Nothing can be kept where there is no folder.
    #[error("--last-state {}: there is no folder {}: make it (install -d -m 700 {})", file.display(), folder.display(), folder.display())]
    NoFolder {
        /// The file.
        file: PathBuf,
        /// The folder that it would be in.
        folder: PathBuf,
    },
    /// Replacing it would do harm.
    #[error("--last-state {}: is there and is not a regular file: remove it, or name another file", .0.display())]
    NotAFile(PathBuf),
    /// Two nodes would use the same sequence numbers.
    #[error("--last-state {}: another node keeps its state there: stop it, or give each node a file of its own", .0.display())]
    InUse(PathBuf),
    /// The operating system refused something.
    #[error("--last-state {}: {}: {source}: the node must be able to write files in that folder", file.display(), what.display())]
    Os {
        /// The file.
        file: PathBuf,
        /// What was opened or made.
        what: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file of reserved numbers.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The file of the last state, held by this node alone.
#[derive(Debug)]
pub struct LastState {
    file: PathBuf,
    /// Held until the node ends.
    lock: Flock<File>,
    ledger: Place,
    /// There was a state when the node began: then there is a ledger, too, unless it was lost.
    was_there: bool,
    /// The node begins with the kept state.
    is_in_force: bool,
    /// Outbound SAs of the kept state, with which the node was in force.
    kept: Vec<Arc<Sa>>,
    /// Those of other states that the node was given when it began.
    given: Vec<Arc<Sa>>,
}

impl LastState {
    /// Takes the file for this node, and removes what a node that was killed has left half written.
    ///
    /// # Errors
    /// [`LastStateError`]: nothing could be kept there, or another node does.
    pub fn open(file: &Path) -> Result<Self, LastStateError> {
        let folder = folder_of(file);
        if !folder.is_dir() {
            return Err(LastStateError::NoFolder { file: file.to_owned(), folder: folder.to_owned() });
        }
        let was_there = match fs::symlink_metadata(file) {
            Ok(found) if found.is_file() => true,
            // Of a link, what it leads to is read; what is kept takes the place of the link.
            Ok(found) if found.is_symlink() && file.metadata().is_ok_and(|target| target.is_file()) => true,
            Ok(_) => return Err(LastStateError::NotAFile(file.to_owned())),
            Err(_) => false,
        };
        let os = |what: &Path, source| LastStateError::Os { file: file.to_owned(), what: what.to_owned(), source };
        let lock = lock_file(file);
        let locked = take(&lock).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => LastStateError::InUse(file.to_owned()),
            _ => os(&lock, source),
        })?;
        remove_leftovers(file);
        // A folder that nothing can be made in is told now. A disk that is full may have room later.
        let probe = with_suffix(file, ".new");
        match create_new(&probe) {
            Ok(_) => _ = fs::remove_file(&probe),
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {}
            Err(source) => return Err(os(&probe, source)),
        }
        let ledger = Place::new(sequences_file(file));
        Ok(Self {
            file: file.to_owned(),
            lock: locked,
            ledger,
            was_there,
            is_in_force: false,
            kept: Vec::new(),
            given: Vec::new(),
        })
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The file beside it that keeps the sequence numbers that are reserved.
    #[must_use]
    pub fn sequences_file(&self) -> PathBuf {
        sequences_file(&self.file)
    }

    /// The state that is kept; `None` when there is none yet.
    ///
    /// # Errors
    /// It cannot be read, or is no state.
    pub fn load(&mut self) -> Result<Option<Snapshot>, ReplayError> {
        if !self.was_there {
            return Ok(None);
        }
        let kept = replay::load_state(&self.file)?;
        self.kept = outbound(&kept).cloned().collect();
        Ok(Some(kept))
    }

    /// The node begins with the kept state: it need not be kept again.
    pub const fn start_from_kept(&mut self) {
        self.is_in_force = true;
    }

    /// Does the node begin with the kept state?
    #[must_use]
    pub const fn is_in_force(&self) -> bool {
        self.is_in_force
    }

    /// Another state that the node is given when it begins. Should the ledger be lost, its keys are as doubtful as those of the
    /// kept state.
    pub fn add_given_state(&mut self, state: &Snapshot) {
        self.given.extend(outbound(state).cloned());
    }

    /// The sequence numbers that are reserved. Keys that may have used others are refused in it.
    ///
    /// # Errors
    /// [`LedgerError`]: it is there and cannot be read.
    pub fn sequences(&mut self) -> Result<Sequences, LedgerError> {
        let (mut sequences, lost) = match self.ledger.load()? {
            ledger::Found::Own(sequences) => (sequences, None),
            ledger::Found::Copy(mut sequences) => {
                sequences.refuse_all(NumbersUnknown::Copied);
                (sequences, Some(NumbersUnknown::Copied))
            }
            ledger::Found::None => {
                let lost = self.was_there.then_some(NumbersUnknown::Missing);
                if lost.is_none() && !self.given.is_empty() {
                    tracing::info!(
                        "{} is new: outbound security associations of --state begin with their first number; a key that was in use \
                         before, here or elsewhere, must not be among them",
                        self.sequences_file().display()
                    );
                }
                (Sequences::default(), lost)
            }
        };
        for sa in &self.kept {
            if !sequences.knows(sa) {
                sequences.refuse(sa, lost.unwrap_or(NumbersUnknown::Unlisted));
            }
        }
        if let Some(why) = lost {
            for sa in &self.given {
                if !sequences.knows(sa) {
                    sequences.refuse(sa, why);
                }
            }
        }
        Ok(sequences)
    }

    /// Takes the file again where its folder was removed and made again, or another one is in its place: there is neither this node's
    /// lock in it nor its ledger. Returns whether it was so.
    ///
    /// # Errors
    /// There is no folder, or it is another node's: nothing is kept there.
    pub fn hold(&mut self) -> io::Result<bool> {
        if self.is_held()? {
            return Ok(false);
        }
        self.lock = take(&lock_file(&self.file))?;
        Ok(true)
    }

    /// Nothing is written into a folder that may be another node's.
    fn must_hold(&self) -> io::Result<()> {
        // Where there is no folder, what is written next says so.
        if self.is_held()? || !folder_of(&self.file).is_dir() {
            return Ok(());
        }
        Err(io::Error::other("the folder is another one than before, and another node may keep its state there"))
    }

    fn is_held(&self) -> io::Result<bool> {
        let (held, there) = (self.lock.metadata()?, fs::symlink_metadata(lock_file(&self.file)));
        Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (held.dev(), held.ino())))
    }

    /// Keeps the sequence numbers that are reserved. When it returns they are on disk.
    ///
    /// # Errors
    /// Then none of them may be used that were not reserved before.
    pub fn save_sequences(&mut self, sequences: &Sequences) -> io::Result<()> {
        self.must_hold()?;
        self.ledger.save(sequences)
    }

    /// Keeps a state. Numbers for its SAs have been reserved before: a state without a ledger is one whose ledger was lost.
    ///
    /// # Errors
    /// As [`save`].
    pub fn save(&mut self, state: &State) -> io::Result<()> {
        self.must_hold()?;
        save(&self.file, state)
    }
}

fn outbound(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Sa>> {
    snapshot.sas().filter(|sa| sa.direction == SaDirection::Outbound)
}

/// Replaces the file atomically: a reader finds the old state or the new one, never half of one.
///
/// # Errors
/// The folder is not there or not writable, or the disk is full; the old file stays.
pub fn save(file: &Path, state: &State) -> io::Result<()> {
    let text = json::to_string(&encode::state_with(state, encode::Keys::Written), Defaults::Skipped)?;
    replace(file, |_| Ok(text)).map(drop)
}

/// The file beside that of the last state which keeps the sequence numbers that are reserved.
#[must_use]
pub fn sequences_file(last_state: &Path) -> PathBuf {
    with_suffix(last_state, ".sequences")
}

fn lock_file(last_state: &Path) -> PathBuf {
    with_suffix(last_state, ".lock")
}

/// Opens a lock and takes it; [`io::ErrorKind::WouldBlock`]: another node has it.
fn take(lock: &Path) -> io::Result<Flock<File>> {
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(lock)?;
    Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Removes what nodes that were killed have left half written: it holds keys.
fn remove_leftovers(file: &Path) {
    let Ok(entries) = fs::read_dir(folder_of(file)) else { return };
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|found| is_leftover(found, name)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// `NAME.new`, `NAME.sequences.new`, and those with a process number before `new`.
fn is_leftover(found: &str, name: &str) -> bool {
    let Some(rest) = found.strip_prefix(name).and_then(|rest| rest.strip_suffix(".new")) else { return false };
    let rest = rest.strip_prefix(".sequences").unwrap_or(rest);
    rest.is_empty() || rest.strip_prefix('.').is_some_and(|pid| pid.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::is_leftover;

    #[test]
    fn only_what_the_node_itself_writes_is_a_leftover() {
        for name in ["s.json.new", "s.json.12.new", "s.json.sequences.new", "s.json.sequences.7.new"] {
            assert!(is_leftover(name, "s.json"), "{name}");
        }
        for name in ["s.json", "s.json.sequences", "s.json.lock", "s.json.old.new", "t.json.new", "s.json.1x.new"] {
            assert!(!is_leftover(name, "s.json"), "{name}");
        }
    }
}
