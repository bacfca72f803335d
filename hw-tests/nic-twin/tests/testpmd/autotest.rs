//! DPDK's own tests of inline IPsec, with the twin as the NIC and its wire turned back.

use std::process::{Command, Stdio};

use crate::judge::library;

/// What the summary says about `name`.
fn figure(log: &str, name: &str) -> Option<u32> {
    let line = log.lines().find(|line| line.contains(name))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

#[test]
fn inline_ipsec_autotest_passes_what_applies_and_fails_nothing() {
    let name = format!("sluicegate-{}-autotest-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&name).tempdir_in("/run").expect("these tests need root");
    let driver = folder.path().join("libnic_twin.so");
    std::fs::copy(library(), &driver).unwrap();
    // A minute, for what takes a second: a case that waits for a lost packet waits forever.
    let output = Command::new("timeout")
        .args(["--kill-after=5", "60", "dpdk-test", "-d"])
        .arg(&driver)
        .args(["--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--no-shconf", "-l", "0"])
        // Its cases of replay begin in the middle of their window.
        .arg("--vdev=net_twin0,loop=1,no_floor=1")
        .env("RUNTIME_DIRECTORY", folder.path())
        .env("DPDK_TEST", "inline_ipsec_autotest")
        .stdin(Stdio::null())
        .output()
        .expect("dpdk-test is there after make setup");
    let log = String::from_utf8_lossy(&output.stdout);
    let figures = ["Tests Total", "Tests Passed", "Tests Skipped", "Tests Failed"].map(|name| figure(&log, name));
    // 24.11 has two cases more, which do not apply.
    let known = [[93, 41, 52, 0], [95, 41, 54, 0]];
    assert!(known.iter().any(|known| known.map(Some) == figures), "{figures:?}\n{log}");
    assert!(output.status.success(), "{}", output.status);
    println!("inline_ipsec_autotest: 41 passed, the others do not apply, 0 failed");
}
