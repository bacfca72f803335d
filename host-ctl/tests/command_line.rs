//! The real binary against a node on a unix socket: transport, JSON, and exit status.

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::UnixListener,
    process::Stdio,
};

use common::{Node, Ran, binary};
use proto::{
    json,
    v1::{
        FlowAction, FlowTier, ForwardingState, ListFlowsRequest, ListNexthopsRequest, ListRoutesResponse,
        ListVifsResponse, ReplayReport,
    },
};

#[test]
fn every_command_is_answered_in_text() {
    let node = Node::start();
    for (line, want) in [
        ("vif --list", "vif0/6 "),
        ("vif --get 4", "vif0/4 "),
        ("vrf --list", "18 "),
        ("vrf --get 17", "17 "),
        ("vrfstats --dump", "Vrf: 18\nDiscards 0, "),
        ("vrfstats --get 17", "Vrf: 17\n"),
        ("rt --dump 18", "Number of routes: 1\n\n192.168.1.0/24      24"),
        ("rt --dump 18 --family inet6", "vRouter inet6 routing table 0/18/unicast\n"),
        ("rt --get 192.168.1.7 --vrf 18", "Match 192.168.1.7 in vRouter inet4 table 0/18/unicast\n"),
        ("nh --list", "Id:489 "),
        ("mpls --dump", "280        513\n"),
        ("mpls --get 280", "280        513\n"),
        ("flow --list", "0<=>1 "),
        ("flow --get 19524", "Flow Index:                19524\n"),
        ("drops", "Policy Deny                   0\n\nTotal                         11\n"),
        ("drops --nonzero", "No Route                      11\n\nTotal "),
        ("acl --list", "Acl:65 "),
        ("acl --get 65", "Acl:65 "),
        ("sa --list", "0x60        0x1060"),
        ("sa --get 0x60", "SAId: 0x60 SPI: 0x1060 "),
        ("status", "ce-1\n"),
        ("state get", "\"demo-red\""),
    ] {
        let out = node.run(line).ok();
        assert!(out.contains(want), "{line}:\n{out}");
    }
}

#[test]
fn every_answer_is_json_on_demand_with_zeros_and_names_of_enums() {
    let node = Node::start();
    let vifs = node.run("--json vif --get 6").ok();
    assert!(vifs.contains("\"operState\": \"OPER_STATE_UNKNOWN\"") && vifs.contains("\"references\": 0"), "{vifs}");
    let vifs: ListVifsResponse = json::parse(&vifs, "vif").unwrap();
    assert_eq!(vifs.vifs[0].vif.as_ref().unwrap().id, 6);
    let routes: ListRoutesResponse = json::parse(&node.run("rt --dump 18 --json").ok(), "rt").unwrap();
    assert_eq!(routes.routes[0].route.as_ref().unwrap().nexthop, 489);
    for line in ["vrf --list", "nh --list", "mpls --dump", "acl --list", "drops", "status", "flow --get 19524"] {
        let out = node.run(&format!("--json {line}")).ok();
        assert!(out.starts_with("{\n") && out.ends_with("\n}\n"), "{line}: {out}");
    }
}

#[test]
fn streamed_flows_are_one_json_object() {
    let node = Node::start();
    for (line, count) in [("--vrf 1", 0), ("--limit 1", 1), ("--limit 3", 3)] {
        let out = node.run(&format!("--json flow --list {line}")).ok();
        // A replay report names its flows in the same way.
        let report: ReplayReport = json::parse(&out, "flows").unwrap();
        assert_eq!(report.flows, (0..count).map(|i| common::flow(i * 2)).collect::<Vec<_>>());
    }
}

#[test]
fn filters_reach_the_node() {
    let node = Node::start();
    let line = "flow --list --vrf 17 --vif 0 --proto tcp --src 10.0.0.0/8 --dst ff::1 --sport 80 --dport 0 \
                --action nat --limit 5 --match-pairs --offload partial";
    node.run(line).ok();
    let want = ListFlowsRequest {
        vrf: Some(17),
        vif: Some(0),
        proto: Some(6),
        source: "10.0.0.0/8".into(),
        destination: "ff::1".into(),
        source_port: Some(80),
        destination_port: Some(0),
        action: FlowAction::Nat.into(),
        limit: 5,
        pairs: true,
        tier: FlowTier::Partial.into(),
    };
    assert_eq!(node.seen.lock().unwrap().flows, Some(want));
    node.run("flow --list").ok();
    assert_eq!(node.seen.lock().unwrap().flows, Some(ListFlowsRequest::default()));
    node.run("nh --get 489").ok();
    assert_eq!(node.seen.lock().unwrap().nexthops, Some(ListNexthopsRequest { ids: vec![489], follow: true }));
}

#[test]
fn what_is_not_there_exits_with_2() {
    let node = Node::start();
    for line in ["vif --get 9", "vrf --get 9", "vrfstats --get 9", "nh --get 9", "mpls --get 99", "acl --get 9"] {
        let err = node.run(line).failed(2);
        assert!(err.contains("there is no 9"), "{line}: {err}");
    }
    assert!(node.run("flow --get 7").failed(2).starts_with("host-ctl: flow 7: "));
    assert!(node.run("--json rt --dump 16").failed(2).contains("routes of vrf 16"));
}

#[test]
fn a_missing_table_or_route_prints_enoent_and_exits_with_2() {
    let node = Node::start();
    let enoent = "Labels/Misc\nvRouter(Response): [No such file or directory (2)]\n";
    for line in ["rt --dump 16", "rt --dump 16 --family inet6", "rt --get 10.0.0.1 --vrf 18"] {
        let ran = node.run(line);
        assert_eq!((ran.status, ran.err.as_str()), (Some(2), ""), "{line}");
        assert!(ran.out.ends_with(enoent), "{line}: {}", ran.out);
    }
    assert_eq!(node.run("rt --get x --vrf 18").failed(1), "host-ctl: route to x in vrf 18: 'x' is not a prefix\n");
}

#[test]
fn a_socket_that_can_not_be_used_says_why_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("file"), "").unwrap();
    drop(UnixListener::bind(path("abandoned")).unwrap());
    let deaf = UnixListener::bind(path("deaf")).unwrap();
    let hangs_up = std::thread::spawn(move || drop(deaf.accept().unwrap()));
    for (name, want) in [
        ("absent", &["absent: there is no such socket; start the node"][..]),
        ("file", &["file: not a unix socket"]),
        ("abandoned", &["abandoned: nobody listens on this socket"]),
        // It hangs up before or after the request was sent.
        ("deaf", &["deaf: what listens here does not speak gRPC", "status: the connection to the node broke"]),
    ] {
        let output = binary().arg("--socket").arg(path(name)).arg("status").output().unwrap();
        let err = Ran::from(output).failed(1);
        assert!(want.iter().any(|want| err.contains(want)), "{err}");
    }
    hangs_up.join().unwrap();
}

#[test]
fn the_socket_can_be_named_in_the_environment() {
    let node = Node::start();
    let output = binary().env("SLUICEGATE_SOCKET", node.socket()).arg("status").output().unwrap();
    assert!(Ran::from(output).ok().contains("ce-1"));
}

#[test]
fn a_node_that_does_not_answer_is_given_up() {
    let node = Node::start();
    let err = node.run("--timeout 1 neigh").failed(1);
    assert!(err.contains("the node did not answer within 1 s"), "{err}");
}

#[test]
fn an_answer_that_breaks_off_is_an_error_after_what_has_come() {
    let node = Node::start();
    let ran = node.run("flow --list --vrf 99");
    assert_eq!(ran.status, Some(1));
    assert!(ran.out.contains("0<=>1 ") && ran.err.contains("the worker is gone"), "{ran:?}");
    assert!(node.run("flow --get 0").failed(1).contains("holds no flow"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let node = Node::start();
    for line in ["flow --list --limit 20000", "--json flow --list --limit 20000"] {
        let mut child = node.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{line}");
        assert!(!first.is_empty());
    }
}

#[test]
fn wrong_usage_exits_with_1_and_help_with_0() {
    for line in [&["vif"][..], &["vif", "--lst"], &[], &["rt", "--get", "10.0.0.0/8"]] {
        let output = binary().args(line).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("Usage"), "{line:?}");
    }
    let help = Ran::from(binary().arg("--help").output().unwrap()).ok();
    assert!(help.contains("Exit status:") && help.contains("2  not found"), "{help}");
}

#[test]
fn case_10_warnings_about_an_applied_change_go_to_stderr_without_failure() {
    let node = Node::start();
    let delta = r#"{"baseGeneration": 7, "generation": 9}"#;
    let ran = node.run_with_input("state delta -", delta);
    assert_eq!((ran.status, ran.out.as_str()), (Some(0), "Generation 9 is in force\n"));
    assert_eq!(ran.err, "host-ctl: warning: /x/last.json: no space\nhost-ctl: warning: sa 17\n");
    let ran = node.run_with_input("--json state delta -", delta);
    assert!(ran.out.contains("\"/x/last.json: no space\""), "{}", ran.out);
    assert_eq!(
        node.run_with_input("state delta -", r#"{"baseGeneration": 7, "generation": 8}"#).ok(),
        "Generation 8 is in force\n"
    );
}

#[test]
fn a_state_that_was_written_is_applied_again() {
    let node = Node::start();
    for get in ["state get", "--json state get"] {
        let written = node.run(get).ok();
        let file = node.dir.path().join("state.json");
        fs::write(&file, &written).unwrap();
        let out = node.run(&format!("state apply {}", file.display())).ok();
        assert_eq!(out, "Generation 7 is in force\n");
        let read: ForwardingState = json::parse(&written, "state").unwrap();
        assert_eq!(node.seen.lock().unwrap().state.take(), Some(read));
    }
    let out = node.run_with_input("--json state apply -", r#"{"generation": 8}"#).ok();
    assert_eq!(out, "{\n  \"generation\": \"8\",\n  \"warnings\": []\n}\n");
}

#[test]
fn a_delta_is_carried_out_or_refused() {
    let node = Node::start();
    let delta = r#"{"baseGeneration": 7, "generation": 8, "removeVifs": [4]}"#;
    assert_eq!(node.run_with_input("state delta -", delta).ok(), "Generation 8 is in force\n");
    assert_eq!(node.seen.lock().unwrap().delta.as_ref().unwrap().remove_vifs, [4]);
    let err = node.run_with_input("state delta -", r#"{"baseGeneration": 6}"#).failed(1);
    assert!(err.contains("standard input: refused by the node") && err.contains("  the generation in force is 7"));
}

#[test]
fn a_state_that_is_refused_lists_all_that_is_wrong() {
    let node = Node::start();
    let err = node.run_with_input("state apply -", r#"{"generation": 13}"#).failed(1);
    assert!(err.ends_with(":\n  vif 1: mtu: 100 is out of range\n  nexthop 2: oif: is missing\n"), "{err}");
}

#[test]
fn a_file_that_is_not_a_state_is_refused_before_a_node_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state.json");
    fs::write(&file, "{\n  \"vifs\": [{\"mtu\": \"big\"}]\n}\n").unwrap();
    let run = |file: &std::path::Path| {
        Ran::from(binary().args(["--socket", "/nowhere", "state", "apply"]).arg(file).output().unwrap()).failed(1)
    };
    let err = run(&file);
    assert!(err.contains("state.json:2:") && err.contains("vifs[0].mtu: "), "{err}");
    let err = run(&dir.path().join("absent.json"));
    assert!(err.contains("absent.json: can't read it: No such file"), "{err}");
}

#[test]
fn completion_and_manual_need_no_node() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(Ran::from(binary().args(["completion", shell]).output().unwrap()).ok().contains("vrfstats"));
    }
    assert!(Ran::from(binary().arg("man").output().unwrap()).ok().contains(".TH host-ctl 1"));
    let dir = tempfile::tempdir().unwrap();
    let output = binary().args(["man", "--dir"]).arg(dir.path().join("man1")).output().unwrap();
    assert_eq!(Ran::from(output).ok(), "");
    for page in ["flow", "offload", "offload-diff", "stats-hit-rate"] {
        assert!(dir.path().join(format!("man1/host-ctl-{page}.1")).exists(), "{page}");
    }
}
