//! Files that are replaced at once, by rename(2): a reader finds the old content or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

pub(super) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    file.with_file_name(name)
}

pub(super) fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Creates a file that does not exist. A symbolic link in its place is not followed.
pub(super) fn create_new(file: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(file)
}

/// Replaces a file atomically; `text` gets the new file while it is empty. When it returns, both
/// the text and the name are on disk. Returns the new file.
pub(super) fn replace(file: &Path, text: impl FnOnce(&File) -> io::Result<String>) -> io::Result<File> {
    let fresh = with_suffix(file, ".new");
    // Only this node writes here: it holds the lock.
    let _ = fs::remove_file(&fresh);
    let mut out = create_new(&fresh)?;
    let written = text(&out)
        .and_then(|text| out.write_all(text.as_bytes()))
        .and_then(|()| out.sync_all())
        .and_then(|()| fs::rename(&fresh, file));
    if let Err(error) = written {
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    File::open(folder_of(file))?.sync_all()?;
    Ok(out)
}
