//! The last state in force, on disk: a node that is started again goes on with it when the controller is away.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use offload_rules::forwarding::State;
use proto::json::{self, Defaults};

use super::{encode, sequences::Sequences};

/// Replaces the file at once: whoever reads it finds the old state or the new one, never half of one.
///
/// # Errors
/// The folder is not there or not writable, or the disk is full; the old file stays.
pub fn save(file: &Path, state: &State) -> io::Result<()> {
    replace(file, &json::to_string(&encode::state_with(state, encode::Keys::Written), Defaults::Skipped)?)
}

/// The file beside that of the last state which keeps the sequence numbers that are reserved.
#[must_use]
pub fn sequences_file(last_state: &Path) -> PathBuf {
    let mut name = last_state.file_name().unwrap_or_default().to_owned();
    name.push(".sequences");
    last_state.with_file_name(name)
}

/// Keeps the sequence numbers that are reserved. When it returns they are on disk.
///
/// # Errors
/// As [`save`]: then none of them may be used that were not reserved before.
pub fn save_sequences(file: &Path, sequences: &Sequences) -> io::Result<()> {
    replace(file, &sequences.to_text())?;
    // The name is on disk when its folder is.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder)?.sync_all()
}

/// The sequence numbers that are reserved; none when there is no file.
///
/// # Errors
/// It cannot be read, or is damaged: which numbers have been used is not known then.
pub fn load_sequences(file: &Path) -> io::Result<Sequences> {
    match fs::read_to_string(file) {
        Ok(text) => Sequences::from_text(&text).map_err(|error| {
            let problem =
                format!("{}: {error}; without it no key of an earlier life may be used again", file.display());
            io::Error::new(io::ErrorKind::InvalidData, problem)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Sequences::default()),
        Err(error) => Err(error),
    }
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = file.with_file_name(name);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut out| out.write_all(text.as_bytes()).and_then(|()| out.sync_all()))
        .and_then(|()| fs::rename(&fresh, file));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}
