//! A node in a namespace: `fallback-sw`, or `dpu-fastpath` on the NIC twin.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use proto::v1;

use super::{
    Lab, LabError, Namespace, Nic, NodeClient, Output, Process, Programs, TwinControl, forwarding::state_json, process,
    wait,
};

/// How a node is started.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its forwarding state.
    pub state: v1::ForwardingState,
    /// Worker threads.
    pub workers: u32,
    /// File that keeps the state in force across restarts.
    pub last_state: Option<PathBuf>,
    /// The NIC that it drives; `None`: a node in software.
    pub nic: Option<Nic>,
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
    twin: Option<TwinControl>,
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
        write_private(&state_file, &state_json(&config.state)?)
            .map_err(LabError::io(format!("write {}", state_file.display())))?;
        let socket = lab.directory().join(format!("{name}.sock"));
        let program = if config.nic.is_some() { &programs.dpu_fastpath } else { &programs.fallback_sw };
        let mut command = namespace.command(program);
        command.arg("run").arg("--state").arg(&state_file).arg("--socket").arg(&socket);
        command.args(["--workers", &config.workers.to_string()]);
        if let Some(file) = &config.last_state {
            command.arg("--last-state").arg(file);
        }
        let with_ike = |vif: &v1::Vif| vif.tunnel.as_ref().is_some_and(|tunnel| tunnel.ike.is_some());
        if config.state.vifs.iter().any(with_ike) {
            command.arg("--ike-socket").arg(lab.directory().join(format!("{name}.ike.sock")));
        }
        let mut twin = None;
        if let Some(nic) = &config.nic {
            let control = lab.directory().join(format!("{name}.twin"));
            nic.arguments(&mut command, &programs, &devices(&config.state), &control)?;
            twin = Some(TwinControl::new(control));
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
        Ok(Self { name, programs, process, socket, state_file, client, twin })
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

    /// The twin under it.
    ///
    /// # Errors
    /// [`LabError::Violated`] for a node in software.
    pub fn twin(&self) -> Result<&TwinControl, LabError> {
        self.twin.as_ref().ok_or_else(|| LabError::Violated(format!("{} drives no NIC", self.name)))
    }

    /// Process number of the daemon.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
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
        self.end_by(nix::sys::signal::Signal::SIGKILL)
    }

    /// Ends the daemon with a signal.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it does not go.
    pub fn end_by(self, signal: nix::sys::signal::Signal) -> Result<Output, LabError> {
        self.process.signal(signal)?;
        self.process.wait(Duration::from_secs(5))
    }

    /// Like [`Node::crash`], for a node whose place another one takes.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it does not go.
    pub fn kill(&mut self) -> Result<(), LabError> {
        self.process.signal(nix::sys::signal::Signal::SIGKILL)?;
        wait::until("the node to be gone", Duration::from_secs(5), || Ok(self.process.ended()?.map(drop)))
    }

    /// Ends the daemon with SIGTERM and returns what it left.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it does not heed the signal.
    pub fn stop(self) -> Result<Output, LabError> {
        self.process.terminate()
    }
}

/// Writes a file that holds keys.
fn write_private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(file)?.write_all(text.as_bytes())
}

/// The devices that carry a node's physical and virtual vifs.
fn devices(state: &v1::ForwardingState) -> Vec<String> {
    let carried = |vif: &&v1::Vif| matches!(vif.r#type(), v1::VifType::Physical | v1::VifType::Virtual);
    let device = |vif: &v1::Vif| if vif.device.is_empty() { vif.name.clone() } else { vif.device.clone() };
    state.vifs.iter().filter(carried).map(device).collect()
}
