//! The second part of `make demo`: CE1 drives a NIC, and flows and tunnels move into it: ESP in, flow rule, out; and back.

use std::time::{Duration, Instant};

use proto::v1::{self, FlowTier, SaTier};

use crate::{
    demo::{account, dump, step, title},
    lab::{
        EdgeOptions, IperfServer, L3vpn, LabError, LeakWatch, Nic, NodeClient, Options, Sequence, Site, Tenant, Tunnel,
        until,
    },
};

/// Seconds of the iperf3 run.
const IPERF_SECONDS: u32 = 5;
const IPERF_PORT: u16 = 5202;
const DATAGRAM_PORT: u16 = 7000;
const LIMIT: Duration = Duration::from_secs(10);
/// Numbered datagrams, one each 2 ms, that a reset of the NIC may cost.
const MOST_LOST_BY_RESET: u64 = 20;
/// Share of packets that the NIC has to forward by itself while iperf3 runs.
const WANTED_HIT_RATE: f64 = 0.99;

/// Runs the part and prints it.
///
/// # Errors
/// The first thing that does not hold.
pub fn run(options: &Options, profile: &str) -> Result<(), LabError> {
    let begun = Instant::now();
    title(&format!("Part 2: CE1 drives a NIC (the twin of a NIC, profile {profile}; no SmartNIC is needed)"));
    let edge = Some(EdgeOptions::default());
    let options = Options { nic: Some(Nic::of(profile)), underlay_mtu: 1600, edge, ..options.clone() };
    let mut l3vpn = L3vpn::new(&options)?;
    let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
    dump(l3vpn.node(Site::Ce1)?, &["offload", "status"], usize::MAX)?;
    tunnels(&l3vpn)?;

    bulk(&l3vpn)?;
    let sequence = datagrams(&l3vpn)?;
    fault(&l3vpn, &sequence)?;
    let report = sequence.stop()?;
    println!("{report}");
    // What arrived sealed between the reset and its notice: the window that tells replayed packets was in the NIC.
    if report.there.duplicated + report.back.duplicated > 0 || report.lost() > MOST_LOST_BY_RESET {
        return Err(LabError::Violated(format!("a reset of the NIC: {report}")));
    }
    let sequence = datagrams(&l3vpn)?;
    all_in(l3vpn.node(Site::Ce1)?.client(), DATAGRAM_PORT, FlowTier::Hardware)?;
    route_change(&l3vpn, &sequence)?;
    switch(&l3vpn, &sequence)?;
    rekey(&l3vpn, &sequence)?;
    title("Numbered datagrams through the changes, the switch and the rekeys, there and back");
    println!("{}", sequence.stop()?.perfect()?);

    title("Desired rules against installed rules");
    let ce1 = l3vpn.node(Site::Ce1)?;
    until("desired and installed rules to be the same", LIMIT, || {
        Ok(ce1.client().offload_diff()?.is_empty().then_some(()))
    })?;
    dump(ce1, &["offload", "diff"], usize::MAX)?;
    dump(ce1, &["offload", "reasons"], usize::MAX)?;
    println!("nothing in the clear on {}", leaks.nothing_leaked()?.join(", "));
    account(&mut l3vpn)?;
    step(&format!("took {:.0} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// The NIC holds the SAs of both tunnels.
fn tunnels(l3vpn: &L3vpn) -> Result<(), LabError> {
    let ce1 = l3vpn.node(Site::Ce1)?;
    until("the SAs to be in the NIC", LIMIT, || {
        let sas = ce1.client().sas()?;
        Ok((!sas.is_empty() && sas.iter().all(|sa| sa.tier() != SaTier::SaInSoftware)).then_some(()))
    })?;
    title("The SAs of CE1, in the NIC");
    dump(ce1, &["sa", "--list"], usize::MAX)
}

/// New keys for all tunnels, while the NIC opens and seals.
fn rekey(l3vpn: &L3vpn, sequence: &Sequence) -> Result<(), LabError> {
    title("Rekey of all tunnels, whose ESP is in the NIC");
    for _ in 0..2 {
        let rekeyed = l3vpn.rekey(&Tunnel::ALL)?;
        println!("{} tunnels in {} ms", rekeyed.tunnels, rekeyed.took.as_millis());
        all_in(l3vpn.node(Site::Ce1)?.client(), DATAGRAM_PORT, FlowTier::Hardware)?;
        go_on(sequence)?;
    }
    tunnels(l3vpn)
}

fn datagrams(l3vpn: &L3vpn) -> Result<Sequence, LabError> {
    Sequence::start(
        (l3vpn.host(Tenant::Blue, Site::Ce1), ([192, 168, 100, 100], DATAGRAM_PORT).into()),
        (l3vpn.host(Tenant::Blue, Site::Ce2), ([192, 168, 1, 100], DATAGRAM_PORT).into()),
        Duration::from_millis(2),
    )
}

fn packets(traffic: Option<v1::Traffic>) -> u64 {
    traffic.unwrap_or_default().packets
}

/// Packets that the NIC forwarded, and all packets of tenants' flows.
fn tiers(client: &NodeClient) -> Result<(u64, u64), LabError> {
    let total = client.hit_rate()?.total.unwrap_or_default();
    let hardware = packets(total.hardware);
    Ok((hardware, hardware + packets(total.partial) + packets(total.software) + packets(total.slow_path)))
}

fn flows(client: &NodeClient, port: u16) -> Result<Vec<v1::Flow>, LabError> {
    client.flows(v1::ListFlowsRequest { destination_port: Some(port.into()), ..Default::default() })
}

fn all_in(client: &NodeClient, port: u16, tier: FlowTier) -> Result<(), LabError> {
    until(&format!("the flows of port {port} to be {tier:?}"), LIMIT, || {
        let flows = flows(client, port)?;
        Ok((!flows.is_empty() && flows.iter().all(|flow| flow.tier() == tier)).then_some(()))
    })
}

/// iperf3: the flows move, the hit rate climbs, and one rule is shown.
fn bulk(l3vpn: &L3vpn) -> Result<(), LabError> {
    let ce1 = l3vpn.node(Site::Ce1)?;
    let client = ce1.client();
    title("Hit rate before");
    dump(ce1, &["stats", "hit-rate"], usize::MAX)?;
    title("iperf3, TCP, 4 connections: their flows move to the NIC");
    let server = IperfServer::start(l3vpn.host(Tenant::Blue, Site::Ce2), IPERF_PORT)?;
    let before = tiers(client)?;
    let running = server.spawn(l3vpn.host(Tenant::Blue, Site::Ce1), "192.168.1.100", IPERF_SECONDS, 4, false)?;
    let flow = until("flows in hardware that carry packets", LIMIT, || {
        let flows = flows(client, IPERF_PORT)?;
        Ok(flows.into_iter().find(|flow| flow.tier() == FlowTier::Hardware && flow.hardware_packets > 1000))
    })?;
    dump(ce1, &["flow", "--list", "--offload", "hw"], 40)?;
    title("The rules of one pair");
    dump(ce1, &["offload", "rules", "--flow", &flow.index.to_string()], usize::MAX)?;
    println!("host1 -> host2: {}", IperfServer::finish(running, IPERF_SECONDS)?);
    // The NIC's counters are read once a second.
    let mut rate = 0.0;
    let reached = until("the hit rate", Duration::from_secs(5), || {
        let (now, then) = (tiers(client)?, before);
        rate = (now.0 - then.0) as f64 / ((now.1 - then.1).max(1)) as f64;
        Ok((rate > WANTED_HIT_RATE).then_some(()))
    });
    title("Hit rate after");
    dump(ce1, &["stats", "hit-rate"], usize::MAX)?;
    println!("while iperf3 ran: {:.3} % of the packets were forwarded by the NIC", 100.0 * rate);
    reached
}

/// The NIC loses all rules and takes no new ones: traffic goes on in software, and returns when the NIC is well again.
fn fault(l3vpn: &L3vpn, sequence: &Sequence) -> Result<(), LabError> {
    let ce1 = l3vpn.node(Site::Ce1)?;
    all_in(ce1.client(), DATAGRAM_PORT, FlowTier::Hardware)?;
    title("Fault: the NIC is reset, loses all its rules, and refuses new ones");
    ce1.twin()?.tell("fail_every=1")?;
    ce1.twin()?.tell("reset")?;
    all_in(ce1.client(), DATAGRAM_PORT, FlowTier::Software)?;
    go_on(sequence)?;
    let port = DATAGRAM_PORT.to_string();
    let listed = ["flow", "--list", "--dport", port.as_str()];
    dump(ce1, &listed, 12)?;
    title("Recovery: the NIC takes rules again");
    ce1.twin()?.tell("clear")?;
    all_in(ce1.client(), DATAGRAM_PORT, FlowTier::Hardware)?;
    go_on(sequence)?;
    dump(ce1, &listed, 12)
}

/// A route change replaces the rules of the flows that it concerns.
fn route_change(l3vpn: &L3vpn, sequence: &Sequence) -> Result<(), LabError> {
    title("Route change: 192.168.1.0/24 now with label 290");
    let (ce1, ce2) = (l3vpn.node(Site::Ce1)?, l3vpn.node(Site::Ce2)?);
    let installed = |client: &NodeClient| Ok(client.offload_status()?.totals.unwrap_or_default().installed);
    let before: u64 = installed(ce1.client())?;
    let label = v1::MplsLabel { label: 290, nexthop: 513 };
    ce2.client().change(v1::ForwardingDelta { labels: vec![label], ..Default::default() })?;
    let prefix = "192.168.1.0/24".to_owned();
    let route = v1::Route { vrf: 18, prefix, nexthop: 489, label: Some(290), ..Default::default() };
    ce1.client().change(v1::ForwardingDelta { routes: vec![route], ..Default::default() })?;
    let after = until("new rules to be installed", LIMIT, || {
        let now = installed(ce1.client())?;
        Ok((now > before).then_some(now))
    })?;
    all_in(ce1.client(), DATAGRAM_PORT, FlowTier::Hardware)?;
    go_on(sequence)?;
    println!("{} rules installed anew", after - before);
    let flows = flows(ce1.client(), DATAGRAM_PORT)?;
    match flows.iter().find(|flow| flow.label == Some(290)) {
        Some(flow) => dump(ce1, &["offload", "rules", "--flow", &flow.index.to_string()], usize::MAX),
        None => Err(LabError::Violated(format!("no flow pushes label 290: {flows:#?}"))),
    }
}

/// `host-ctl offload off` and `on`.
fn switch(l3vpn: &L3vpn, sequence: &Sequence) -> Result<(), LabError> {
    title("The switch: off drains to software, on moves back");
    let ce1 = l3vpn.node(Site::Ce1)?;
    for (position, tier) in [("off", FlowTier::Software), ("on", FlowTier::Hardware)] {
        dump(ce1, &["offload", position], usize::MAX)?;
        all_in(ce1.client(), DATAGRAM_PORT, tier)?;
        go_on(sequence)?;
    }
    Ok(())
}

fn go_on(sequence: &Sequence) -> Result<(), LabError> {
    let target = sequence.returned() + 100;
    until("numbered datagrams to come back", LIMIT, || Ok((sequence.returned() >= target).then_some(())))
}
