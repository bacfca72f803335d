//! `make demo`: two tenants between two sites over MPLS over UDP in IPsec tunnels through a regional edge, with real hosts, and a look
//! inside the nodes.

use std::time::{Duration, Instant};

use proto::v1;

use crate::lab::{
    Capture, DatagramLoad, EDGE_ART, EdgeOptions, Fan, IperfServer, L3vpn, LabError, LeakWatch, Node, Options, Ping,
    Sequence, Site, TOPOLOGY_ART, Tenant, Tunnel, TunnelEnd, WebServer, check_capture, lost_in_rings,
};

/// Seconds of each iperf3 run.
const IPERF_SECONDS: u32 = 3;
/// Frames that each capture keeps: enough for everything but the bulk of iperf3.
const CAPTURE_FRAMES: u32 = 4000;
/// Flow pairs that are printed in full.
const SHOWN_FLOWS: usize = 30;

/// Seconds of the iperf3 run with rekeys in its middle, and its load: Mbit/s, octets of a datagram.
const REKEY_SECONDS: u32 = 6;
const REKEY_LOAD: DatagramLoad = DatagramLoad { megabits: 20, octets: 1200 };
/// Rekeys of all tunnels in the middle of it.
const REKEYS: usize = 3;
const DATAGRAM_PORT: u16 = 7000;
/// New flows that show how both tunnels share.
const SPLIT_FLOWS: u16 = 500;

/// Runs the demo and prints it.
///
/// # Errors
/// The first thing that does not hold.
pub fn run(options: &Options) -> Result<(), LabError> {
    let begun = Instant::now();
    title("Part 1: walk A through a regional edge");
    println!("{EDGE_ART}");
    let options = Options { edge: Some(EdgeOptions::default()), ..options.clone() };
    let mut l3vpn = L3vpn::new(&options)?;
    step(&format!("three nodes run, {} worker(s) each; the lab is {}", options.workers, l3vpn.lab().name()));

    let servers = Servers::start(&l3vpn)?;
    let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
    let captures = l3vpn
        .edge()?
        .untrusted()
        .into_iter()
        .map(|(namespace, device)| Capture::start(l3vpn.lab(), namespace, device, CAPTURE_FRAMES))
        .collect::<Result<Vec<_>, _>>()?;

    title("Counters before");
    counters(&l3vpn.all_nodes()?)?;
    reach(&l3vpn)?;
    web(&l3vpn)?;
    bulk(&l3vpn, &servers)?;
    tables(&l3vpn)?;
    associations(&l3vpn)?;
    rekey(&l3vpn, &servers)?;
    title("Counters after");
    counters(&l3vpn.all_nodes()?)?;
    let paths = ecmp(&l3vpn)?;
    wire(captures)?;
    title(
        "Leak test: what is neither ESP nor ESP in UDP 4500 nor ARP, on every untrusted link, from the first packet to the last",
    );
    for link in leaks.nothing_leaked()? {
        println!("{link}: 0 frames in the clear");
    }
    account(&mut l3vpn)?;
    edge_is_routed(&l3vpn)?;
    if paths.contains(&0) {
        return Err(LabError::Violated(format!("a tunnel carried nothing: {paths:?}")));
    }
    drop(servers);
    step(&format!("took {:.0} s", begun.elapsed().as_secs_f64()));
    Ok(())
}

/// What serves the traffic.
struct Servers {
    _web: Vec<WebServer>,
    iperf: IperfServer,
}

impl Servers {
    fn start(l3vpn: &L3vpn) -> Result<Self, LabError> {
        let mut web = Vec::new();
        for tenant in Tenant::ALL {
            for site in [Site::Ce1, Site::Ce2] {
                web.push(WebServer::start(l3vpn.lab(), l3vpn.host(tenant, site), &tenant.page(site))?);
            }
        }
        Ok(Self { _web: web, iperf: IperfServer::start(l3vpn.host(Tenant::Blue, Site::Ce2), 5201)? })
    }
}

fn reach(l3vpn: &L3vpn) -> Result<(), LabError> {
    title("Ping: both directions, both families, gateways near and far");
    let blue = |site| (Tenant::Blue, site);
    let pairs = [
        (blue(Site::Ce1), "192.168.1.100"),
        (blue(Site::Ce2), "192.168.100.100"),
        (blue(Site::Ce1), "fd00:1::100"),
        (blue(Site::Ce2), "fd00:100::100"),
        (blue(Site::Ce1), "192.168.100.1"),
        (blue(Site::Ce1), "192.168.1.1"),
        (blue(Site::Ce2), "192.168.1.1"),
        (blue(Site::Ce2), "192.168.100.1"),
        ((Tenant::Green, Site::Ce1), "192.168.1.100"),
        ((Tenant::Green, Site::Ce2), "192.168.100.100"),
    ];
    for ((tenant, site), destination) in pairs {
        let host = l3vpn.host(tenant, site);
        let ping = Ping::to(destination).count(5);
        let report = host.ping(&ping)?.all_answered()?;
        println!("{} ({}) $ {}\n    {}", host.role(), tenant.name(), ping.command_line(), report.summary());
    }
    Ok(())
}

fn web(l3vpn: &L3vpn) -> Result<(), LabError> {
    title("Web: one address, two tenants, two pages");
    for (site, url) in [(Site::Ce1, "http://192.168.1.100/"), (Site::Ce2, "http://[fd00:100::100]/")] {
        for tenant in Tenant::ALL {
            let host = l3vpn.host(tenant, site);
            let page = host.curl(url)?;
            println!("{} $ curl {url}\n    {page}", host.role());
            let expected = tenant.page(site.other());
            if page != expected {
                return Err(LabError::Violated(format!("{} got '{page}', not '{expected}'", host.role())));
            }
        }
    }
    Ok(())
}

fn bulk(l3vpn: &L3vpn, servers: &Servers) -> Result<(), LabError> {
    title("iperf3, TCP, 8 connections");
    let client = l3vpn.host(Tenant::Blue, Site::Ce1);
    for reverse in [false, true] {
        let report = servers.iperf.test(client, "192.168.1.100", IPERF_SECONDS, 8, reverse)?;
        println!("{}: {report}", if reverse { "host2 -> host1" } else { "host1 -> host2" });
        if report.octets == 0 {
            return Err(LabError::Violated("iperf3 moved nothing".to_owned()));
        }
    }
    Ok(())
}

/// The dumps of walk A, in its order.
fn tables(l3vpn: &L3vpn) -> Result<(), LabError> {
    title("Walk A, 192.168.100.100 -> 192.168.1.100");
    let dumps: [(Site, &[&str]); 13] = [
        (Site::Ce1, &["rt", "--dump", "18"]),
        (Site::Ce1, &["rt", "--get", "192.168.1.0/24", "--vrf", "18"]),
        (Site::Ce1, &["nh", "--get", "489"]),
        (Site::Ce1, &["nh", "--get", "532"]),
        (Site::Ce1, &["vif", "--get", "4111"]),
        (Site::Ce2, &["mpls", "--get", "280"]),
        (Site::Ce2, &["nh", "--get", "513"]),
        (Site::Ce2, &["rt", "--get", "192.168.1.100/32", "--vrf", "18"]),
        (Site::Ce2, &["nh", "--get", "577"]),
        (Site::Ce2, &["vif", "--get", "4121"]),
        (Site::Ce1, &["mpls", "--get", "279"]),
        (Site::Ce1, &["rt", "--dump", "18", "--family", "inet6"]),
        (Site::Ce1, &["vrfstats", "--dump"]),
    ];
    for (site, arguments) in dumps {
        dump(l3vpn.node(site)?, arguments, usize::MAX)?;
    }
    for site in [Site::Ce1, Site::Ce2] {
        dump(l3vpn.node(site)?, &["flow", "--list"], SHOWN_FLOWS * 4)?;
    }
    // One flow in full: the first of walk A's tenant.
    let node = l3vpn.node(Site::Ce1)?;
    let request = v1::ListFlowsRequest { vrf: Some(18), limit: 1, ..Default::default() };
    let flows = node.client().flows(request)?;
    let first = flows.first().ok_or_else(|| LabError::Violated("CE1 has no flow in VRF 18".to_owned()))?;
    dump(node, &["flow", "--get", &first.index.to_string()], usize::MAX)
}

/// SAs and tunnels of all three nodes.
fn associations(l3vpn: &L3vpn) -> Result<(), LabError> {
    title("Security associations");
    for node in l3vpn.all_nodes()? {
        dump(node, &["sa", "--list"], usize::MAX)?;
    }
    let first = l3vpn.edge()?.associations()?.of(Tunnel { site: Site::Ce1, path: 0 }).clone();
    for sa in first.all() {
        dump(l3vpn.node(Site::Ce1)?, &["sa", "--get", &sa.id.to_string()], usize::MAX)?;
    }
    Ok(())
}

/// All SAs of all tunnels are replaced, several times, while iperf3 and numbered datagrams run.
fn rekey(l3vpn: &L3vpn, servers: &Servers) -> Result<(), LabError> {
    title(&format!("Live rekey of all four tunnels, {REKEYS} times in the middle of an iperf3 over UDP"));
    let (host1, host2) = (l3vpn.host(Tenant::Blue, Site::Ce1), l3vpn.host(Tenant::Blue, Site::Ce2));
    let running = servers.iperf.spawn_datagrams(host1, "192.168.1.100", REKEY_SECONDS, REKEY_LOAD, false)?;
    let sequence = Sequence::start(
        (host1, ([192, 168, 100, 100], DATAGRAM_PORT).into()),
        (host2, ([192, 168, 1, 100], DATAGRAM_PORT).into()),
        Duration::from_millis(2),
    )?;
    let pause = Duration::from_secs(REKEY_SECONDS.into()) / (REKEYS as u32 + 2);
    for round in 1..=REKEYS {
        // Not before the traffic of a while has gone with the SAs that are replaced.
        let wanted = sequence.returned() + u64::try_from(pause.as_millis() / 2).unwrap_or(u64::MAX);
        crate::lab::until("numbered datagrams between two rekeys", Duration::from_secs(10), || {
            Ok((sequence.returned() >= wanted).then_some(()))
        })?;
        let rekeyed = l3vpn.rekey(&Tunnel::ALL)?;
        println!(
            "rekey {round}: {} tunnels in {} ms; {} packets went with the old SAs in their life, {} of them were lost",
            rekeyed.tunnels,
            rekeyed.took.as_millis(),
            rekeyed.packets,
            rekeyed.missing
        );
    }
    let datagrams = sequence.stop()?;
    let report = IperfServer::finish_datagrams(running, REKEY_SECONDS)?;
    println!("iperf3, host1 -> host2: {report}");
    println!("numbered datagrams, there and back: {datagrams}");
    if report.lost > 0 {
        return Err(LabError::Violated(format!("{} datagrams of iperf3 were lost during the rekeys", report.lost)));
    }
    datagrams.perfect()?;
    dump(l3vpn.node(Site::Ce1)?, &["vif", "--get", "4111"], usize::MAX)
}

pub(crate) fn dump(node: &Node, arguments: &[&str], lines: usize) -> Result<(), LabError> {
    println!("{} $ host-ctl {}", node.name(), arguments.join(" "));
    let text = node.host_ctl(arguments)?;
    for line in text.lines().take(lines) {
        println!("    {line}");
    }
    let more = text.lines().count().saturating_sub(lines);
    if more > 0 {
        println!("    ... {more} more lines");
    }
    println!();
    Ok(())
}

fn counters(nodes: &[&Node]) -> Result<(), LabError> {
    println!(
        "{:<5} {:>5} {:<12} {:<15} {:>10} {:>13} {:>10} {:>13} {:>7}",
        "node", "vif", "name", "driver", "rx packets", "rx octets", "tx packets", "tx octets", "drops"
    );
    for node in nodes {
        for info in node.client().vifs()? {
            let vif = info.vif.unwrap_or_default();
            let counters = info.counters.unwrap_or_default();
            println!(
                "{:<5} {:>5} {:<12} {:<15} {:>10} {:>13} {:>10} {:>13} {:>7}",
                node.name(),
                vif.id,
                vif.name,
                info.driver,
                counters.rx_packets,
                counters.rx_bytes,
                counters.tx_packets,
                counters.tx_bytes,
                counters.drops
            );
        }
    }
    Ok(())
}

/// How the tunnels shared the work; packets sent into each of CE1's, and of the regional edge's.
fn ecmp(l3vpn: &L3vpn) -> Result<Vec<u64>, LabError> {
    title("ECMP: nexthop 532, members 85 and 86, weights 100 and 100; and at the regional edge");
    let client = l3vpn.node(Site::Ce1)?.client();
    let mut sent = Vec::new();
    for (vif, member) in [(4111, 85), (4109, 86)] {
        let info = client.vif(vif)?;
        let packets = info.counters.unwrap_or_default().tx_packets;
        let slot = i32::try_from(sent.len()).unwrap_or(-1);
        let flows = client.flows(v1::ListFlowsRequest::default())?;
        let held = flows.iter().filter(|flow| flow.label.is_some() && flow.ecmp_index.first() == Some(&slot)).count();
        println!("CE1, member {member}, tunnel vif {vif}: {packets} packets, {held} flows");
        sent.push(packets);
    }
    let far = (l3vpn.host(Tenant::Blue, Site::Ce2), "192.168.1.100");
    let mut fan = Fan::open(l3vpn.host(Tenant::Blue, Site::Ce1), far, SPLIT_FLOWS)?;
    let counted_before = l3vpn.counted_losses()?;
    let round = fan.send()?;
    let counted = l3vpn.counted_losses()?.saturating_sub(counted_before);
    let paths = fan.paths(client)?;
    let of = |member: i32| paths.values().filter(|index| **index == member).count();
    println!(
        "CE1, {} new flows of a datagram each: {} in 4111, {} in 4109; {} arrived, {counted} were counted as lost on the way, \
         {} found the receiver's socket full",
        round.sent,
        of(0),
        of(1),
        round.arrived.len(),
        round.overflowed,
    );
    if round.missing() > counted {
        return Err(LabError::Violated(format!("{} datagrams are in nobody's counters", round.missing() - counted)));
    }
    let edge = l3vpn.edge()?.node()?.client();
    for tunnel in Tunnel::ALL {
        let vif = tunnel.vif(TunnelEnd::Regional);
        let packets = edge.vif(vif)?.counters.unwrap_or_default().tx_packets;
        println!("RE toward {}, vif {vif}: {packets} packets", tunnel.site.node());
        sent.push(packets);
    }
    Ok(sent)
}

/// What tshark says about the first frames on each link.
fn wire(captures: Vec<Capture>) -> Result<(), LabError> {
    title("Wire: tshark on every untrusted link");
    for capture in captures {
        let file = capture.stop()?;
        let verdict = check_capture(&file)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        println!("{name}: {} frames, {} complaints", verdict.frames, verdict.complaints.len());
        for (protocols, frames) in &verdict.protocols {
            println!("    {frames:>6}  {protocols}");
        }
        if !verdict.complaints.is_empty() {
            let first: Vec<_> = verdict.complaints.iter().take(10).map(String::as_str).collect();
            return Err(LabError::Violated(format!("tshark complains about {name}:\n{}", first.join("\n"))));
        }
        if !verdict.protocols.keys().any(|chain| chain.ends_with(":esp")) {
            return Err(LabError::Violated(format!("no ESP in {name}")));
        }
    }
    Ok(())
}

pub(crate) fn account(l3vpn: &mut L3vpn) -> Result<(), LabError> {
    title("Packet account");
    l3vpn.assert_healthy()?;
    for node in l3vpn.all_nodes()? {
        let status = node.client().status()?;
        let (packets, tiers) = (status.packets.unwrap_or_default(), status.tiers.unwrap_or_default());
        println!(
            "{}: received {} = forwarded {} + punted {} + consumed {} + dropped {} + held {}; unaccounted {}; originated {}",
            node.name(),
            packets.received,
            packets.forwarded,
            packets.punted,
            packets.consumed,
            packets.dropped,
            packets.held,
            packets.unaccounted,
            packets.originated
        );
        let looked_up = looked_up(&tiers);
        let share = |packets: u64| 100.0 * packets as f64 / looked_up.max(1) as f64;
        println!(
            "     of {looked_up} packets {} found their flow ({:.3} %), {} were routed ({:.3} %), {} took the slow path ({:.3} %); \
             {} flows of at most {}; {} frames lost before the node",
            tiers.flow_hits,
            share(tiers.flow_hits),
            tiers.routed,
            share(tiers.routed),
            tiers.slow_path,
            share(tiers.slow_path),
            status.flows.unwrap_or_default().used,
            status.flows.unwrap_or_default().limit,
            lost_in_rings(&node.client().vifs()?)
        );
        for drop in node.client().drops()? {
            println!("     dropped: {} {}", drop.packets, drop.reason);
        }
    }
    Ok(())
}

/// Packets that some tier of software has decided on.
const fn looked_up(tiers: &v1::TierCounters) -> u64 {
    tiers.flow_hits + tiers.routed + tiers.slow_path
}

/// Transit has no flows: the regional edge routes 99 % and more of it, and walks the tables for less than 1 %.
fn edge_is_routed(l3vpn: &L3vpn) -> Result<(), LabError> {
    let tiers = l3vpn.edge()?.node()?.client().status()?.tiers.unwrap_or_default();
    let all = looked_up(&tiers);
    let (routed, walked) = (100 * tiers.routed >= 99 * all, 100 * tiers.slow_path < all);
    if !routed || !walked {
        return Err(LabError::Violated(format!("the regional edge should route its transit: {tiers:?}")));
    }
    println!("re: routed >= 99 %, slow path < 1 %");
    Ok(())
}

pub(crate) fn title(text: &str) {
    println!("\n== {text} ==");
}

pub(crate) fn step(text: &str) {
    println!("-- {text}");
}

/// Keeps the topology up until Ctrl-C, for looking around by hand.
///
/// # Errors
/// When it cannot be built; [`LabError::Interrupted`] is how it ends.
pub fn hold(options: &Options) -> Result<(), LabError> {
    let l3vpn = L3vpn::new(options)?;
    let (art, between): (_, &[&str]) = match options.edge {
        None => (TOPOLOGY_ART, &["transit-a", "transit-b"]),
        Some(_) => (EDGE_ART, &["nat", "re", "internet"]),
    };
    println!("{art}");
    for role in ["host1", "host2", "host3", "host4", "ce1", "ce2", "switch2"].iter().chain(between) {
        println!("ip netns exec {}-{role} bash", l3vpn.lab().name());
    }
    println!("files: {}", l3vpn.lab().directory().display());
    println!("lab: ready, Ctrl-C ends it");
    // Output to a pipe would wait for more of it.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    crate::lab::until("Ctrl-C", Duration::from_secs(24 * 3600), || Ok(None::<()>))
}
