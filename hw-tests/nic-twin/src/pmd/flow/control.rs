//! Faults at run time: a file that is followed like a log.

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
}

impl Control {
    /// Follows this file; it need not exist yet.
    pub(super) fn new(path: PathBuf) -> Control {
        Control { path, log: ControlLog::default(), seen: None }
    }

    /// Commands that are new, when it is time to look again.
    pub(super) fn commands(&mut self) -> Vec<Command> {
        if self.seen.is_some_and(|seen| seen.elapsed() < INTERVAL) {
            return Vec::new();
        }
        self.seen = Some(Instant::now());
        let Ok(content) = fs::read(&self.path) else { return Vec::new() };
        let mut commands = Vec::new();
        for command in self.log.commands(&content) {
            match command {
                Ok(command) => commands.push(command),
                Err(error) => log(Level::Warning, &format!("{}: {error}", self.path.display())),
            }
        }
        commands
    }
}
