//! Child processes that end with the value that owns them.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{LabError, wait};

/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// A running program. Its output is kept in unnamed files; dropping it ends it (SIGTERM, then SIGKILL) and reaps it.
#[derive(Debug)]
pub struct Process {
    command: String,
    child: Child,
    stdout: File,
    stderr: File,
}

/// What a program left.
#[derive(Debug, Clone)]
pub struct Output {
    /// The whole command line.
    pub command: String,
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output when the program succeeded.
    ///
    /// # Errors
    /// [`LabError::Command`] otherwise.
    pub fn success(self) -> Result<String, LabError> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let output = format!("{}{}", self.stdout, self.stderr);
        Err(LabError::Command { command: self.command, status: self.status, output })
    }
}

/// Runs a program to its end; kills it when `limit` has passed.
///
/// # Errors
/// [`LabError::Io`] when it cannot be started, [`LabError::Timeout`], [`LabError::Interrupted`]. A bad exit status is not an
/// error here: see [`Output::success`].
pub fn run(command: Command, limit: Duration) -> Result<Output, LabError> {
    Process::spawn(command)?.wait(limit)
}

impl Process {
    /// Starts a program without standard input, in a process group of its own: a Ctrl-C at the terminal reaches the lab, and
    /// the lab ends its processes in order.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn spawn(mut command: Command) -> Result<Self, LabError> {
        let line = command_line(&command);
        let file = || tempfile::tempfile().map_err(LabError::io("temporary file for a program's output"));
        let (stdout, stderr) = (file()?, file()?);
        let copy = |file: &File| file.try_clone().map_err(LabError::io("temporary file for a program's output"));
        command.stdin(Stdio::null()).stdout(copy(&stdout)?).stderr(copy(&stderr)?).process_group(0);
        let child = command.spawn().map_err(LabError::io(format!("start `{line}`")))?;
        Ok(Self { command: line, child, stdout, stderr })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The whole command line.
    #[must_use]
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// Standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// The exit status, when it has ended.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, LabError> {
        self.child.try_wait().map_err(LabError::io(format!("wait for `{}`", self.command)))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// [`LabError::Io`] when it is not there any more.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        kill(self.os_pid(), signal).map_err(LabError::os(format!("send {signal} to `{}`", self.command)))
    }

    /// Waits for its end; kills it when `limit` has passed.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what it has printed so far, [`LabError::Interrupted`], [`LabError::Io`].
    pub fn wait(mut self, limit: Duration) -> Result<Output, LabError> {
        let what = format!("the end of `{}`", self.command);
        let status = wait::until(&what, limit, || self.ended()).map_err(|error| match error {
            LabError::Timeout { what, waited, .. } => {
                LabError::Timeout { what, waited, detail: format!("; it printed:\n{}{}", self.stdout(), self.stderr()) }
            }
            other => other,
        })?;
        Ok(Output { command: self.command.clone(), status, stdout: self.stdout(), stderr: self.stderr() })
    }

    /// Ends it with SIGTERM and returns what it left.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it does not heed the signal in time (it is killed then), [`LabError::Io`].
    pub fn terminate(self) -> Result<Output, LabError> {
        self.signal(Signal::SIGTERM)?;
        self.wait(GRACE)
    }

    fn os_pid(&self) -> Pid {
        // Invariant: the kernel's process ids fit in an i32.
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let _ = kill(self.os_pid(), Signal::SIGTERM);
        // Not `wait::until`: also an interrupted lab gives its processes time to end.
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command as one would type it.
pub(crate) fn command_line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.contains(' ') { format!("'{word}'") } else { word.into_owned() }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn contents(file: &File) -> String {
    // The child writes at the shared offset: read through an own description of the same file.
    let Ok(mut copy) = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))) else {
        return String::new();
    };
    let mut bytes = Vec::new();
    let _ = copy.seek(SeekFrom::Start(0)).and_then(|_| copy.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
