//! What `dpu-fastpath replay` does without a NIC, and what it says of bad input.
#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    process::{Command, Output},
};

fn dpu_fastpath(arguments: &[&str]) -> Output {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples/l3vpn");
    Command::new(env!("CARGO_BIN_EXE_dpu-fastpath")).args(arguments).current_dir(example).output().unwrap()
}

fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_replay_is_that_of_the_software_pipeline() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().display().to_string();
    let output = dpu_fastpath(&["replay", "--state", "ce1.json", "--in", "4121=tenant.pcap", "--out", &folder]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("received 11 = forwarded 9 + punted 0 + consumed 2 + dropped 0 + held 0;"), "{text}");
    assert!(out.path().join("vif4111.pcap").exists() && out.path().join("report.json").exists());
}

#[test]
fn an_unknown_nic_profile_is_refused_and_nothing_is_written() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join("out");
    let arguments = ["replay", "--nic", "mlx5", "--state", "ce1.json", "--in", "4121=tenant.pcap", "--out"];
    let output = dpu_fastpath(&[&arguments[..], &[&folder.display().to_string()]].concat());
    let text = refusal(&output);
    assert!(text.contains("no NIC profile 'mlx5'; there are: mlx5-hws"), "{text}");
    assert!(!folder.exists());
}

#[test]
fn wrong_usage_exits_with_1() {
    let text = refusal(&dpu_fastpath(&["replay"]));
    assert!(text.contains("Usage"), "{text}");
}
