//! The lab itself, without nodes: what the other scenarios stand on.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use hw_tests::lab::{
    AccessSwitch, Capture, End, Garbage, Host, HostConfig, IperfServer, L3vpn, Lab, LabError, Options, Ping, Process,
    Site, Tenant, Veth, WebServer, check_capture, scenario, sweep, until,
};
use nix::sys::signal::Signal;

/// Two switches, trunk to trunk; a host on VLAN 300 behind each, and one on VLAN 302 behind the second.
struct Vlans {
    _switches: [AccessSwitch; 2],
    host_a: Host,
    host_b: Host,
    host_c: Host,
    trunks: [hw_tests::lab::Namespace; 2],
    lab: Lab,
}

fn end<'a>(namespace: &'a hw_tests::lab::Namespace, device: &'a str, mac: &'a str) -> End<'a> {
    End { namespace, device, mac }
}

fn vlans() -> Result<Vlans, LabError> {
    let lab = Lab::new()?;
    let host = |role: &str, address: &str| {
        let config = HostConfig { device: "eth0", addresses: &[address], gateways: &[] };
        Host::new(lab.namespace(role)?, config)
    };
    let (host_a, host_b, host_c) = (host("a", "10.0.0.1/24")?, host("b", "10.0.0.2/24")?, host("c", "10.0.0.3/24")?);
    let trunks = [lab.namespace("switch-a")?, lab.namespace("switch-b")?];
    let [switch_a, switch_b] = &trunks;
    switch_a.silence_ipv6()?;
    switch_b.silence_ipv6()?;
    Veth::plug(end(switch_a, "trunk", "02:00:00:00:00:0a"), end(switch_b, "trunk", "02:00:00:00:00:0b"), 1500)?;
    for (host, switch, port, mac) in [
        (&host_a, switch_a, "access300", "02:00:00:00:01:0a"),
        (&host_b, switch_b, "access300", "02:00:00:00:01:0b"),
        (&host_c, switch_b, "access302", "02:00:00:00:01:0c"),
    ] {
        let own = mac.replace("02:00:00:00:01", "02:00:00:00:02");
        Veth::plug(end(switch, port, mac), end(host.namespace(), "eth0", &own), 1500)?;
        host.configure()?;
    }
    let switches = [
        AccessSwitch::start(switch_a, "trunk", &[("access300", 300)])?,
        AccessSwitch::start(switch_b, "trunk", &[("access300", 300), ("access302", 302)])?,
    ];
    Ok(Vlans { _switches: switches, host_a, host_b, host_c, trunks, lab })
}

#[test]
fn hosts_on_one_vlan_reach_each_other_and_nobody_else() -> Result<(), String> {
    scenario("hosts_on_one_vlan_reach_each_other_and_nobody_else", || {
        let vlans = vlans()?;
        let [trunk, _] = &vlans.trunks;
        let capture = Capture::start(&vlans.lab, trunk, "trunk", 2000)?;
        // Full frames too: 1500 octets of IP and the tag.
        vlans.host_a.ping(&Ping::to("10.0.0.2").size(1472).do_not_fragment())?.all_answered()?;
        let stranger = vlans.host_c.ping(&Ping::to("10.0.0.2").count(1))?;
        assert_eq!(stranger.received, 0, "{}", stranger.text);

        let _web = WebServer::start(&vlans.lab, &vlans.host_b, "page of b")?;
        assert_eq!(vlans.host_a.curl("http://10.0.0.2/")?, "page of b");
        let server = IperfServer::start(&vlans.host_b, 5201)?;
        for reverse in [false, true] {
            let report = server.test(&vlans.host_a, "10.0.0.2", 1, 1, reverse)?;
            assert!(report.octets > 1_000_000, "{report}");
        }

        let verdict = check_capture(&capture.stop()?)?;
        assert!(verdict.complaints.is_empty(), "{:#?}", verdict.complaints);
        assert!(
            verdict.protocols.keys().all(|chain| chain.starts_with("eth:ethertype:vlan:")),
            "{:#?}",
            verdict.protocols
        );
        assert!(verdict.frames > 100, "{} frames", verdict.frames);
        Ok(())
    })
}

#[test]
fn the_transit_paths_route_between_both_customer_edges() -> Result<(), String> {
    scenario("the_transit_paths_route_between_both_customer_edges", || {
        let l3vpn = L3vpn::new(&Options { nodes: false, ..Options::default() })?;
        // The kernel of each CE's namespace stands in for the node.
        for site in [Site::Ce1, Site::Ce2] {
            let ce = l3vpn.ce_namespace(site);
            let (a, b) = if site == Site::Ce1 { ("172.28.13", "172.28.14") } else { ("172.28.23", "172.28.24") };
            ce.ip(&format!("addr add {a}.36/24 dev ens161"))?;
            ce.ip(&format!("addr add {b}.36/24 dev ens256"))?;
            ce.ip(&format!("addr add {}/32 dev lo", site.tunnel_source()))?;
            let far = site.other().tunnel_source();
            ce.ip(&format!("route add {far} src {} nexthop via {a}.1 nexthop via {b}.1", site.tunnel_source()))?;
        }
        let ce1 = l3vpn.ce_namespace(Site::Ce1);
        let report =
            ce1.run("ping", &["-n", "-c", "3", "-i", "0.05", "-W", "1", "10.101.9.245"], Duration::from_secs(10))?;
        assert!(report.status.success(), "{report:?}");
        Ok(())
    })
}

#[test]
fn garbage_leaves_the_sender_as_it_was_made() -> Result<(), String> {
    scenario("garbage_leaves_the_sender_as_it_was_made", || {
        let vlans = vlans()?;
        let mut garbage = Garbage::new(1);
        garbage.aim(vlans.host_a.namespace(), "eth0", [2, 0, 0, 0, 2, 0x0a])?;
        let report = garbage.flood(Duration::from_millis(200), 20_000)?;
        assert!(report.sent > 100, "{report:?}");
        Ok(())
    })
}

fn start_lab() -> Result<(Process, String), LabError> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hw-tests"));
    command.args(["lab", "--without-nodes"]).stdin(Stdio::null());
    let mut process = Process::spawn(command)?;
    until("the lab to be ready", Duration::from_secs(60), || {
        if process.ended()?.is_some() {
            return Err(LabError::Violated(format!("the lab ended: {}{}", process.stdout(), process.stderr())));
        }
        Ok(process.stdout().contains("lab: ready").then_some(()))
    })?;
    let prefix = format!("sluicegate-{}-", process.pid());
    Ok((process, prefix))
}

fn left(prefix: &str) -> Vec<String> {
    ["/run/netns", std::env::temp_dir().to_str().unwrap_or("/tmp")]
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

#[test]
fn an_interrupted_lab_leaves_nothing_behind() -> Result<(), String> {
    scenario("an_interrupted_lab_leaves_nothing_behind", || {
        // Without the rights to make a lab this test has nothing to look at.
        drop(Lab::new()?);
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let (process, prefix) = start_lab()?;
            assert!(left(&prefix).len() >= 9, "{:?}", left(&prefix));
            process.signal(signal)?;
            let output = process.wait(Duration::from_secs(20))?;
            assert_eq!(output.status.code(), Some(130), "{}", output.stderr);
            assert_eq!(left(&prefix), Vec::<String>::new());
        }
        Ok(())
    })
}

#[test]
fn a_killed_lab_is_swept_by_the_next_one() -> Result<(), String> {
    scenario("a_killed_lab_is_swept_by_the_next_one", || {
        drop(Lab::new()?);
        let (process, prefix) = start_lab()?;
        process.signal(Signal::SIGKILL)?;
        process.wait(Duration::from_secs(20))?;
        assert!(left(&prefix).len() >= 9, "{:?}", left(&prefix));
        sweep()?;
        assert_eq!(left(&prefix), Vec::<String>::new());
        Ok(())
    })
}

#[test]
fn a_host_forgets_its_addresses_with_its_link_and_gets_them_again() -> Result<(), String> {
    scenario("a_host_forgets_its_addresses_with_its_link_and_gets_them_again", || {
        let l3vpn = L3vpn::new(&Options { nodes: false, ..Options::default() })?;
        let host = l3vpn.host(Tenant::Green, Site::Ce1);
        assert!(host.namespace().ip("addr show dev eth0")?.contains("192.168.100.100"));
        l3vpn.unplug_site1(Tenant::Green)?;
        assert!(host.namespace().ip("addr show dev eth0").is_err());
        l3vpn.plug_site1(Tenant::Green)?;
        assert!(host.namespace().ip("addr show dev eth0")?.contains("192.168.100.100"));
        Ok(())
    })
}
