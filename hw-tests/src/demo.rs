//! `make demo`: two tenants between two sites over MPLS-over-UDP, with real hosts, and a look inside both nodes.

use std::time::{Duration, Instant};

use proto::v1;

use crate::lab::{
    Capture, IperfServer, L3vpn, LabError, Node, Options, Ping, Site, TOPOLOGY_ART, Tenant, WebServer, check_capture,
    lost_in_rings,
};

/// Seconds of each iperf3 run.
const IPERF_SECONDS: u32 = 3;
/// Frames that each capture keeps: enough for everything but the bulk of iperf3.
const CAPTURE_FRAMES: u32 = 4000;
/// Flow pairs that are printed in full.
const SHOWN_FLOWS: usize = 30;

/// Runs the demo and prints it.
///
/// # Errors
/// The first thing that does not hold.
pub fn run(options: &Options) -> Result<(), LabError> {
    let begun = Instant::now();
    title("Topology");
    println!("{TOPOLOGY_ART}");
    let mut l3vpn = L3vpn::new(options)?;
    step(&format!("both nodes run, {} worker(s) each; the lab is {}", options.workers, l3vpn.lab().name()));

    let servers = Servers::start(&l3vpn)?;
    let captures = l3vpn
        .transits()?
        .iter()
        .map(|transit| Capture::start(l3vpn.lab(), transit, "to-ce1", CAPTURE_FRAMES))
        .collect::<Result<Vec<_>, _>>()?;

    title("Counters before");
    counters(l3vpn.nodes()?)?;
    reach(&l3vpn)?;
    web(&l3vpn)?;
    bulk(&l3vpn, &servers)?;
    tables(&l3vpn)?;
    title("Counters after");
    counters(l3vpn.nodes()?)?;
    let paths = ecmp(&l3vpn)?;
    wire(captures)?;
    account(&mut l3vpn)?;
    if paths.contains(&0) {
        return Err(LabError::Violated(format!("a transit path carried nothing: {paths:?}")));
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

fn counters(nodes: &[Node; 2]) -> Result<(), LabError> {
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

/// How both uplinks of CE1 shared the work; packets sent on each.
fn ecmp(l3vpn: &L3vpn) -> Result<Vec<u64>, LabError> {
    title("ECMP at CE1: nexthop 532, members 85 and 86, weights 100 and 100");
    let client = l3vpn.node(Site::Ce1)?.client();
    let mut sent = Vec::new();
    for (vif, member) in [(4111, 85), (4109, 86)] {
        let info = client.vif(vif)?;
        let packets = info.counters.unwrap_or_default().tx_packets;
        let slot = i32::try_from(sent.len()).unwrap_or(-1);
        let flows = client.flows(v1::ListFlowsRequest::default())?;
        let held = flows.iter().filter(|flow| flow.label.is_some() && flow.ecmp_index.first() == Some(&slot)).count();
        println!("member {member} on vif {vif}: {packets} packets, {held} flows");
        sent.push(packets);
    }
    Ok(sent)
}

/// What tshark says about the frames of both transit paths.
fn wire(captures: Vec<Capture>) -> Result<(), LabError> {
    title("Wire: tshark on both transit paths, all checksums checked");
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
        if !verdict.protocols.keys().any(|chain| chain.contains("udp:mpls")) {
            return Err(LabError::Violated(format!("no MPLS over UDP in {name}")));
        }
    }
    Ok(())
}

pub(crate) fn account(l3vpn: &mut L3vpn) -> Result<(), LabError> {
    title("Packet account");
    l3vpn.assert_healthy()?;
    for node in l3vpn.nodes()? {
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
        let looked_up = tiers.flow_hits + tiers.slow_path;
        println!(
            "     {} of {looked_up} packets took the slow path ({:.3} %); {} flows of at most {}; {} frames lost before the node",
            tiers.slow_path,
            100.0 * tiers.slow_path as f64 / looked_up.max(1) as f64,
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
    println!("{TOPOLOGY_ART}");
    for role in ["host1", "host2", "host3", "host4", "ce1", "ce2", "transit-a", "transit-b", "switch2"] {
        println!("ip netns exec {}-{role} bash", l3vpn.lab().name());
    }
    println!("files: {}", l3vpn.lab().directory().display());
    println!("lab: ready, Ctrl-C ends it");
    // Output to a pipe would wait for more of it.
    let _ = std::io::Write::flush(&mut std::io::stdout());
    crate::lab::until("Ctrl-C", Duration::from_secs(24 * 3600), || Ok(None::<()>))
}
