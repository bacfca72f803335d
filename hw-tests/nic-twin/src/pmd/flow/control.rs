//! Faults at run time: a file that is followed like a log. How many of its octets have been followed is told in a file beside it, with
//! `.seen` behind its name, so that whoever writes knows when the NIC is as it was told.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    model::{Command, ControlLog},
    pmd::log::{Level, log},
};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// A control file.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) path: PathBuf,
    log: ControlLog,
    seen: Option<Instant>,
    followed: usize,
    told: usize,
}

impl Control {
    /// Follows this file; it need not exist yet.
    pub(super) fn new(path: PathBuf) -> Control {
        Control { path, log: ControlLog::default(), seen: None, followed: 0, told: 0 }
    }

    /// Commands that are new, when it is time to look again.
    pub(super) fn commands(&mut self) -> Vec<Command> {
        if self.seen.is_some_and(|seen| seen.elapsed() < INTERVAL) {
            return Vec::new();
        }
        self.seen = Some(Instant::now());
        let Ok(content) = fs::read(&self.path) else { return Vec::new() };
        self.followed = content.len();
        let mut commands = Vec::new();
        for command in self.log.commands(&content) {
            match command {
                Ok(command) => commands.push(command),
                Err(error) => log(Level::Warning, &format!("{}: {error}", self.path.display())),
            }
        }
        commands
    }
    /// The commands were carried out: tells so.
    pub(super) fn carried_out(&mut self) {
        if self.followed == self.told {
            return;
        }
        self.told = self.followed;
        let mut beside = self.path.clone().into_os_string();
        beside.push(".seen");
        if let Err(error) = fs::write(&beside, self.told.to_string()) {
            log(Level::Warning, &format!("{}: {error}", beside.to_string_lossy()));
        }
    }
}
