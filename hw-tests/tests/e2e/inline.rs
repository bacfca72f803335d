//! Tunnels whose ESP the NIC does: what comes sealed is opened, matched and forwarded in the NIC, and back, through rekeys and faults.

use std::time::Duration;

use hw_tests::lab::{EdgeOptions, L3vpn, LabError, LeakWatch, Nic, NodeClient, Options, Site, Tunnel, scenario, until};
use proto::v1::{FlowTier, SaTier};

use crate::offload::{datagrams, go_on, until_settled, until_tier};

const LIMIT: Duration = Duration::from_secs(10);
const PORT: u16 = 7000;

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
fn a_nic_that_loses_its_sessions_leaves_the_tunnels_to_software_until_it_is_well() -> Result<(), String> {
    scenario("a_nic_that_loses_its_sessions_leaves_the_tunnels_to_software_until_it_is_well", || {
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
