//! Flows that move to the NIC twin and back: nothing is lost, nothing overtakes, and the operator sees it.

use std::time::Duration;

use hw_tests::lab::{
    Capture, IperfServer, L3vpn, LabError, Nic, NodeClient, Options, Sequence, Site, Tenant, check_capture, scenario,
    until,
};
use proto::v1::{self, FlowTier};

const LIMIT: Duration = Duration::from_secs(10);
const INTERVAL: Duration = Duration::from_millis(2);
/// Tenants of 1500 octets, and room for the 32 of encapsulation: also for NICs that do not match lengths.
const ROOMY: u16 = 1532;

pub(crate) fn on_twin(nic: Nic) -> Options {
    Options { nic: Some(nic), underlay_mtu: ROOMY, ..Options::default() }
}

/// Numbered datagrams of the blue tenant, from site 1 to site 2 and back.
pub(crate) fn datagrams(l3vpn: &L3vpn, port: u16) -> Result<Sequence, LabError> {
    let end = |site, address: [u8; 4]| (l3vpn.host(Tenant::Blue, site), (address, port).into());
    Sequence::start(end(Site::Ce1, [192, 168, 100, 100]), end(Site::Ce2, [192, 168, 1, 100]), INTERVAL)
}

/// CE1's flows with this destination port, the datagrams' among them.
pub(crate) fn flows_of(client: &NodeClient, port: u16) -> Result<Vec<v1::Flow>, LabError> {
    client.flows(v1::ListFlowsRequest { destination_port: Some(port.into()), ..Default::default() })
}

/// Waits until all flows of a port run in this tier.
pub(crate) fn until_tier(client: &NodeClient, port: u16, tier: FlowTier) -> Result<Vec<v1::Flow>, LabError> {
    let mut last = Vec::new();
    let reached = until(&format!("the flows of port {port} to be {tier:?}"), LIMIT, || {
        last = flows_of(client, port)?;
        Ok((!last.is_empty() && last.iter().all(|flow| flow.tier() == tier)).then_some(()))
    });
    match reached {
        Ok(()) => Ok(last),
        Err(LabError::Timeout { what, waited, .. }) => {
            Err(LabError::Timeout { what, waited, detail: format!("{last:#?}\n{:#?}", client.offload_status()) })
        }
        Err(other) => Err(other),
    }
}

/// Waits until desired and installed rules are the same.
pub(crate) fn until_settled(client: &NodeClient) -> Result<(), LabError> {
    let mut last = Vec::new();
    let settled = until("desired and installed rules to be the same", LIMIT, || {
        last = client.offload_diff()?;
        Ok(last.is_empty().then_some(()))
    });
    match settled {
        Err(LabError::Timeout { what, waited, .. }) => {
            Err(LabError::Timeout { what, waited, detail: format!("{last:#?}") })
        }
        other => other,
    }
}

/// Waits until this many more datagrams have come back.
pub(crate) fn go_on(sequence: &Sequence, datagrams: u64) -> Result<(), LabError> {
    let target = sequence.returned() + datagrams;
    until("numbered datagrams to come back", LIMIT, || Ok((sequence.returned() >= target).then_some(())))
}

/// Packets that the NIC has handled, as the hit rate has it.
pub(crate) fn hardware_packets(client: &NodeClient) -> Result<u64, LabError> {
    let total = client.hit_rate()?.total.unwrap_or_default();
    Ok(total.hardware.unwrap_or_default().packets)
}

#[test]
fn offload_moves_bulk_traffic_to_the_nic() -> Result<(), String> {
    scenario("offload_moves_bulk_traffic_to_the_nic", || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::default()))?;
        let captures = l3vpn
            .transits()?
            .iter()
            .map(|transit| Capture::start(l3vpn.lab(), transit, "to-ce1", 5000))
            .collect::<Result<Vec<_>, _>>()?;
        let (host1, host2) = (l3vpn.host(Tenant::Blue, Site::Ce1), l3vpn.host(Tenant::Blue, Site::Ce2));
        let client = l3vpn.node(Site::Ce1)?.client();
        let server = IperfServer::start(host2, 5201)?;
        for (address, reverse) in [("192.168.1.100", false), ("192.168.1.100", true), ("fd00:1::100", false)] {
            let running = server.spawn(host1, address, 3, 2, reverse)?;
            until("bulk flows in hardware", LIMIT, || {
                let flows = flows_of(client, 5201)?;
                let moved =
                    flows.iter().filter(|flow| flow.tier() == FlowTier::Hardware && flow.hardware_packets > 100);
                Ok((moved.count() >= 2).then_some(()))
            })?;
            let report = IperfServer::finish(running, 3)?;
            assert!(report.octets > 1_000_000, "{report}");
        }
        let total = client.hit_rate()?.total.unwrap_or_default();
        let of = |traffic: Option<v1::Traffic>| traffic.unwrap_or_default().packets;
        let (hardware, software) = (of(total.hardware), of(total.software) + of(total.slow_path));
        assert!(hardware > 50 * software, "{total:?}");
        // What the NIC sent is right: tshark has seen it on the wire.
        for capture in captures {
            let verdict = check_capture(&capture.stop()?)?;
            assert!(verdict.complaints.is_empty(), "{:#?}", verdict.complaints);
        }
        until_settled(client)?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn no_datagram_is_lost_or_reordered_between_software_and_hardware() -> Result<(), String> {
    scenario("no_datagram_is_lost_or_reordered_between_software_and_hardware", || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::default()))?;
        let client = l3vpn.node(Site::Ce1)?.client();
        let sequence = datagrams(&l3vpn, 7000)?;
        for _ in 0..10 {
            until_tier(client, 7000, FlowTier::Hardware)?;
            go_on(&sequence, 50)?;
            let before = hardware_packets(client)?;
            client.set_offload(false)?;
            let flows = until_tier(client, 7000, FlowTier::Software)?;
            assert!(flows.iter().all(|flow| flow.not_offloaded_reason.contains("switched off")), "{flows:#?}");
            go_on(&sequence, 50)?;
            assert!(hardware_packets(client)? > before.saturating_sub(1), "the NIC's counts went back");
            client.set_offload(true)?;
        }
        until_tier(client, 7000, FlowTier::Hardware)?;
        go_on(&sequence, 50)?;
        println!("20 moves: {}", sequence.stop()?.perfect()?);
        until_settled(client)?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn a_route_change_replaces_rules_without_loss() -> Result<(), String> {
    scenario("a_route_change_replaces_rules_without_loss", || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::default()))?;
        let (ce1, ce2) = (l3vpn.node(Site::Ce1)?.client(), l3vpn.node(Site::Ce2)?.client());
        let sequence = datagrams(&l3vpn, 7000)?;
        let flows = until_tier(ce1, 7000, FlowTier::Hardware)?;
        let forward = flows.iter().find(|flow| flow.label.is_some()).cloned().unwrap_or_default();
        assert_eq!(forward.label, Some(280), "{flows:#?}");
        // Another label: known at CE2 first, then pushed by CE1.
        let label = v1::MplsLabel { label: 290, nexthop: 513 };
        ce2.change(v1::ForwardingDelta { labels: vec![label], ..Default::default() })?;
        let route = v1::Route {
            vrf: 18,
            prefix: "192.168.1.0/24".to_owned(),
            nexthop: 489,
            label: Some(290),
            ..Default::default()
        };
        ce1.change(v1::ForwardingDelta { routes: vec![route], ..Default::default() })?;
        until("the rule that pushes label 290", LIMIT, || {
            let rules = ce1.offload_rules(forward.index)?.forward.unwrap_or_default().rules;
            // 290 << 4 | 1: the label with the bottom-of-stack bit, in the encapsulation header.
            Ok(rules
                .iter()
                .any(|rule| rule.text.to_lowercase().replace([' ', ':'], "").contains("01221"))
                .then_some(()))
        })?;
        until_tier(ce1, 7000, FlowTier::Hardware)?;
        go_on(&sequence, 100)?;
        println!("one replacement: {}", sequence.stop()?.perfect()?);
        until_settled(ce1)?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn a_policy_that_denies_a_flow_takes_it_out_of_the_nic() -> Result<(), String> {
    scenario("a_policy_that_denies_a_flow_takes_it_out_of_the_nic", || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::default()))?;
        let client = l3vpn.node(Site::Ce1)?.client();
        let sequence = datagrams(&l3vpn, 7000)?;
        until_tier(client, 7000, FlowTier::Hardware)?;
        let acl = |action: v1::AclAction| v1::Acl {
            id: 65,
            name: "permit-all".to_owned(),
            entries: vec![v1::Ace { id: 1, action: action.into(), ..Default::default() }],
            default_action: 0,
        };
        client.change(v1::ForwardingDelta { acls: vec![acl(v1::AclAction::Deny)], ..Default::default() })?;
        let mut returned = sequence.returned();
        until("the datagrams to stop", LIMIT, || {
            std::thread::sleep(Duration::from_millis(200));
            let now = sequence.returned();
            Ok((std::mem::replace(&mut returned, now) == now).then_some(()))
        })?;
        client.change(v1::ForwardingDelta { acls: vec![acl(v1::AclAction::Permit)], ..Default::default() })?;
        go_on(&sequence, 100)?;
        until_tier(client, 7000, FlowTier::Hardware)?;
        sequence.stop()?;
        until_settled(client)?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn offload_on_an_mlx5_profile() -> Result<(), String> {
    // By templates, and one rule after the other.
    ["mlx5-hws", "mlx5-sws"].into_iter().try_for_each(offload_on)
}

fn offload_on(profile: &str) -> Result<(), String> {
    scenario(&format!("offload_on_an_mlx5_profile: {profile}"), || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::of(profile)))?;
        let client = l3vpn.node(Site::Ce1)?.client();
        assert_eq!(client.offload_status()?.profile, profile);
        let sequence = datagrams(&l3vpn, 7000)?;
        // Hardware steering looks into tunnels from DPDK 23.03 on; before, what goes into one is marked.
        let blind = profile == "mlx5-hws" && client.offload_status()?.dpdk_version.starts_with("22.");
        if blind {
            until("the way into the tunnel to be marked", LIMIT, || {
                let flows = flows_of(client, 7000)?;
                let tier = |flow: &v1::Flow| (flow.label.is_some(), flow.tier());
                let wanted = [(true, FlowTier::Partial), (false, FlowTier::Software)];
                Ok(wanted.iter().all(|wanted| flows.iter().any(|flow| tier(flow) == *wanted)).then_some(()))
            })?;
        } else {
            until_tier(client, 7000, FlowTier::Hardware)?;
        }
        go_on(&sequence, 200)?;
        println!("{profile}: {}", sequence.stop()?.perfect()?);
        until_settled(client)?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn a_nic_that_only_steers_carries_flows_in_part() -> Result<(), String> {
    scenario("a_nic_that_only_steers_carries_flows_in_part", || {
        let mut l3vpn = L3vpn::new(&on_twin(Nic::of("ice")))?;
        let client = l3vpn.node(Site::Ce1)?.client();
        let sequence = datagrams(&l3vpn, 7000)?;
        let mut flows = Vec::new();
        until("the tenant's direction to be marked", LIMIT, || {
            flows = flows_of(client, 7000)?;
            Ok(flows.iter().any(|flow| flow.tier() == FlowTier::Partial).then_some(()))
        })?;
        // It does not look into tunnels: what comes out of one is software's.
        for flow in &flows {
            let tier = if flow.label.is_some() { FlowTier::Partial } else { FlowTier::Software };
            assert_eq!(flow.tier(), tier, "{flow:#?}");
            assert!(!flow.not_offloaded_reason.is_empty(), "{flow:#?}");
        }
        let marked = || -> Result<u64, LabError> {
            let total = client.hit_rate()?.total.unwrap_or_default();
            Ok(total.partial.unwrap_or_default().packets)
        };
        let before = marked()?;
        go_on(&sequence, 200)?;
        assert!(marked()? >= before + 100, "packets come with marks");
        println!("ice: {}", sequence.stop()?.perfect()?);
        until_settled(client)?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn two_workers_share_one_nic() -> Result<(), String> {
    scenario("two_workers_share_one_nic", || {
        let mut l3vpn = L3vpn::new(&Options { workers: 2, ..on_twin(Nic::default()) })?;
        let client = l3vpn.node(Site::Ce1)?.client();
        let sequence = datagrams(&l3vpn, 7000)?;
        // In hardware before the bulk begins: while a flow moves, a packet that waits in a ring between two workers can be overtaken.
        until_tier(client, 7000, FlowTier::Hardware)?;
        go_on(&sequence, 100)?;
        let server = IperfServer::start(l3vpn.host(Tenant::Blue, Site::Ce2), 5201)?;
        let running = server.spawn(l3vpn.host(Tenant::Blue, Site::Ce1), "192.168.1.100", 3, 8, false)?;
        until("flows of both workers in hardware", LIMIT, || {
            let flows = flows_of(client, 5201)?;
            let of = |worker| {
                let own = flows.iter().filter(|flow| flow.worker == worker);
                own.filter(|flow| flow.tier() == FlowTier::Hardware && flow.hardware_packets > 0).count()
            };
            Ok((of(0) >= 1 && of(1) >= 1).then_some(()))
        })?;
        let report = IperfServer::finish(running, 3)?;
        assert!(report.octets > 1_000_000, "{report}");
        until_tier(client, 7000, FlowTier::Hardware)?;
        go_on(&sequence, 100)?;
        // Beside the bulk, packets may wait in sockets that overflow: none may overtake.
        let report = sequence.stop()?;
        assert_eq!((report.there.reordered, report.back.reordered, report.back.duplicated), (0, 0, 0), "{report}");
        until_settled(client)?;
        l3vpn.assert_healthy()
    })
}
