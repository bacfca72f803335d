//! The daemon: what it says of bad input, and a life on virtual devices.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

const STATE: &str = r#"{
  "generation": 1, "node": "test",
  "vrfs": [{"id": 1, "name": "one"}],
  "vifs": [{"id": 1, "name": "lan", "type": "PHYSICAL", "vrf": 1, "addresses": ["10.0.1.1/24"]}]
}"#;

fn daemon(folder: &Path, arguments: &[&str]) -> Command {
    let socket = folder.join("node.sock");
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpu-fastpath"));
    command.arg("run").arg("--socket").arg(socket).args(arguments).env_remove("RUST_LOG");
    command
}

/// What the daemon says when it does not begin.
fn refusal(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let Output { status, stderr, .. } = daemon(folder.path(), arguments).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    text.lines().last().unwrap().to_owned()
}

#[test]
fn an_unknown_device_is_told_with_those_that_dpdk_has() {
    let vdevs = ["--vdev", "net_null0", "--vdev", "net_null1", "--no-huge", "64"];
    let text = refusal(&[&vdevs[..], &["--port", "lan=net_nul1"]].concat());
    assert_eq!(text, "dpu-fastpath: DPDK has no Ethernet device 'net_nul1' for 'lan'; it has net_null0, net_null1");
}

#[test]
fn what_dpdk_complains_of_is_told() {
    let text = refusal(&["--vdev", "no_such_driver0", "--no-huge", "64"]);
    assert!(text.starts_with("dpu-fastpath: DPDK does not start: "), "{text}");
    assert!(text.contains("no_such_driver0"), "{text}");
}

#[test]
fn a_driver_that_cannot_be_loaded_is_named() {
    let text = refusal(&["--driver", "/no/such/driver.so", "--no-huge", "64"]);
    assert!(text.starts_with("dpu-fastpath: driver library /no/such/driver.so: "), "{text}");
}

#[test]
fn a_nic_without_a_device_is_refused() {
    let text = refusal(&["--nic", "mlx5-hws"]);
    assert!(text.contains("--nic mlx5-hws: no device is driven by DPDK"), "{text}");
}

#[test]
fn a_mapping_without_two_names_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let output = daemon(folder.path(), &["--port", "lan"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("eth0=net_af_packet0"));
}

/// The dynamic linker finds first what the test gives it.
#[test]
fn an_aead_library_of_no_use_is_refused_by_name_and_passed_over_by_auto() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("libIPSec_MB.so.1"), "no library at all").unwrap();
    let mut command = daemon(folder.path(), &["--aead", "ipsec-mb"]);
    let Output { status, stderr, .. } = command.env("LD_LIBRARY_PATH", folder.path()).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    let told = text.lines().last().unwrap();
    assert!(told.starts_with("dpu-fastpath: --aead ipsec-mb: ") && told.contains("libIPSec_MB.so.1"), "{told}");
    assert!(told.ends_with("install the Debian package libipsec-mb1 (1.3 or newer)"), "{told}");
    // With auto it goes on, to what is wrong next.
    let mut command = daemon(folder.path(), &["--aead", "auto", "--state", "/no/such/state.json"]);
    let Output { stderr, .. } = command.env("LD_LIBRARY_PATH", folder.path()).output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert!(text.contains("provider=\"graviola\"") && text.contains("/no/such/state.json"), "{text}");
}

fn wait(mut child: Child, deadline: Instant) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the daemon does not end");
        }
        std::thread::yield_now();
    }
}

#[test]
fn case_09_it_opens_its_port_and_ends_only_when_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state.json");
    std::fs::write(&state, STATE).unwrap();
    let state = state.display().to_string();
    let arguments = ["--state", &state, "--vdev", "net_ring0", "--port", "lan=net_ring0", "--no-huge", "128"];
    let mut child = daemon(folder.path(), &arguments).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    // Ends when the daemon does: then the port was not opened.
    let mut log = Vec::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    for line in lines.by_ref() {
        log.push(line.unwrap());
        if log.iter().any(|line| line.contains("port open")) {
            break;
        }
    }
    if cfg!(target_arch = "x86_64") {
        // `make setup` installs the library, and the daemon takes it without being told. Debian 13 has 2.0, whose interface is another.
        let known = Path::new("/usr/lib/x86_64-linux-gnu/libIPSec_MB.so.1").exists();
        let provider = if known { "provider=\"ipsec-mb\"" } else { "provider=\"graviola\"" };
        let aead = log.iter().find(|line| line.contains("AES-GCM of ESP"));
        assert!(aead.is_some_and(|line| line.contains(provider)), "{log:#?}");
    }
    let opened = log.last().unwrap();
    assert!(opened.contains("net_ring: DPDK port 0, 1 receive and 1 transmit queues"), "{log:#?}");
    let pid = i32::try_from(child.id()).unwrap();
    let send = |signal| {
        // SAFETY: a signal to a process that this test has started and not yet waited for.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    };
    for (signal, name) in [(libc::SIGHUP, "SIGHUP"), (libc::SIGUSR1, "SIGUSR1"), (libc::SIGUSR2, "SIGUSR2")] {
        send(signal);
        let told = lines.by_ref().map(Result::unwrap).find(|line| line.contains(name) && line.contains("ignored"));
        assert!(told.is_some(), "{name} ends it");
    }
    send(libc::SIGPIPE);
    send(libc::SIGTERM);
    // Its end is that of its log.
    log.extend(lines.map(Result::unwrap));
    assert_eq!(wait(child, deadline).code(), Some(0), "{log:#?}");
    assert!(!Path::new(&format!("/var/run/dpdk/sluicegate-{pid}")).exists());
    assert!(!folder.path().join("node.sock").exists());
}
