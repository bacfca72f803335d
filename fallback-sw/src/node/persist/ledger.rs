//! The file of reserved sequence numbers. It may be moved, and not copied.
//!
//! A copy, put back from a backup, does not know what was used since it was made. So the file says which file it is: the number of
//! its inode and when that was made, which no copy has. An inode whose place is taken by a newer one is emptied, should another
//! name still lead to it. The last line proves that the file is whole.
//!
//! ```text
//! sluicegate sequences 2 inode 1311 born 1764448607.123456789
//! 5b0c… 4194305
//! 77aa… copied
//! end 2 9f86d081884c7d65
//! ```

use std::{
    fmt::Write as _,
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    time::UNIX_EPOCH,
};

use graviola::hashing::{Hash as _, HashContext as _, Sha256};

use super::atomic_file::replace;
use crate::node::sequences::{LineError, Sequences};

const HEADER: &str = "sluicegate sequences 2 ";

/// A file of reserved numbers that is of no use.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: {problem}: which sequence numbers the keys of this node have used is not known. Remove the file, and the node begins: \
     it refuses the keys of the kept state and of --state until they are replaced",
    file.display()
)]
pub struct LedgerError {
    file: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}")]
    Line(#[from] LineError),
    #[error("its end is missing, or is not that of these lines")]
    End,
    #[error("{0}")]
    Os(#[from] io::Error),
}

/// What is found at a start.
#[derive(Debug)]
pub(super) enum Found {
    /// The file that the node has written last.
    Own(Sequences),
    /// A copy of such a file: what it tells was true once.
    Copy(Sequences),
    /// No file.
    None,
}

/// Where the file is, and the inode that is in force.
#[derive(Debug)]
pub(super) struct Place {
    file: PathBuf,
    inode: Option<File>,
}

impl Place {
    pub(super) const fn new(file: PathBuf) -> Self {
        Self { file, inode: None }
    }

    pub(super) fn load(&mut self) -> Result<Found, LedgerError> {
        self.read().map_err(|problem| LedgerError { file: self.file.clone(), problem })
    }

    fn read(&mut self) -> Result<Found, Problem> {
        // To be written as well: it is emptied when a newer one has taken its place.
        let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&self.file);
        let mut inode = match opened {
            Ok(inode) => inode,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::None),
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        inode.read_to_string(&mut text)?;
        let (header, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let Some(identity) = header.strip_prefix(HEADER) else {
            if text.is_empty() {
                return Err(Problem::End);
            }
            // As it was written before it had a first and a last line: nothing shows that it is not a copy.
            return Ok(Found::Copy(Sequences::from_text(&text)?));
        };
        let (lines, end) = rest.rsplit_once("end ").ok_or(Problem::End)?;
        if end != ending(header, lines) {
            return Err(Problem::End);
        }
        let sequences = Sequences::from_lines(lines, 2)?;
        let own = identity == identity_of(&inode)?;
        self.inode = Some(inode);
        Ok(if own { Found::Own(sequences) } else { Found::Copy(sequences) })
    }

    pub(super) fn save(&mut self, sequences: &Sequences) -> io::Result<()> {
        let fresh = replace(&self.file, |fresh| {
            let header = format!("{HEADER}{}", identity_of(fresh)?);
            let lines = sequences.to_text();
            let ending = ending(&header, &lines);
            Ok(format!("{header}\n{lines}end {ending}"))
        })?;
        if let Some(old) = self.inode.replace(fresh)
            && old.metadata().is_ok_and(|old| old.nlink() > 0)
        {
            // Another name leads to it, or it was moved away: it must not come back.
            old.set_len(0)?;
        }
        Ok(())
    }
}

/// What no copy of the file has. Where a file system does not know when an inode was made, its number has to do.
fn identity_of(file: &File) -> io::Result<String> {
    let metadata = file.metadata()?;
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let born =
        born.map_or_else(|| "unknown".to_owned(), |born| format!("{}.{:09}", born.as_secs(), born.subsec_nanos()));
    Ok(format!("inode {} born {born}", metadata.ino()))
}

/// The number of lines, and a digest of all before it.
fn ending(header: &str, lines: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(header.as_bytes());
    hash.update(b"\n");
    hash.update(lines.as_bytes());
    let mut text = format!("{} ", lines.lines().count());
    for octet in hash.finish().as_ref().iter().take(8) {
        // Writing to a string does not fail.
        let _ = write!(text, "{octet:02x}");
    }
    text.push('\n');
    text
}
