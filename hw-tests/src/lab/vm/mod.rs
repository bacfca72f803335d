//! A virtual machine with Debian's stock kernel: a peer with an independent implementation, for what this machine's kernel may not have.
//!
//! QEMU emulates the processor, so it runs where no virtualisation is to be had; it boots in some seconds. Its image is made once
//! by `vm/image.sh`.

mod channel;
mod peer;
mod sa;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use channel::Channel;
pub use peer::{KernelPeer, Service};
pub use sa::{Direction, Outside, SaAtPeer, SharedSa};

use super::{Lab, LabError, Namespace, Output, Process, process, tools, wait};

/// Making the image: from apt the first time, which may be another one's download that is waited for.
const IMAGE: Duration = Duration::from_secs(900);
/// From power on to the agent's first word. Four seconds where nothing else runs.
const BOOT: Duration = Duration::from_secs(90);
/// For a script that configures something.
const CONFIGURE: Duration = Duration::from_secs(30);
/// A machine that did not come up is started once more.
const ATTEMPTS: u32 = 2;
/// QEMU's own deadline: whoever kills the lab so that nothing can be dropped leaves no machine for longer.
const LIFETIME: &str = "900";

/// Installed, or unpacked by `setup.sh`.
const EMULATOR: &str = "qemu-system-x86_64";

/// What a machine boots.
#[derive(Debug, Clone)]
pub struct VmImage {
    directory: PathBuf,
    version: String,
}

impl VmImage {
    /// Finds the image in the cache, or makes it.
    ///
    /// # Errors
    /// [`LabError::Command`] with what the script says: no kernel from apt, a program that is missing.
    pub fn prepare() -> Result<Self, LabError> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/vm/image.sh");
        let directory = PathBuf::from(process::run(Command::new(script), IMAGE)?.success()?.trim());
        let file = directory.join("version");
        let version = fs::read_to_string(&file).map_err(LabError::io(format!("read {}", file.display())))?;
        Ok(Self { directory, version: version.trim().to_owned() })
    }

    /// Release of its kernel, as `uname -r` says it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// A running machine with one network device. Dropping it ends it.
#[derive(Debug)]
pub struct Vm {
    // Dropped in this order: the machine ends when nobody talks to it any more.
    channel: Channel,
    process: Process,
    console: PathBuf,
    booted_in: Duration,
}

impl Vm {
    /// Boots a machine in a namespace. Its device `eth0` with this MAC is the other end of a TAP device `tap` that is made there;
    /// frames are complete on it, as on a wire: without offloads.
    ///
    /// # Errors
    /// [`LabError::Violated`] with the console when it does not come up in two attempts; what making the image or the device
    /// fails with.
    pub fn boot(lab: &Lab, namespace: &Namespace, tap: &str, mac: &str) -> Result<Self, LabError> {
        let image = VmImage::prepare()?;
        namespace.ip(&format!("tuntap add dev {tap} mode tap"))?;
        namespace.ip(&format!("link set {tap} up"))?;
        let mut complaints = String::new();
        for attempt in 1..=ATTEMPTS {
            match Self::attempt(lab, namespace, &image, tap, mac, attempt) {
                Ok(vm) => return Ok(vm),
                Err(LabError::Interrupted) => return Err(LabError::Interrupted),
                Err(error) => complaints.push_str(&format!("\nattempt {attempt}: {error}")),
            }
        }
        Err(LabError::Violated(format!("no machine with kernel {} came up:{complaints}", image.version)))
    }

    fn attempt(
        lab: &Lab,
        namespace: &Namespace,
        image: &VmImage,
        tap: &str,
        mac: &str,
        attempt: u32,
    ) -> Result<Self, LabError> {
        let begun = Instant::now();
        let file = |kind: &str| lab.directory().join(format!("{tap}-{attempt}.{kind}"));
        let (console, socket) = (file("console"), file("agent"));
        let mut command = namespace.command("timeout");
        command.args(["--kill-after=5", LIFETIME]).args(tools::launcher(EMULATOR.as_ref())).arg(EMULATOR);
        command.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256"]);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"]);
        command.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"]);
        command.arg("-kernel").arg(image.directory.join("vmlinuz"));
        command.arg("-initrd").arg(image.directory.join("initrd.gz"));
        command.args(["-serial", &format!("file:{}", console.display())]);
        // The machine begins when the lab has connected: nothing that the agent says is lost.
        command.args(["-chardev", &format!("socket,id=agent,server=on,wait=on,path={}", socket.display())]);
        command.args(["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent"]);
        // Without the header that offloads need, none are agreed on.
        command.args(["-netdev", &format!("tap,id=net,ifname={tap},script=no,downscript=no,vnet_hdr=off")]);
        // No boot ROM: the package that has it need not be there.
        command.args(["-device", &format!("virtio-net-pci,netdev=net,mac={mac},romfile=")]);

        let mut process = Process::spawn(command)?;
        let booted = Channel::open(&socket, &mut process, BOOT);
        let channel = booted.map_err(|error| with_console(error, &console, &process))?;
        if channel.version() != image.version {
            let (booted, wanted) = (channel.version(), image.version());
            return Err(LabError::Violated(format!("the machine runs kernel {booted}, not {wanted}")));
        }
        Ok(Self { channel, process, console, booted_in: begun.elapsed() })
    }

    /// Release of the kernel that runs in it.
    #[must_use]
    pub fn version(&self) -> &str {
        self.channel.version()
    }

    /// Time from power on to the agent's first word.
    #[must_use]
    pub const fn booted_in(&self) -> Duration {
        self.booted_in
    }

    /// What it has printed on its console so far.
    #[must_use]
    pub fn console(&self) -> String {
        console_text(&self.console)
    }

    /// Runs a shell script in it to its end. Both streams are in `stdout`.
    ///
    /// # Errors
    /// [`LabError::Timeout`], [`LabError::Interrupted`], and [`LabError::Violated`] with the console when the machine has ended. A
    /// bad exit status is not an error here: see [`Output::success`].
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<Output, LabError> {
        let (status, text) = self
            .channel
            .ask(script, &mut self.process, limit)
            .map_err(|error| with_console(error, &self.console, &self.process))?;
        // A wait status has the exit code in its second octet.
        let status = std::os::unix::process::ExitStatusExt::from_raw((status & 0xff) << 8);
        let status: ExitStatus = status;
        Ok(Output { command: format!("in the machine: {script}"), status, stdout: text, stderr: String::new() })
    }

    /// Runs a shell script that has to succeed; the first command that fails ends it. Returns what it printed.
    ///
    /// # Errors
    /// [`LabError::Command`] with what it printed, else as for [`Vm::run`].
    pub fn sh(&mut self, script: &str) -> Result<String, LabError> {
        self.run(&format!("set -e\n{script}"), CONFIGURE)?.success()
    }

    /// Starts a program in it that lives on, and waits until it has printed "ready".
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what it has printed instead.
    pub fn spawn(&mut self, command: &str) -> Result<Job, LabError> {
        let script =
            format!("exec 4>/run/job.new\n(exec {command}) >&4 2>&1 4>&- &\nmv /run/job.new /run/job.$!\necho $!");
        let job = Job { pid: self.sh(&script)?.trim().to_owned() };
        let mut said = String::new();
        let ready = wait::until(&format!("`{command}` in the machine to be ready"), CONFIGURE, || {
            said = self.sh(&format!("cat {}", job.file()))?;
            Ok(said.lines().any(|line| line == "ready").then_some(()))
        });
        match ready {
            Err(LabError::Timeout { what, waited, .. }) => {
                Err(LabError::Timeout { what, waited, detail: format!("; it printed:\n{said}") })
            }
            other => other.map(|()| job),
        }
    }

    /// Ends a program with SIGTERM; returns all that it printed.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when it does not end.
    pub fn stop(&mut self, job: Job) -> Result<String, LabError> {
        self.sh(&format!("kill {}", job.pid))?;
        wait::until("a program in the machine to end", CONFIGURE, || {
            // The agent is its parent's parent: an ended one may stay as a zombie.
            let gone = self.run(&format!("! grep -q '^State:.*[^Z] (' /proc/{}/status", job.pid), CONFIGURE)?;
            Ok(gone.status.success().then_some(()))
        })?;
        self.sh(&format!("cat {}", job.file()))
    }
}

/// A program that runs in a machine.
#[derive(Debug)]
pub struct Job {
    pid: String,
}

impl Job {
    fn file(&self) -> String {
        format!("/run/job.{}", self.pid)
    }
}

fn console_text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).replace('\r', "")
}

/// Adds what the machine and QEMU said to an error.
fn with_console(error: LabError, console: &Path, process: &Process) -> LabError {
    match error {
        LabError::Interrupted => LabError::Interrupted,
        error => LabError::Violated(format!("{error}\nconsole:\n{}{}", console_text(console), process.stderr())),
    }
}
