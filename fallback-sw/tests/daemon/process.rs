//! A daemon in a folder of its own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proto::{
    json,
    v1::{self, node_client::NodeClient},
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for what must come.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

pub(crate) struct Daemon {
    child: Child,
    pub(crate) socket: PathBuf,
    log: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Daemon {
    /// Starts `fallback-sw run` in this folder with these arguments, under this shell command if there is one.
    pub(crate) fn spawn(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::under("exec \"$@\"", folder, name, arguments)
    }

    pub(crate) fn under(shell: &str, folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let (socket, log) = (folder.join(format!("{name}.sock")), folder.join(format!("{name}.log")));
        let child = Command::new("sh")
            .args(["-c", shell, "sh", env!("CARGO_BIN_EXE_fallback-sw"), "run", "--socket"])
            .arg(&socket)
            .args(arguments)
            .current_dir(folder)
            .env_remove("RUST_LOG")
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { child, socket, log, runtime }
    }

    /// Starts it and waits until it runs.
    pub(crate) fn start(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::spawn(folder, name, arguments).running()
    }

    #[track_caller]
    pub(crate) fn running(mut self) -> Self {
        until("the node runs", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended with {status}:\n{}", self.log());
            }
            self.log().contains("node running").then_some(())
        });
        self
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_for_log(&self, words: &str) {
        until(words, || self.log().contains(words).then_some(()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("the daemon ends", || self.child.try_wait().unwrap())
    }

    #[track_caller]
    pub(crate) fn end_by(mut self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        (self.wait(), self.log())
    }

    fn client(&self) -> NodeClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", self.socket.display())).unwrap();
        NodeClient::new(self.runtime.block_on(endpoint.connect()).unwrap())
    }

    pub(crate) fn generation(&self) -> u64 {
        let mut client = self.client();
        self.runtime.block_on(client.get_status(v1::GetStatusRequest {})).unwrap().into_inner().generation
    }

    pub(crate) fn change(&self, delta: &str) -> Result<v1::ApplyResult, Status> {
        let delta: v1::ForwardingDelta = json::parse(delta, "delta").unwrap();
        let mut client = self.client();
        self.runtime.block_on(client.apply_delta(delta)).map(tonic::Response::into_inner)
    }

    pub(crate) fn vif(&self, id: u32) -> v1::VifInfo {
        let mut client = self.client();
        let asked = v1::ListVifsRequest { ids: vec![id] };
        self.runtime.block_on(client.list_vifs(asked)).unwrap().into_inner().vifs.remove(0)
    }

    pub(crate) fn sa(&self, id: u32) -> v1::SaInfo {
        let mut client = self.client();
        let asked = v1::ListSasRequest { ids: vec![id] };
        self.runtime.block_on(client.list_sas(asked)).unwrap().into_inner().sas.remove(0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a daemon says that does not begin.
#[track_caller]
pub(crate) fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let mut daemon = Daemon::spawn(folder, "refused", arguments);
    let status = daemon.wait();
    let log = daemon.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!daemon.socket.exists());
    log.lines().last().unwrap().to_owned()
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    fs::write(&file, text).unwrap();
    file.display().to_string()
}
