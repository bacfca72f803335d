//! The real binary against a node with a NIC, and against one without.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod common;

use common::{Nic, Node, Ran, binary};
use proto::{
    json,
    v1::{
        FlowRules, FlowTier, HitRate, ListReasonsResponse, OffloadDiff, OffloadStatus, ProbeOutcome, SetEnabledResult,
    },
};

const COMMANDS: [&str; 6] =
    ["offload status", "offload reasons", "offload rules --flow 8", "offload diff", "offload on", "offload off"];

#[test]
fn every_offload_command_is_answered_in_text() {
    let node = Node::start_with_nic(Nic::Healthy);
    for (line, want) in [
        ("offload status", "Profile:                  mlx5-hws\n"),
        ("offload reasons", "4           packets go to the host\n"),
        ("offload rules --flow 8", "Rule:                     pattern eth / end actions drop / end\n"),
        ("offload diff", "No difference: the NIC holds what it should\n"),
        ("offload on", "Offload is on; flows move to hardware as their packets come\n"),
        ("offload off", "Offload is off; 3 flow pairs went back to software\n"),
        ("stats hit-rate", "18      packets  75 (75.00 %)"),
    ] {
        let out = node.run(line).ok();
        assert!(out.contains(want), "{line}:\n{out}");
    }
}

#[test]
fn every_offload_answer_is_json_on_demand() {
    let node = Node::start_with_nic(Nic::Healthy);
    let ask = |line: &str| node.run(&format!("--json {line}")).ok();
    let status = ask("offload status");
    assert!(status.contains("\"outcome\": \"PROBE_PASSED\"") && status.contains("\"inFlight\": \"0\""), "{status}");
    let status: OffloadStatus = json::parse(&status, "status").unwrap();
    assert_eq!(status.shapes[0].outcome(), ProbeOutcome::ProbePassed);
    assert_eq!((status.latency_p50_us, status.insert_rate_per_s), (None, 12.5));
    let reasons: ListReasonsResponse = json::parse(&ask("offload reasons"), "reasons").unwrap();
    assert_eq!(reasons.reasons[0].flows, 4);
    let rules: FlowRules = json::parse(&ask("offload rules --flow 8"), "rules").unwrap();
    assert_eq!(rules.forward.unwrap().tier(), FlowTier::Hardware);
    let diff = ask("offload diff");
    assert_eq!(diff, "{\n  \"differences\": []\n}\n");
    let off: SetEnabledResult = json::parse(&ask("offload off"), "off").unwrap();
    assert!(!off.enabled && off.changed);
    let rate: HitRate = json::parse(&ask("stats hit-rate"), "rate").unwrap();
    assert_eq!(rate.total.unwrap().hardware.unwrap().bytes, 7500);
}

#[test]
fn the_switch_reaches_the_engine() {
    let node = Node::start_with_nic(Nic::Healthy);
    for (line, enabled) in [("offload on", true), ("offload off", false)] {
        node.run(line).ok();
        assert_eq!(node.seen.lock().unwrap().enabled, Some(enabled));
    }
}

#[test]
fn differences_are_written_and_exit_with_1() {
    let node = Node::start_with_nic(Nic::Forgetful);
    let ran = node.run("offload diff");
    assert_eq!((ran.status, ran.err.as_str()), (Some(1), ""));
    assert!(ran.out.starts_with("missing    flow 8 ") && ran.out.ends_with("\n1 missing, 0 extra, 0 different\n"));
    let ran = node.run("--json offload diff");
    assert_eq!((ran.status, ran.err.as_str()), (Some(1), ""));
    let diff: OffloadDiff = json::parse(&ran.out, "diff").unwrap();
    assert_eq!(diff.differences[0].flow, Some(8));
}

#[test]
fn rules_of_a_flow_that_is_not_there_exit_with_2() {
    let node = Node::start_with_nic(Nic::Healthy);
    assert_eq!(node.run("offload rules --flow 7").failed(2), "host-ctl: rules of flow 7: no flow with this index\n");
    assert!(node.run("offload rules --flow 0").failed(1).contains("holds no direction"));
}

#[test]
fn a_node_without_a_nic_says_that_it_forwards_in_software_only() {
    let node = Node::start();
    for line in COMMANDS {
        for line in [line.to_owned(), format!("--json {line}")] {
            let err = node.run(&line).failed(1);
            assert!(
                err.ends_with(": this node forwards in software only: it has no offload engine\n"),
                "{line}: {err}"
            );
        }
    }
    // Hit rates are known by every node.
    node.run("stats hit-rate").ok();
}

#[test]
fn a_tier_is_one_filter_among_others() {
    let node = Node::start();
    for (name, tier) in [
        ("hw", FlowTier::Hardware),
        ("sw", FlowTier::Software),
        ("partial", FlowTier::Partial),
        ("pending", FlowTier::Pending),
    ] {
        node.run(&format!("flow --list --offload {name} --vrf 17 --proto udp")).ok();
        let seen = node.seen.lock().unwrap().flows.take().unwrap();
        assert_eq!((seen.tier(), seen.vrf, seen.proto), (tier, Some(17), Some(17)), "{name}");
    }
    let refused = binary().args(["flow", "--list", "--offload", "hardware"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(words.contains("possible values: hw, sw, partial, pending"), "{words}");
}

#[test]
fn help_and_completion_know_the_offload_commands() {
    let help = |words: &[&str]| Ran::from(binary().args(words).output().unwrap()).ok();
    let offload = help(&["offload", "--help"]);
    for word in ["status", "reasons", "rules", "diff", "on", "off"] {
        assert!(offload.contains(&format!("\n  {word} ")), "{word}: {offload}");
    }
    assert!(help(&["offload", "diff", "--help"]).contains("1  there are differences"));
    assert!(help(&["stats", "--help"]).contains("hit-rate"));
    for shell in ["bash", "zsh", "fish"] {
        let script = help(&["completion", shell]);
        assert!(script.contains("hit-rate") && script.contains("partial"), "{shell}");
    }
}
