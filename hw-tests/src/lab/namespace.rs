//! A lab's name and files, and its network namespaces.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};

use super::{LabError, Output, Process, interrupt, process, tools};

/// Names of namespaces and directories start with it, then come the process id of the lab, its number, and a role.
const PREFIX: &str = "sluicegate";
const NETNS_DIR: &str = "/run/netns";
/// Folders of a DPDK program's own files: where the judges of the NIC twin run, and where DPDK keeps what processes share.
const DPDK_DIRS: [&str; 2] = ["/run", "/run/dpdk"];
/// Time for a command that configures something.
const CONFIGURE: Duration = Duration::from_secs(10);

static LABS: AtomicU32 = AtomicU32::new(0);

/// The frame of one lab: a unique name and a directory that goes with it.
#[derive(Debug)]
pub struct Lab {
    name: String,
    directory: PathBuf,
}

impl Lab {
    /// Sweeps what dead runs left, and opens a lab.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] without the rights to make namespaces.
    pub fn new() -> Result<Self, LabError> {
        interrupt::watch();
        interrupt::check()?;
        if !Uid::effective().is_root() {
            return Err(LabError::Unavailable {
                what: "network namespaces need root".to_owned(),
                remedy: "run it as root".to_owned(),
            });
        }
        sweep()?;
        let name = format!("{PREFIX}-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory).map_err(LabError::io(format!("create {}", directory.display())))?;
        Ok(Self { name, directory })
    }

    /// Its unique name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for its files; gone with the lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a namespace with loopback up.
    ///
    /// # Errors
    /// What `ip netns add` says.
    pub fn namespace(&self, role: &str) -> Result<Namespace, LabError> {
        let name = format!("{}-{role}", self.name);
        let mut command = Command::new("ip");
        command.args(["netns", "add", &name]);
        process::run(command, CONFIGURE)?.success()?;
        let namespace = Namespace { name, role: role.to_owned() };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A network namespace. Dropping it kills what still runs in it and deletes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    role: String,
}

impl Namespace {
    /// Its unique name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is in its lab: "host1".
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// A command that will run in it: a program by its path, or one of others by its name.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).args(tools::launcher(program.as_ref())).arg(program);
        command
    }

    /// Runs a program in it to its end.
    ///
    /// # Errors
    /// As for [`super::run`].
    pub fn run(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<Output, LabError> {
        let mut command = self.command(program);
        command.args(arguments);
        process::run(command, limit)
    }

    /// Starts a program in it.
    ///
    /// # Errors
    /// As for [`Process::spawn`].
    pub fn spawn(&self, program: &str, arguments: &[&str]) -> Result<Process, LabError> {
        let mut command = self.command(program);
        command.args(arguments);
        Process::spawn(command)
    }

    /// Runs `ip` on it with arguments that are separated by blanks; returns what it printed.
    ///
    /// # Errors
    /// [`LabError::Command`] with what `ip` says.
    pub fn ip(&self, arguments: &str) -> Result<String, LabError> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(arguments.split_whitespace());
        process::run(command, CONFIGURE)?.success()
    }

    /// Does something inside, on a thread that lives in this namespace.
    ///
    /// # Errors
    /// [`LabError::Io`] when it cannot be entered, and what `work` fails with.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
        let path = Path::new(NETNS_DIR).join(&self.name);
        let entered = || {
            let what = format!("enter {}", path.display());
            let file = fs::File::open(&path).map_err(LabError::io(what.clone()))?;
            setns(file, CloneFlags::CLONE_NEWNET).map_err(LabError::os(what))?;
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Sets a kernel variable below `/proc/sys/net`: `sysctl("ipv4/ip_forward", "1")`.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn sysctl(&self, variable: &str, value: &str) -> Result<(), LabError> {
        let path = format!("/proc/sys/net/{variable}");
        self.inside(|| fs::write(&path, value).map_err(LabError::io(format!("write {value} to {path}"))))
    }

    /// Packets that its devices have dropped so far, in both directions.
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn device_drops(&self) -> Result<u64, LabError> {
        let file = "/proc/thread-self/net/dev";
        let table = self.inside(|| fs::read_to_string(file).map_err(LabError::io(format!("read {file}"))))?;
        // "eth0: " and eight columns for each direction, of which the fourth are drops.
        let drops = |line: &str| -> Option<u64> {
            let columns: Vec<u64> = line.split_once(':')?.1.split_whitespace().filter_map(|n| n.parse().ok()).collect();
            Some(columns.get(3)? + columns.get(11)?)
        };
        Ok(table.lines().filter_map(drops).sum())
    }

    /// Keeps the kernel from speaking IPv6 here by itself (router solicitations, MLD, duplicate address detection).
    ///
    /// # Errors
    /// [`LabError::Io`].
    pub fn silence_ipv6(&self) -> Result<(), LabError> {
        self.sysctl("ipv6/conf/all/disable_ipv6", "1")?;
        self.sysctl("ipv6/conf/default/disable_ipv6", "1")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove_namespace(&self.name);
    }
}

/// Removes namespaces, their processes, and directories of labs and of programs on DPDK whose process is gone. Returns what was
/// removed.
///
/// # Errors
/// [`LabError::Io`] when the directories cannot be listed.
pub fn sweep() -> Result<Vec<String>, LabError> {
    let mut removed = Vec::new();
    for name in orphans(Path::new(NETNS_DIR), owner)? {
        remove_namespace(&name);
        removed.push(format!("namespace {name}"));
    }
    let mut directories = vec![(std::env::temp_dir(), owner as Owner)];
    directories.extend(DPDK_DIRS.map(|directory| (directory.into(), user as Owner)));
    for (parent, of) in directories {
        for name in orphans(&parent, of)? {
            let directory = parent.join(&name);
            if fs::remove_dir_all(&directory).is_ok() {
                removed.push(format!("directory {}", directory.display()));
            }
        }
    }
    Ok(removed)
}

/// Says which process a name belongs to, if it is one of ours.
type Owner = fn(&str) -> Option<u32>;

/// Entries of a directory that belong to processes that are gone.
fn orphans(directory: &Path, of: Owner) -> Result<Vec<String>, LabError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LabError::io(format!("list {}", directory.display()))(error)),
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| of(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()))
        .collect())
}

/// Process id in the name of something that a lab made.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.split('-');
    if parts.next() != Some(PREFIX) {
        return None;
    }
    let pid = parts.next()?.parse().ok()?;
    parts.next()?.parse::<u32>().ok()?;
    Some(pid)
}

/// Process id in the name of a folder that a program on DPDK made: `sluicegate-PID`, with or without more behind it.
fn user(name: &str) -> Option<u32> {
    let mut parts = name.split('-');
    if parts.next() != Some(PREFIX) {
        return None;
    }
    parts.next()?.parse().ok()
}

fn remove_namespace(name: &str) {
    let ip = |arguments: [&str; 3]| Command::new("ip").args(arguments).output();
    if let Ok(output) = ip(["netns", "pids", name]) {
        let own = std::process::id().to_string();
        for pid in String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|pid| **pid != own) {
            if let Ok(pid) = pid.parse() {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    let _ = ip(["netns", "del", name]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_process_and_a_lab_number_belong_to_a_lab() {
        assert_eq!(owner("sluicegate-4711-0-host1"), Some(4711));
        assert_eq!(owner("sluicegate-4711-0"), Some(4711));
        assert_eq!(owner("sluicegate-tools"), None);
        assert_eq!(owner("sluicegate-4711"), None);
        assert_eq!(owner("other-4711-0-host1"), None);
    }

    #[test]
    fn folders_of_dpdk_belong_to_a_process_with_or_without_a_number() {
        assert_eq!(user("sluicegate-4711"), Some(4711));
        assert_eq!(user("sluicegate-4711-0-Xy12ab"), Some(4711));
        assert_eq!(user("sluicegate-tools"), None);
        assert_eq!(user("sluicegate"), None);
        assert_eq!(user("rte"), None);
    }
}
