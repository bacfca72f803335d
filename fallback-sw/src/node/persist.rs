//! The last state in force, on disk: a node that is started again goes on with it when the controller is away.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use offload_rules::forwarding::State;
use proto::json::{self, Defaults};

use super::encode;

/// Replaces the file at once: whoever reads it finds the old state or the new one, never half of one.
///
/// # Errors
/// The folder is not there or not writable, or the disk is full; the old file stays.
pub fn save(file: &Path, state: &State) -> io::Result<()> {
    let text = json::to_string(&encode::state(state), Defaults::Skipped)?;
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
