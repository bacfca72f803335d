//! Starting, stopping, and everything that is refused.

use std::{fs, time::Duration};

use hw_tests::lab::{
    L3vpn, LabError, Node, NodeConfig, Options, Output, Ping, Programs, Site, Tenant, forwarding_state, run, scenario,
    state_json,
};
use proto::v1;
use tonic::Code;

/// Runs `fallback-sw` in CE1's namespace to its end.
fn fallback_sw(l3vpn: &L3vpn, arguments: &[&str]) -> Result<Output, LabError> {
    let mut command = l3vpn.ce_namespace(Site::Ce1).command(Programs::find()?.fallback_sw);
    command.args(arguments);
    run(command, Duration::from_secs(10))
}

/// A file in the lab's directory.
fn file(l3vpn: &L3vpn, name: &str, text: &str) -> Result<String, LabError> {
    let path = l3vpn.lab().directory().join(name);
    fs::write(&path, text).map_err(LabError::io(format!("write {}", path.display())))?;
    Ok(path.display().to_string())
}

#[test]
fn two_nodes_on_one_socket() -> Result<(), String> {
    scenario("two_nodes_on_one_socket", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let node = l3vpn.node(Site::Ce1)?;
        let (state, socket) = (node.state_file().display().to_string(), node.socket().display().to_string());
        let second = fallback_sw(&l3vpn, &["run", "--state", &state, "--socket", &socket])?;
        assert!(!second.status.success(), "{second:?}");
        assert!(second.stderr.contains(&socket), "the message does not name the socket: {}", second.stderr);

        // The first one lost nothing: not its socket, not its devices.
        assert_eq!(node.client().status()?.node, "ce1");
        node.host_ctl(&["status"])?;
        l3vpn.host(Tenant::Blue, Site::Ce1).ping(&Ping::to("192.168.1.100"))?.all_answered()?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn a_node_ends_on_sigterm_and_its_successor_takes_over() -> Result<(), String> {
    scenario("a_node_ends_on_sigterm_and_its_successor_takes_over", || {
        let l3vpn = L3vpn::new(&Options { nodes: false, ..Options::default() })?;
        let config = L3vpn::config(Site::Ce1, &Options::default());
        for _ in 0..2 {
            let node = Node::start(l3vpn.lab(), l3vpn.ce_namespace(Site::Ce1), &config)?;
            let socket = node.socket().to_owned();
            l3vpn.host(Tenant::Blue, Site::Ce1).ping(&Ping::to("192.168.100.1"))?.all_answered()?;
            let output = node.stop()?;
            assert!(output.status.success(), "{output:?}");
            assert!(!socket.exists(), "the socket was left behind");
        }
        // A socket whose owner was killed is no obstacle.
        let socket = l3vpn.lab().directory().join("ce1.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).map_err(LabError::io("bind a socket"))?);
        let node = Node::start(l3vpn.lab(), l3vpn.ce_namespace(Site::Ce1), &config)?;
        assert!(node.stop()?.status.success());
        Ok(())
    })
}

#[test]
fn bad_state_and_bad_delta_leave_the_old_state_in_force() -> Result<(), String> {
    scenario("bad_state_and_bad_delta_leave_the_old_state_in_force", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        bad_files(&l3vpn)?;

        let client = l3vpn.node(Site::Ce1)?.client();
        let before = client.state()?;
        let still = |what: &str| {
            assert_eq!(client.state()?, before, "{what} changed the state");
            l3vpn.host(Tenant::Blue, Site::Ce1).ping(&Ping::to("192.168.1.100"))?.all_answered().map(drop)
        };
        let refusal = |result: Result<v1::ApplyResult, LabError>, code: Code, words: &[&str]| {
            let Err(error) = result else { return Err(LabError::Violated("accepted".to_owned())) };
            assert_eq!(error.code(), Some(code), "{error}");
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{words:?} not all in: {text}");
            Ok(())
        };
        let generation = before.generation;
        let route = |nexthop| v1::Route { vrf: 18, prefix: "192.168.7.0/24".to_owned(), nexthop, ..Default::default() };
        let delta = |delta: v1::ForwardingDelta| v1::ForwardingDelta {
            base_generation: generation,
            generation: generation + 1,
            ..delta
        };

        let dangling = delta(v1::ForwardingDelta { routes: vec![route(9999)], ..Default::default() });
        refusal(client.apply_delta(dangling), Code::InvalidArgument, &["192.168.7.0/24", "9999"])?;
        still("a delta with a dangling nexthop")?;

        let orphaning = delta(v1::ForwardingDelta { remove_nexthops: vec![532], ..Default::default() });
        refusal(client.apply_delta(orphaning), Code::InvalidArgument, &["532"])?;
        still("a delta that removes a nexthop in use")?;

        let stale =
            v1::ForwardingDelta { base_generation: generation + 7, generation: generation + 8, ..Default::default() };
        refusal(client.apply_delta(stale), Code::FailedPrecondition, &[])?;
        still("a delta from another generation")?;

        let cycle = v1::Nexthop {
            id: 532,
            kind: Some(v1::nexthop::Kind::Composite(v1::CompositeNexthop {
                members: vec![v1::CompositeMember { nexthop: 489, weight: Some(100), label: None }],
            })),
            ..Default::default()
        };
        let cyclic = delta(v1::ForwardingDelta { nexthops: vec![cycle], ..Default::default() });
        refusal(client.apply_delta(cyclic), Code::InvalidArgument, &["532"])?;
        still("a delta with a cycle of nexthops")?;

        let keyless = v1::ForwardingState {
            generation: generation + 1,
            sas: vec![v1::SecurityAssociation { id: 1, spi: 255, ..Default::default() }],
            ..before.clone()
        };
        refusal(client.apply_state(keyless), Code::InvalidArgument, &["sa 1", "key"])?;
        still("a state with a security association without a key")?;

        // The state in force, sent once more, is no change; another content under its number, or an older number, is refused.
        assert_eq!(client.apply_state(before.clone())?.generation, generation);
        still("the state in force")?;
        let mut other = before.clone();
        other.routes.push(v1::Route { label: Some(280), ..route(489) });
        refusal(client.apply_state(other), Code::FailedPrecondition, &["generation"])?;
        still("another state of the same generation")?;
        assert_eq!(
            client.apply_state(v1::ForwardingState { generation: generation + 1, ..before.clone() })?.generation,
            2
        );
        refusal(client.apply_state(before.clone()), Code::FailedPrecondition, &["generation"])?;
        assert_eq!(client.state()?.generation, generation + 1);

        // After all these refusals a good change is taken.
        let good =
            v1::ForwardingDelta { routes: vec![v1::Route { label: Some(280), ..route(489) }], ..Default::default() };
        assert_eq!(client.change(good)?.generation, generation + 2);
        l3vpn.assert_healthy()
    })
}

#[test]
fn a_restart_takes_the_last_state() -> Result<(), String> {
    scenario("a_restart_takes_the_last_state", || {
        let l3vpn = L3vpn::new(&Options { nodes: false, ..Options::default() })?;
        let last_state = l3vpn.lab().directory().join("ce1.last.json");
        let start = |l3vpn: &L3vpn, generation: u64| {
            let mut config = L3vpn::config(Site::Ce1, &Options::default());
            config.state.generation = generation;
            Node::start(
                l3vpn.lab(),
                l3vpn.ce_namespace(Site::Ce1),
                &NodeConfig { last_state: Some(last_state.clone()), ..config },
            )
        };
        let route = v1::Route {
            vrf: 18,
            prefix: "192.168.7.0/24".to_owned(),
            nexthop: 489,
            label: Some(280),
            ..Default::default()
        };

        // What was applied is in force again after a crash, although the state file is still the first one.
        let node = start(&l3vpn, 1)?;
        let change = v1::ForwardingDelta { routes: vec![route.clone()], ..Default::default() };
        assert_eq!(node.client().change(change)?.generation, 2);
        let changed = node.client().state()?;
        node.crash()?;
        let node = start(&l3vpn, 1)?;
        assert_eq!(node.client().state()?, changed);
        l3vpn.host(Tenant::Blue, Site::Ce1).ping(&Ping::to("192.168.100.1"))?.all_answered()?;
        assert!(node.stop()?.status.success());

        // A state file that is newer wins.
        let node = start(&l3vpn, 7)?;
        let state = node.client().state()?;
        assert_eq!(state.generation, 7);
        assert!(!state.routes.iter().any(|known| known.prefix == route.prefix), "the older state's route is there");
        assert!(node.stop()?.status.success());

        // A kept state that is damaged is said to be so, and the state file is taken.
        fs::write(&last_state, "{ \"vifs\": [").map_err(LabError::io("damage the kept state"))?;
        let node = start(&l3vpn, 1)?;
        assert_eq!(node.client().status()?.generation, 1);
        assert!(node.log().contains("ce1.last.json"), "no word on the damaged file:\n{}", node.log());
        assert!(node.stop()?.status.success());
        Ok(())
    })
}

/// What a node refuses to start with: the message names the object and the field.
fn bad_files(l3vpn: &L3vpn) -> Result<(), LabError> {
    let good = forwarding_state(Site::Ce1, v1::IoDriver::Auto);
    let mut dangling = good.clone();
    dangling.labels.push(v1::MplsLabel { label: 300, nexthop: 9999 });
    let mut reserved = good.clone();
    reserved.labels.push(v1::MplsLabel { label: 3, nexthop: 513 });
    let mut twice = good.clone();
    twice.vifs.extend(good.vifs.first().cloned());
    let mut gone = good;
    for vif in gone.vifs.iter_mut().filter(|vif| vif.id == 4122) {
        vif.device = "ens999".to_owned();
    }
    let socket = l3vpn.lab().directory().join("bad.sock").display().to_string();
    for (name, text, words) in [
        ("no-json.json", "{ \"vifs\": [".to_owned(), vec!["no-json.json"]),
        ("unknown-field.json", "{ \"vif\": [] }".to_owned(), vec!["vif"]),
        ("dangling.json", state_json(&dangling)?, vec!["300", "9999"]),
        ("reserved.json", state_json(&reserved)?, vec!["label", "3"]),
        ("twice.json", state_json(&twice)?, vec!["vif", "4111"]),
    ] {
        let path = file(l3vpn, name, &text)?;
        for arguments in [vec!["check", "--state", &path], vec!["run", "--state", &path, "--socket", &socket]] {
            let output = fallback_sw(l3vpn, &arguments)?;
            assert!(!output.status.success(), "{name} was accepted: {output:?}");
            let said = format!("{}{}", output.stdout, output.stderr);
            assert!(words.iter().all(|word| said.contains(word)), "{words:?} not all in what {name} got: {said}");
            assert!(!said.contains("panicked"), "{said}");
        }
    }
    // A device that is not there is no fault of the state: `check` takes it.
    let path = file(l3vpn, "gone.json", &state_json(&gone)?)?;
    assert!(fallback_sw(l3vpn, &["check", "--state", &path])?.status.success());
    let missing = fallback_sw(l3vpn, &["run", "--state", "/nonexistent.json", "--socket", &socket])?;
    assert!(!missing.status.success() && missing.stderr.contains("/nonexistent.json"), "{missing:?}");
    Ok(())
}
