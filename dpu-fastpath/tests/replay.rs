//! A replay behind a NIC sends what a replay in software sends, octet for octet, whatever the NIC.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path, process::Command};

use offload_rules::lower::NicProfile;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/l3vpn");

fn replay(nic: Option<&str>, state: &str, inputs: &[String], out: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpu-fastpath"));
    command.args(["replay", "--state", state, "--out"]).arg(out);
    inputs.iter().for_each(|input| _ = command.args(["--in", input]));
    nic.iter().for_each(|nic| _ = command.args(["--nic", nic]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{nic:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_nic_sends_what_software_sends() {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "nic-twin", "--target-dir"]);
    let bin = Path::new(env!("CARGO_BIN_EXE_dpu-fastpath")).parent().unwrap();
    build.arg(bin.parent().unwrap());
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the NIC twin does not build");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    let there = [format!("4121={EXAMPLE}/tenant.pcap")];
    replay(None, &format!("{EXAMPLE}/ce1.json"), &there, &path("ce1"));
    let links = |node: &str| [4111, 4109].map(|vif| format!("{vif}={}/vif{vif}.pcap", shown(node)));
    let back = [&links("ce1")[..], &[format!("24={EXAMPLE}/server.pcap")]].concat();
    replay(None, &format!("{EXAMPLE}/ce2.json"), &back, &path("ce2"));
    // Room for encapsulation, for NICs that match no lengths.
    let state = fs::read_to_string(format!("{EXAMPLE}/ce1.json")).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let vifs = state.get_mut("vifs").and_then(|vifs| vifs.as_array_mut()).unwrap();
    vifs.iter_mut().filter(|vif| vif["id"] != 4121).for_each(|vif| vif["mtu"] = 1532.into());
    fs::write(path("state.json"), state.to_string()).unwrap();
    let both = [&there[..], &links("ce2")].concat();
    replay(None, &shown("state.json"), &both, &path("software"));
    for nic in NicProfile::NAMES {
        replay(Some(nic), &shown("state.json"), &both, &path(nic));
        for vif in [4121, 4111, 4109] {
            let sent = |by: &str| fs::read(path(by).join(format!("vif{vif}.pcap"))).unwrap();
            assert!(sent("software") == sent(nic), "{nic}: vif {vif}");
        }
    }
}
