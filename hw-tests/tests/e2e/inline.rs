//! Tunnels whose ESP the NIC does: what comes sealed is opened, matched and forwarded in the NIC, and back, through rekeys and faults.

use std::{collections::HashSet, time::Duration};

use hw_tests::lab::{EdgeOptions, L3vpn, LabError, LeakWatch, Nic, NodeClient, Options, Site, Tunnel, scenario, until};
use proto::v1::{self, FlowTier, SaTier};

use crate::offload::{datagrams, flows_of, go_on, hardware_packets, until_settled, until_tier};

const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 7000;
/// Where MPLS over UDP goes to (RFC 7510 §5).
const MPLS_O_UDP: u32 = 6635;

/// CE1 drives a NIC of this profile, behind its NAT and two tunnels to a regional edge in software.
fn through_edge(nic: Nic) -> Options {
    Options { nic: Some(nic), underlay_mtu: 1600, edge: Some(EdgeOptions::default()), ..Options::default() }
}

/// Waits until as many SAs of the node are in the NIC, and none is left outside.
fn until_sas(client: &NodeClient, tier: SaTier, wanted: usize) -> Result<(), LabError> {
    let mut last = Vec::new();
    let reached = until(&format!("{wanted} SAs to be {tier:?}"), LIMIT, || {
        last = client.sas()?;
        Ok((last.len() == wanted && last.iter().all(|sa| sa.tier() == tier)).then_some(()))
    });
    match reached {
        Err(LabError::Timeout { what, waited, .. }) => {
            Err(LabError::Timeout { what, waited, detail: format!("{last:#?}\n{:#?}", client.offload_status()) })
        }
        other => other,
    }
}

#[test]
fn a_nic_opens_and_seals_what_goes_through_tunnels() -> Result<(), String> {
    scenario("a_nic_opens_and_seals_what_goes_through_tunnels", || {
        let mut l3vpn = L3vpn::new(&through_edge(Nic::default()))?;
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        let client = l3vpn.node(Site::Ce1)?.client();
        until_sas(client, SaTier::SaInlineProtocol, 4)?;
        let sequence = datagrams(&l3vpn, PORT)?;
        until_tier(client, PORT, FlowTier::Hardware)?;
        go_on(&sequence, 200)?;
        // Both ways, the NIC has done it all.
        until("the NIC's SAs to count packets both ways", LIMIT, || {
            let busy = client.sas()?.into_iter().filter(|sa| sa.packets > 100).count();
            Ok((busy >= 2).then_some(()))
        })?;
        // New keys, and again, while it does.
        for _ in 0..3 {
            l3vpn.rekey(&Tunnel::ALL)?;
            until_sas(client, SaTier::SaInlineProtocol, 4)?;
            until_tier(client, PORT, FlowTier::Hardware)?;
            go_on(&sequence, 100)?;
        }
        client.set_offload(false)?;
        until_tier(client, PORT, FlowTier::Software)?;
        until_sas(client, SaTier::SaInSoftware, 4)?;
        go_on(&sequence, 100)?;
        client.set_offload(true)?;
        until_sas(client, SaTier::SaInlineProtocol, 4)?;
        until_tier(client, PORT, FlowTier::Hardware)?;
        go_on(&sequence, 100)?;
        sequence.stop()?.perfect()?;
        until_settled(client)?;
        leaks.nothing_leaked()?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn a_nic_that_loses_sessions_leaves_tunnels_to_software_until_well() -> Result<(), String> {
    scenario("a_nic_that_loses_sessions_leaves_tunnels_to_software_until_well", || {
        let mut l3vpn = L3vpn::new(&through_edge(Nic::default()))?;
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        let ce1 = l3vpn.node(Site::Ce1)?;
        let client = ce1.client();
        let sequence = datagrams(&l3vpn, PORT)?;
        until_tier(client, PORT, FlowTier::Hardware)?;
        ce1.twin()?.tell("fail_every=1")?;
        ce1.twin()?.tell("reset")?;
        until_tier(client, PORT, FlowTier::Software)?;
        go_on(&sequence, 100)?;
        ce1.twin()?.tell("clear")?;
        until_sas(client, SaTier::SaInlineProtocol, 4)?;
        until_tier(client, PORT, FlowTier::Hardware)?;
        go_on(&sequence, 100)?;
        let report = sequence.stop()?;
        assert_eq!((report.there.duplicated, report.back.duplicated), (0, 0), "{report}");
        leaks.nothing_leaked()?;
        l3vpn.assert_healthy()
    })
}

/// The flows of the datagrams' outer packets at the regional edge, of which it sees only one direction each: a customer edge sends
/// each tenant's flow from a port of its own.
fn outer_flows(l3vpn: &L3vpn) -> Result<Vec<v1::Flow>, LabError> {
    let edge = l3vpn.edge()?.node()?.client();
    let mut outer = Vec::new();
    for site in [Site::Ce1, Site::Ce2] {
        let flows = flows_of(l3vpn.node(site)?.client(), PORT)?;
        for inner in flows.iter().filter(|flow| flow.tunnel_source_port != 0) {
            outer.extend(edge.flows(v1::ListFlowsRequest {
                source: site.tunnel_source().to_owned(),
                source_port: Some(inner.tunnel_source_port),
                destination_port: Some(MPLS_O_UDP),
                ..Default::default()
            })?);
        }
    }
    Ok(outer)
}

/// Waits until the regional edge has both of them in this tier; those that were replaced by others are idle.
fn until_outer_tier(l3vpn: &L3vpn, tier: FlowTier) -> Result<(), LabError> {
    let mut last = Vec::new();
    let reached = until(&format!("both outer flows to be {tier:?}"), LIMIT, || {
        last = outer_flows(l3vpn)?;
        let sources: HashSet<&str> =
            last.iter().filter(|flow| flow.tier() == tier).map(|flow| flow.source.as_str()).collect();
        Ok((sources.len() == 2).then_some(()))
    });
    match reached {
        Err(LabError::Timeout { what, waited, .. }) => {
            let edge = l3vpn.edge()?.node()?.client();
            let detail = format!("{last:#?}\n{:#?}\n{:#?}", edge.sas(), edge.offload_status());
            Err(LabError::Timeout { what, waited, detail })
        }
        other => other,
    }
}

#[test]
fn a_regional_edge_passes_traffic_from_tunnel_to_tunnel_in_its_nic() -> Result<(), String> {
    scenario("a_regional_edge_passes_traffic_from_tunnel_to_tunnel_in_its_nic", || {
        let edge = Some(EdgeOptions { nic: Some(Nic::default()), flows: true });
        let mut l3vpn = L3vpn::new(&Options { underlay_mtu: 1600, edge, ..Options::default() })?;
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        let client = l3vpn.edge()?.node()?.client();
        // Four tunnels, two of them by one port and two by the other.
        until_sas(client, SaTier::SaInlineProtocol, 8)?;
        let sequence = datagrams(&l3vpn, PORT)?;
        until_outer_tier(&l3vpn, FlowTier::Hardware)?;
        let before = hardware_packets(client)?;
        go_on(&sequence, 300)?;
        until("the hit rate to count what the NIC has passed on", LIMIT, || {
            Ok((hardware_packets(client)? >= before + 500).then_some(()))
        })?;
        // Each way, what one tunnel's SA has opened another tunnel's has sealed.
        until("the NIC's SAs to count packets on both ports", LIMIT, || {
            let busy = client.sas()?.into_iter().filter(|sa| sa.packets > 100).count();
            Ok((busy >= 4).then_some(()))
        })?;
        for _ in 0..3 {
            l3vpn.rekey(&Tunnel::ALL)?;
            until_sas(client, SaTier::SaInlineProtocol, 8)?;
            until_outer_tier(&l3vpn, FlowTier::Hardware)?;
            go_on(&sequence, 100)?;
        }
        client.set_offload(false)?;
        until_outer_tier(&l3vpn, FlowTier::Software)?;
        until_sas(client, SaTier::SaInSoftware, 8)?;
        go_on(&sequence, 100)?;
        client.set_offload(true)?;
        until_sas(client, SaTier::SaInlineProtocol, 8)?;
        until_outer_tier(&l3vpn, FlowTier::Hardware)?;
        go_on(&sequence, 100)?;
        sequence.stop()?.perfect()?;
        until_settled(client)?;
        leaks.nothing_leaked()?;
        l3vpn.assert_healthy()
    })
}
