//! DPDK's own programs, and Open vSwitch, beside ours.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::nic::Bench;

/// A folder of root's alone, as EAL wants it for drivers; gone when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Result<Self, String> {
        let path = PathBuf::from(format!("/run/sluicegate-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program, where there is one.
pub(crate) fn find(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.map(|place| place.join(name)).find(|program| program.is_file());
    found.ok_or_else(|| format!("{name} is not installed: run `make setup`"))
}

/// The last lines of what a program has said.
fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

/// Rules a second that dpdk-test-flow-perf creates and destroys on the same twin.
pub(crate) fn flow_perf(bench: &Bench, rules: usize) -> Result<[f64; 2], String> {
    if !bench.peers {
        return Err("not asked for".to_owned());
    }
    let program = find("dpdk-test-flow-perf")?;
    let folder = Folder::new("flow-perf")?;
    let library = folder.0.join("libnic_twin.so");
    std::fs::copy(&bench.twin, &library).map_err(|error| format!("{}: {error}", bench.twin.display()))?;
    // Whole batches of rules.
    let count = rules / 1000 * 1000;
    // The tool knows port 0 alone: the twin makes the port below itself, over a loopback of its own.
    let output = Command::new("unshare")
        .env("RUNTIME_DIRECTORY", &folder.0)
        .args(["--net", "sh", "-c", "ip link set lo mtu 1500 up && exec \"$@\"", "-"])
        .arg(program)
        .arg("-d")
        .arg(&library)
        .args(["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--lcores"])
        .arg(format!("0@{0},1@{0}", bench.core))
        .arg(format!("--file-prefix=sg-flow-perf-{}", std::process::id()))
        .args(["--vdev=net_twin0,iface=lo,profile=twin", "--", "--portmask=0x1", "--ingress", "--ether", "--ipv4"])
        .args(["--queue", "--deletion-rate"])
        .args([format!("--rules-count={count}"), format!("--rules-batch={count}")])
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let rate = |what: &str| {
        let line = text.lines().find(|line| line.contains(&format!("{what} rate ->")))?;
        let words = line.split_once("->")?.1;
        words.split_whitespace().find_map(|word| word.parse::<f64>().ok()).map(|thousands| thousands * 1000.0)
    };
    match (rate("insertion"), rate("deletion")) {
        (Some(insert), Some(delete)) => Ok([insert, delete]),
        _ => Err(last_words(&text)),
    }
}

/// A program that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time of a process's threads with this in their name.
fn cpu_of(process: u32, thread: &str) -> Result<Duration, String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).map_err(|error| error.to_string())?;
    let mut nanoseconds = 0;
    for task in tasks.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        if read("comm").contains(thread) {
            nanoseconds += read("schedstat").split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Nanoseconds of CPU time that testpmd's forwarding core needs for a packet, on these devices.
pub(crate) fn testpmd(bench: &Bench, mode: &str, vdevs: &[String], run: Duration) -> Result<f64, String> {
    if !bench.peers {
        return Err("not asked for".to_owned());
    }
    let folder = Folder::new("testpmd")?;
    let log = folder.0.join("log");
    let output = std::fs::File::create(&log).map_err(|error| error.to_string())?;
    let mut command = Command::new(find("dpdk-testpmd")?);
    command
        .env("RUNTIME_DIRECTORY", &folder.0)
        .args(["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--no-shconf", "--lcores"])
        // The command line on one core, the packets on the other.
        .arg(format!("0@{},1@{}", usize::from(bench.core == 0), bench.core));
    command.args(vdevs.iter().map(|vdev| format!("--vdev={vdev}")));
    command.args(["--", "-i", "--burst=64", "--total-num-mbufs=32768", &format!("--forward-mode={mode}")]);
    command.stdin(Stdio::piped()).stdout(output.try_clone().map_err(|error| error.to_string())?).stderr(output);
    let mut running = Running(command.spawn().map_err(|error| error.to_string())?);
    let mut input = running.0.stdin.take().ok_or("testpmd takes no commands")?;
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let mut wait = |what: &str, limit: Duration| {
        let end = Instant::now() + limit;
        while !said().contains(what) {
            if Instant::now() > end || running.0.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err(last_words(&said()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running.0.id())
    };
    let process = wait("testpmd>", Duration::from_secs(20))?;
    let before = cpu_of(process, "worker-1")?;
    input.write_all(b"start\n").map_err(|error| error.to_string())?;
    std::thread::sleep(run);
    input.write_all(b"stop\n").map_err(|error| error.to_string())?;
    // Its core sleeps from here on; what it says comes when it ends.
    std::thread::sleep(Duration::from_millis(300));
    let spent = cpu_of(process, "worker-1")?.saturating_sub(before);
    input.write_all(b"quit\n").map_err(|error| error.to_string())?;
    drop(wait("Bye...", Duration::from_secs(10)));
    let text = said();
    let totals = text.split("Accumulated forward statistics for all ports").nth(1).unwrap_or_default();
    let number = |name: &str| {
        let after = totals.split_once(name)?.1;
        after.split_whitespace().next()?.parse::<f64>().ok()
    };
    let packets = number("RX-packets:").filter(|packets| *packets > 0.0).ok_or_else(|| last_words(&text))?;
    Ok(spent.as_nanos() as f64 / packets)
}

/// Nanoseconds of CPU time that Open vSwitch's forwarding thread needs to route a packet of these captures.
pub(crate) fn open_vswitch(bench: &Bench, captures: &[PathBuf], run: Duration) -> Result<f64, String> {
    if !bench.peers {
        return Err("not asked for".to_owned());
    }
    let target = bench.twin.parent().and_then(Path::parent).ok_or("no target directory")?;
    let unpacked = [target.join("peers/ovs"), PathBuf::from("/")];
    let program = "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
    let root = unpacked.iter().find(|root| root.join(program).is_file());
    let root = root.ok_or("openvswitch-switch-dpdk is not there: run `make bench-peers`")?;
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../hw-tests/ovs-dpdk.sh"))
        .arg(root)
        .arg(bench.core.to_string())
        .arg(format!("{:.1}", run.as_secs_f64()))
        .args(captures)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse::<f64>().ok());
    match (output.status.success(), numbers.next(), numbers.next()) {
        (true, Some(packets), Some(nanoseconds)) if packets > 0.0 => Ok(nanoseconds / packets),
        _ => Err(last_words(&String::from_utf8_lossy(&output.stderr))),
    }
}
