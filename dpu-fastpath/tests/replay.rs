//! A replay behind a NIC sends what a replay in software sends, octet for octet, whatever the NIC.
#![allow(clippy::unwrap_used, clippy::panic)]

mod replay_ipsec;

use std::{fs, path::Path, process::Command};

use offload_rules::lower::{FailureClass, NicProfile, NotOffloaded};
use replay_ipsec::{SECRET, edge, hosts, sizes};

/// DPDK's own mlx5 driver with software steering: by a switch, and by hairpin queues.
const JUDGED: [&str; 2] = ["mlx5-judge", "mlx5-judge-hairpin"];
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/l3vpn");

fn replay(nic: Option<&str>, state: &str, inputs: &[String], out: &Path) {
    replay_with(nic, &[], state, inputs, out);
}

fn replay_with(nic: Option<&str>, faults: &[&str], state: &str, inputs: &[String], out: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dpu-fastpath"));
    command.args(["replay", "--state", state, "--out"]).arg(out);
    inputs.iter().for_each(|input| _ = command.args(["--in", input]));
    nic.iter().for_each(|nic| _ = command.args(["--nic", nic]));
    faults.iter().for_each(|fault| _ = command.args(["--fault", fault]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{nic:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The library that stands for a NIC, beside the program.
fn build(package: &str) {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", package, "--target-dir"]);
    let bin = Path::new(env!("CARGO_BIN_EXE_dpu-fastpath")).parent().unwrap();
    build.arg(bin.parent().unwrap());
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "{package} does not build");
}

/// The first node of the example, with room for encapsulation, for NICs that match no lengths.
fn room_for_tunnels() -> String {
    let state = fs::read_to_string(format!("{EXAMPLE}/ce1.json")).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let vifs = state.get_mut("vifs").and_then(|vifs| vifs.as_array_mut()).unwrap();
    vifs.iter_mut().filter(|vif| vif["id"] != 4121).for_each(|vif| vif["mtu"] = 1532.into());
    state.to_string()
}

/// What arrives at the first node of the example: a tenant's packets, and what the other node makes of the answers.
fn both_ways(folder: &Path, captures: &str) -> Vec<String> {
    let shown = |name: &str| folder.join(name).display().to_string();
    let there = [format!("4121={captures}/tenant.pcap")];
    replay(None, &format!("{EXAMPLE}/ce1.json"), &there, &folder.join("ce1"));
    let links = |node: &str| [4111, 4109].map(|vif| format!("{vif}={}/vif{vif}.pcap", shown(node)));
    let back = [&links("ce1")[..], &[format!("24={captures}/server.pcap")]].concat();
    replay(None, &format!("{EXAMPLE}/ce2.json"), &back, &folder.join("ce2"));
    [&there[..], &links("ce2")].concat()
}

/// Without a counter mlx5 creates no rule, and has an errno of its own for that where it has counters in batches.
#[test]
fn a_card_that_has_no_counters_left_is_full() {
    const OFFLOAD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/offload");
    build("mlx5-judge");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let state = path("state.json");
    fs::write(&state, room_for_tunnels()).unwrap();
    let both = both_ways(folder.path(), OFFLOAD);
    let full = NotOffloaded::Failed(FailureClass::Capacity).to_string();
    for (faults, words) in [(&[][..], "HARDWARE"), (&["counter=1+"], &full)] {
        replay_with(Some(JUDGED[0]), faults, &state.display().to_string(), &both, &path("out"));
        let report = fs::read_to_string(path("out").join("report.json")).unwrap();
        assert!(report.contains(words), "{report}");
        assert_eq!(report.contains("HARDWARE"), faults.is_empty(), "{report}");
    }
}

#[test]
fn every_nic_sends_what_software_sends() {
    build("nic-twin");
    build("mlx5-judge");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    let both = both_ways(folder.path(), EXAMPLE);
    fs::write(path("state.json"), room_for_tunnels()).unwrap();
    replay(None, &shown("state.json"), &both, &path("software"));
    // The last ones are DPDK's own driver, on a card that isn't there: what it made of our rules is executed.
    for nic in NicProfile::NAMES.into_iter().chain(JUDGED) {
        replay(Some(nic), &shown("state.json"), &both, &path(nic));
        for vif in [4121, 4111, 4109] {
            let sent = |by: &str| fs::read(path(by).join(format!("vif{vif}.pcap"))).unwrap();
            assert!(sent("software") == sent(nic), "{nic}: vif {vif}");
        }
    }
}

/// RFC 4301 §5.1: what a tunnel protects leaves by it, and what comes by it in the clear is not taken. Byte for byte, whoever seals.
#[test]
fn every_nic_seals_and_opens_what_software_seals_and_opens() {
    build("nic-twin");
    let folder = tempfile::tempdir().unwrap();
    let shown = |name: &str| folder.path().join(name).display().to_string();
    hosts(folder.path());
    for node in ["ce1", "ce2"] {
        let state = fs::read_to_string(format!("{EXAMPLE}/{node}.json")).unwrap();
        fs::write(shown(&format!("{node}.json")), edge(node, &state)).unwrap();
    }
    let links = |node: &str| [4111, 4109].map(|vif| format!("{vif}={}/vif{vif}.pcap", shown(node)));
    let there = [format!("4121={}", shown("tenant.pcap"))];
    replay(None, &shown("ce1.json"), &there, Path::new(&shown("ce1")));
    let back = [&links("ce1")[..], &[format!("24={}", shown("server.pcap"))]].concat();
    replay(None, &shown("ce2.json"), &back, Path::new(&shown("ce2")));
    let both = [&there[..], &links("ce2")].concat();
    replay(None, &shown("ce1.json"), &both, Path::new(&shown("software")));
    let sent = |by: &str, vif: u32| fs::read(format!("{}/vif{vif}.pcap", shown(by))).unwrap();
    let holds = |capture: &[u8]| capture.windows(SECRET.len()).any(|octets| octets == SECRET);
    let clear = holds(&sent("software", 4121));
    assert!(clear, "what comes to the tenant is in the clear");
    // Twins that refuse sessions, rules, or everything: then software seals.
    let faults = [&["sa_full_at=0"][..], &["fail_every=2"], &["dead=1"]];
    let nics = NicProfile::NAMES.into_iter().map(|nic| (nic, &[][..])).chain(faults.map(|faults| ("twin", faults)));
    for (nic, faults) in nics {
        let by = format!("{nic}{}", faults.concat());
        replay_with(Some(nic), faults, &shown("ce1.json"), &both, Path::new(&shown(&by)));
        for vif in [4111, 4109, 4121] {
            assert!(vif == 4121 || !holds(&sent(&by, vif)), "{by}: in the clear on vif {vif}");
            assert!(sent("software", vif) == sent(&by, vif), "{by}: vif {vif}");
        }
    }
    let report = fs::read_to_string(format!("{}/report.json", shown("twin"))).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let flows = report["flows"].as_array().unwrap();
    assert!(flows.len() == 6 && flows.iter().all(|flow| flow["tier"] == "HARDWARE"), "{flows:?}");
}

/// Devices take a little more than their MTU, and some take much more than their vif's.
#[test]
fn case_12_frames_above_the_vifs_mtu_leave_a_nic_as_they_leave_software() {
    build("nic-twin");
    let folder = tempfile::tempdir().unwrap();
    let shown = |name: &str| folder.path().join(name).display().to_string();
    sizes(folder.path());
    let inputs = [format!("4121={}", shown("sizes.pcap"))];
    for tenant in [1500, 1400] {
        let state = fs::read_to_string(format!("{EXAMPLE}/ce1.json")).unwrap();
        let mut state: serde_json::Value = serde_json::from_str(&state).unwrap();
        for vif in state["vifs"].as_array_mut().unwrap() {
            vif["mtu"] = if vif["id"] == 4121 { tenant.into() } else { 1532.into() };
        }
        fs::write(shown("state.json"), state.to_string()).unwrap();
        replay(None, &shown("state.json"), &inputs, Path::new(&shown("software")));
        for nic in NicProfile::NAMES {
            replay(Some(nic), &shown("state.json"), &inputs, Path::new(&shown(nic)));
            for vif in [4121, 4111, 4109] {
                let sent = |by: &str| fs::read(format!("{}/vif{vif}.pcap", shown(by))).unwrap_or_default();
                assert!(sent("software") == sent(nic), "{nic}, MTU {tenant}: vif {vif}");
            }
        }
    }
}
