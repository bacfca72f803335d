//! A `fallback-sw` node in a namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use proto::v1;

use super::{Lab, LabError, Namespace, NodeClient, Output, Process, Programs, forwarding::state_json, process, wait};

/// How a node is started.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its forwarding state.
    pub state: v1::ForwardingState,
    /// Worker threads.
    pub workers: u32,
    /// File that keeps the state in force across restarts.
    pub last_state: Option<PathBuf>,
}

/// A running node. Dropping it ends the daemon.
#[derive(Debug)]
pub struct Node {
    name: String,
    programs: Programs,
    process: Process,
    socket: PathBuf,
    state_file: PathBuf,
    client: NodeClient,
}

impl Node {
    /// Starts the daemon and waits until its socket answers.
    ///
    /// # Errors
    /// [`LabError::Command`] with its log when it ends at once, [`LabError::Timeout`] when it does not answer.
    pub fn start(lab: &Lab, namespace: &Namespace, config: &NodeConfig) -> Result<Self, LabError> {
        let programs = Programs::find()?;
        let name = config.state.node.clone();
        let state_file = lab.directory().join(format!("{name}.json"));
        fs::write(&state_file, state_json(&config.state)?)
            .map_err(LabError::io(format!("write {}", state_file.display())))?;
        let socket = lab.directory().join(format!("{name}.sock"));
        let mut command = namespace.command(&programs.fallback_sw);
        command.arg("run").arg("--state").arg(&state_file).arg("--socket").arg(&socket);
        command.args(["--workers", &config.workers.to_string()]);
        if let Some(file) = &config.last_state {
            command.arg("--last-state").arg(file);
        }
        let mut process = Process::spawn(command)?;
        let client = wait::until(&format!("{name} to answer on its socket"), Duration::from_secs(15), || {
            if let Some(status) = process.ended()? {
                let output = format!("{}{}", process.stdout(), process.stderr());
                return Err(LabError::Command { command: process.command().to_owned(), status, output });
            }
            if !socket.exists() {
                return Ok(None);
            }
            Ok(NodeClient::connect(&name, &socket).ok().filter(|client| client.status().is_ok()))
        })?;
        Ok(Self { name, programs, process, socket, state_file, client })
    }

    /// "ce1".
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its unix socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The file with the state that it was started with.
    #[must_use]
    pub fn state_file(&self) -> &Path {
        &self.state_file
    }

    /// Its API.
    #[must_use]
    pub fn client(&self) -> &NodeClient {
        &self.client
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Fails with the log when the daemon has ended.
    ///
    /// # Errors
    /// [`LabError::Command`].
    pub fn alive(&mut self) -> Result<(), LabError> {
        match self.process.ended()? {
            None => Ok(()),
            Some(status) => {
                Err(LabError::Command { command: self.process.command().to_owned(), status, output: self.log() })
            }
        }
    }

    /// Asks it with `host-ctl` and returns the text.
    ///
    /// # Errors
    /// [`LabError::Command`] when host-ctl fails.
    pub fn host_ctl(&self, arguments: &[&str]) -> Result<String, LabError> {
        self.host_ctl_output(arguments)?.success()
    }

    /// Like [`Node::host_ctl`], with the exit status.
    ///
    /// # Errors
    /// When host-ctl cannot run.
    pub fn host_ctl_output(&self, arguments: &[&str]) -> Result<Output, LabError> {
        let mut command = Command::new(&self.programs.host_ctl);
        command.arg("--socket").arg(&self.socket).args(arguments);
        process::run(command, Duration::from_secs(15))
    }

    /// Kills the daemon as a crash would: no signal handler runs.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it does not go.
    pub fn crash(self) -> Result<Output, LabError> {
        self.process.signal(nix::sys::signal::Signal::SIGKILL)?;
        self.process.wait(Duration::from_secs(5))
    }

    /// Ends the daemon with SIGTERM and returns what it left.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it does not heed the signal.
    pub fn stop(self) -> Result<Output, LabError> {
        self.process.terminate()
    }
}
