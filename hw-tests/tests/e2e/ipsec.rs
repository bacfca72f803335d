//! Walk A through a regional edge: two tunnels from each site, ESP on every link that nobody trusts.

mod secrets;
mod size;
mod tunnels;

use std::{fs, path::Path, time::Duration};

use hw_tests::lab::{
    Capture, DatagramLoad, EdgeOptions, IperfDatagrams, IperfServer, L3vpn, LabError, LeakWatch, Nic, Options, Ping,
    Sequence, SequenceReport, Site, Tenant, Tunnel, TunnelEnd, WebServer, check_capture, lost_in_rings, scenario,
    until,
};

/// What a scenario measured, past the harness's capture.
fn figures(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "    {text}");
}

/// Octets that stand in what the tenants send, and nowhere else.
const MARKER: &[u8] = b"Sluicegate leak!";

#[test]
fn walk_a_goes_through_a_regional_edge_and_nothing_of_it_is_in_the_clear() -> Result<(), String> {
    scenario("walk_a_goes_through_a_regional_edge_and_nothing_of_it_is_in_the_clear", || {
        let mut l3vpn = L3vpn::new(&Options::through_edge())?;
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        let captures = l3vpn
            .edge()?
            .untrusted()
            .into_iter()
            .map(|(namespace, device)| Capture::start(l3vpn.lab(), namespace, device, 5000))
            .collect::<Result<Vec<_>, _>>()?;
        reach(&l3vpn)?;
        web_and_bulk(&l3vpn)?;
        as_in_the_dumps(&l3vpn)?;
        for capture in captures {
            only_esp(&capture.stop()?)?;
        }
        let links = leaks.nothing_leaked()?;
        figures(&format!("nothing in the clear on {}", links.join(", ")));
        the_watch_sees_a_leak(&l3vpn)?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn walk_a_goes_through_a_regional_edge_that_drives_a_nic() -> Result<(), String> {
    scenario("walk_a_goes_through_a_regional_edge_that_drives_a_nic", || {
        let edge = Some(EdgeOptions { nic: Some(Nic::default()), ..EdgeOptions::default() });
        let mut l3vpn = L3vpn::new(&Options { edge, ..Options::default() })?;
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        reach(&l3vpn)?;
        let rekeyed = l3vpn.rekey(&Tunnel::ALL)?;
        let traffic = Traffic::start(&l3vpn, 10, 2)?;
        let (iperf, sequences) = traffic.stop()?;
        figures(&format!("rekeyed in {} ms; {iperf}", rekeyed.took.as_millis()));
        for sequence in sequences {
            assert_eq!((sequence.lost(), sequence.there.duplicated, sequence.back.duplicated), (0, 0, 0), "{sequence}");
        }
        leaks.nothing_leaked()?;
        l3vpn.assert_healthy()
    })
}

/// Ping: both families, both directions, both tenants, gateways near and far; small and large.
fn reach(l3vpn: &L3vpn) -> Result<(), LabError> {
    for tenant in Tenant::ALL {
        for site in [Site::Ce1, Site::Ce2] {
            let far = site.other();
            let host = l3vpn.host(tenant, site);
            let hosts = match far {
                Site::Ce1 => ["192.168.100.100", "fd00:100::100"],
                Site::Ce2 => ["192.168.1.100", "fd00:1::100"],
            };
            for destination in hosts.into_iter().chain(far.gateways()) {
                let answered = host.ping(&Ping::to(destination))?.all_answered();
                answered.map_err(|error| {
                    LabError::Violated(format!("{} to {destination}: {error}{}", host.role(), l3vpn.diagnosis()))
                })?;
            }
            let [v4, _] = hosts;
            host.ping(&Ping::to(v4).pattern(MARKER))?.all_answered()?;
            host.ping(&Ping::to(v4).size(4000))?.all_answered()?;
        }
    }
    let host = l3vpn.host(Tenant::Blue, Site::Ce1);
    let hops = host.traceroute("192.168.1.100")?;
    // The regional edge is no hop of the tenant's.
    assert_eq!(hops, ["192.168.100.1", "192.168.1.1", "192.168.1.100"]);
    Ok(())
}

fn web_and_bulk(l3vpn: &L3vpn) -> Result<(), LabError> {
    for tenant in Tenant::ALL {
        let (near, far) = (l3vpn.host(tenant, Site::Ce1), l3vpn.host(tenant, Site::Ce2));
        let page = format!("{} {}", tenant.page(Site::Ce2), String::from_utf8_lossy(MARKER));
        let _web = WebServer::start(l3vpn.lab(), far, &page)?;
        for url in ["http://192.168.1.100/", "http://[fd00:1::100]/"] {
            assert_eq!(near.curl(url)?, page);
        }
        assert!(near.curl("http://192.168.1.100/large.txt")?.len() >= 400_000);
        let server = IperfServer::start(far, 5201)?;
        for reverse in [false, true] {
            let report = server.test(near, "192.168.1.100", 2, 4, reverse)?;
            figures(&format!("{}, reverse {reverse}: {report}", tenant.name()));
            assert!(report.octets > 1_000_000, "{report}");
        }
    }
    Ok(())
}

/// `vif --get` and `sa` show what the talk's dump shows, and nothing was dropped that somebody had sealed.
fn as_in_the_dumps(l3vpn: &L3vpn) -> Result<(), LabError> {
    let ce1 = l3vpn.node(Site::Ce1)?;
    let text = ce1.host_ctl(&["vif", "--get", "4111"])?;
    for line in [
        "vif0/4111 Virtual: tunnel_re_0 Parent:vif0/-1",
        "MTU: 1370 EncMSS: 0 NH: 85",
        "Outbound SA:SAId: 0xffff0060 Tunnel SRC:172.28.13.36 Tunnel DST:103.135.56.40",
        "Tunnel Mode:Tunnel Window size:0 VIF: 0 State: Active",
        "Inbound SA:SAId: 0xffff5f70 Tunnel SRC:103.135.56.40 Tunnel DST:172.28.13.36",
        "Tunnel Mode:Tunnel Window size:1024 VIF: 4111 State: Active",
        "NAT Pool: 10.101.10.39",
    ] {
        assert!(text.contains(line), "'{line}' is not in:\n{text}");
    }
    for site in [Site::Ce1, Site::Ce2] {
        for end in TunnelEnd::ALL {
            for path in 0..2 {
                let info = l3vpn.end(site, end)?.client().vif(Tunnel { site, path }.vif(end))?;
                let counters = info.counters.unwrap_or_default();
                assert!(counters.rx_packets > 0 && counters.tx_packets > 0, "{site:?} {end:?} {path}: {counters:?}");
            }
        }
    }
    for node in l3vpn.all_nodes()? {
        for info in node.client().sas()? {
            let refused = (info.authentication_failed, info.replay_duplicate, info.replay_old, info.malformed);
            assert_eq!(refused, (0, 0, 0, 0), "{}: {info:?}", node.name());
        }
    }
    // The regional edge has routed outer packets, and no flow of any tenant.
    let edge = l3vpn.edge()?.node()?.client().status()?;
    assert_eq!(edge.flows.unwrap_or_default().used, 0);
    Ok(())
}

/// tshark reads nothing but ESP and ARP, and nothing that a tenant sent is to be found.
fn only_esp(file: &Path) -> Result<(), LabError> {
    let verdict = check_capture(file)?;
    assert!(verdict.complaints.is_empty(), "{:#?}", verdict.complaints);
    for chain in verdict.protocols.keys() {
        let sealed = ["eth:ethertype:ip:esp", "eth:ethertype:ip:udp:udpencap:esp", "eth:ethertype:ip:udp:udpencap"];
        assert!(sealed.contains(&chain.as_str()) || chain.starts_with("eth:ethertype:arp"), "{chain}");
    }
    let octets = fs::read(file).map_err(LabError::io(format!("read {}", file.display())))?;
    assert!(octets.len() > 100_000, "{} octets in {}", octets.len(), file.display());
    let outer = [10, 101, 10, 39, 10, 101, 9, 245];
    let inner = [192, 168, 100, 100, 192, 168, 1, 100];
    for plain in [MARKER, &outer[..], &inner[..]] {
        assert!(!octets.windows(plain.len()).any(|window| window == plain), "{plain:?} in {}", file.display());
    }
    figures(&format!("{} frames, {:?}", verdict.frames, verdict.protocols));
    Ok(())
}

/// A watch that could not fail would prove nothing: a ping in the clear is seen on the link that it crosses.
fn the_watch_sees_a_leak(l3vpn: &L3vpn) -> Result<(), LabError> {
    let watch = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
    Ping::to("172.28.13.36").run(l3vpn.edge()?.nat())?.all_answered()?;
    match watch.nothing_leaked() {
        Err(LabError::Violated(seen)) if seen.contains("lan of nat") && seen.contains("icmp") => Ok(()),
        other => Err(LabError::Violated(format!("a ping in the clear was not seen: {other:?}"))),
    }
}

/// Octets of iperf3's datagrams, and the loads that are tried, in Mbit/s.
const DATAGRAM: u32 = 1200;
const LOADS: [u32; 6] = [160, 80, 40, 20, 10, 5];
const REKEYS: u32 = 50;

#[test]
fn fifty_rekeys_of_all_tunnels_under_load_lose_and_double_nothing() -> Result<(), String> {
    scenario("fifty_rekeys_of_all_tunnels_under_load_lose_and_double_nothing", || {
        rekeys_under_load(&Options::through_edge(), REKEYS)
    })
}

#[test]
fn rekeys_with_an_sa_for_each_of_two_workers_lose_and_double_nothing() -> Result<(), String> {
    scenario("rekeys_with_an_sa_for_each_of_two_workers_lose_and_double_nothing", || {
        rekeys_under_load(&Options { workers: 2, ..Options::through_edge() }, 10)
    })
}

fn rekeys_under_load(options: &Options, rekeys: u32) -> Result<(), LabError> {
    let mut l3vpn = L3vpn::new(options)?;
    let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
    // The first SAs lost what was sent before all nodes ran.
    l3vpn.rekey(&Tunnel::ALL)?;
    let mut whole = false;
    for load in LOADS {
        if !carried_without_rekey(&l3vpn, load)? {
            continue;
        }
        // What the tries have lost is not counted: the SAs that they went with are gone before.
        l3vpn.rekey(&Tunnel::ALL)?;
        let before = lost_beside_the_nodes(&l3vpn)?;
        whole = rekeys_beside(&l3vpn, load, rekeys, options.workers == 1)?;
        let lost = lost_beside_the_nodes(&l3vpn)? - before;
        if whole || lost == 0 {
            break;
        }
        figures(&format!(
            "{lost} frames were lost in the machine's queues, before a node or a host saw them: once more with less"
        ));
    }
    assert!(whole, "packets were lost or doubled: {}", l3vpn.diagnosis());
    // As many SAs as in the beginning, and each end says how often it was given new ones.
    for (node, count) in [(l3vpn.node(Site::Ce1)?, 4), (l3vpn.edge()?.node()?, 8)] {
        let sas = node.client().sas()?;
        assert_eq!(sas.len(), count * options.workers as usize, "{}: {sas:#?}", node.name());
        assert!(sas.iter().all(|info| info.rekeys >= rekeys.into()), "{}: {sas:#?}", node.name());
        for reason in ["No SA", "Unknown SPI", "ESP Replay Duplicate", "ESP Replay Too Old", "SA Sequence Pending"] {
            assert_eq!(node.client().dropped(reason)?, 0, "{}: {reason}", node.name());
        }
    }
    leaks.nothing_leaked()?;
    l3vpn.assert_healthy()
}

/// Replaces all SAs of all tunnels while traffic runs; whether every packet of it arrived, once, and `in_order` as it was sent.
/// With several workers a new SA may have another owner than the one before: what comes to it directly overtakes what waits in the
/// ring to the old one's.
fn rekeys_beside(l3vpn: &L3vpn, load: u32, rekeys: u32, in_order: bool) -> Result<bool, LabError> {
    let traffic = Traffic::start(l3vpn, load, 3 + rekeys / 5)?;
    let (mut packets, mut missing, mut took) = (0, 0, Duration::ZERO);
    let before = traffic.returned();
    for _ in 0..rekeys {
        // Each SA carries something before it is replaced.
        let wanted = traffic.returned() + 20;
        until("datagrams between two rekeys", Duration::from_secs(10), || {
            Ok((traffic.returned() >= wanted).then_some(()))
        })?;
        let rekeyed = l3vpn.rekey(&Tunnel::ALL)?;
        packets += rekeyed.packets;
        missing += rekeyed.missing;
        took += rekeyed.took;
    }
    let during = traffic.returned() - before;
    assert!(during > u64::from(rekeys) * 20, "only {during} datagrams during the rekeys");
    let (iperf, sequences) = traffic.stop()?;
    figures(&format!(
        "{rekeys} rekeys of {} tunnels, {} ms each, {packets} packets went with the SAs that were replaced, {missing} did not arrive",
        Tunnel::ALL.len(),
        (took / rekeys).as_millis()
    ));
    figures(&format!("iperf3 at {load} Mbit/s beside it: {iperf}"));
    let mut whole = missing == 0 && iperf.lost == 0 && (iperf.out_of_order == 0 || !in_order);
    for sequence in sequences {
        figures(&format!("numbered datagrams: {sequence}"));
        whole &= if in_order { sequence.perfect().is_ok() } else { sequence.each_once() };
    }
    Ok(whole)
}

/// Frames and datagrams that no node and no program ever saw: rings of the nodes' devices, the kernel's backlog, the hosts' sockets.
fn lost_beside_the_nodes(l3vpn: &L3vpn) -> Result<u64, LabError> {
    let mut lost = 0;
    for node in l3vpn.all_nodes()? {
        lost += lost_in_rings(&node.client().vifs()?);
    }
    // One line for each processor; the second word is what did not fit into its backlog.
    let backlog = fs::read_to_string("/proc/net/softnet_stat").map_err(LabError::io("read /proc/net/softnet_stat"))?;
    let second = |line: &str| line.split_whitespace().nth(1).and_then(|word| u64::from_str_radix(word, 16).ok());
    lost += backlog.lines().filter_map(second).sum::<u64>();
    for site in [Site::Ce1, Site::Ce2] {
        let path = "/proc/thread-self/net/snmp";
        let host = l3vpn.host(Tenant::Blue, site).namespace();
        let text = host.inside(|| fs::read_to_string(path).map_err(LabError::io(format!("read {path}"))))?;
        // "Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors ...", then the same with numbers.
        let mut udp = text.lines().filter(|line| line.starts_with("Udp:")).map(str::split_whitespace);
        let (names, values) = (udp.next().into_iter().flatten(), udp.next().into_iter().flatten());
        let full = names.zip(values).find(|(name, _)| *name == "RcvbufErrors");
        lost += full.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or_default();
    }
    Ok(lost)
}

/// iperf3 over UDP beside numbered datagrams of several flows.
struct Traffic {
    server: IperfServer,
    running: hw_tests::lab::Process,
    seconds: u32,
    sequences: Vec<Sequence>,
}

impl Traffic {
    fn start(l3vpn: &L3vpn, load: u32, seconds: u32) -> Result<Self, LabError> {
        let (host1, host2) = (l3vpn.host(Tenant::Blue, Site::Ce1), l3vpn.host(Tenant::Blue, Site::Ce2));
        let server = IperfServer::start(host2, 5201)?;
        let running = server.spawn_datagrams(
            host1,
            "192.168.1.100",
            seconds,
            DatagramLoad { megabits: load, octets: DATAGRAM },
            false,
        )?;
        // Several flows: both tunnels have some of them.
        let sequence = |port: u16| {
            let (near, far) = (([192, 168, 100, 100], port).into(), ([192, 168, 1, 100], port).into());
            Sequence::start((host1, near), (host2, far), Duration::from_millis(4))
        };
        let sequences = (7000..7004).map(sequence).collect::<Result<_, _>>()?;
        Ok(Self { server, running, seconds, sequences })
    }

    fn returned(&self) -> u64 {
        self.sequences.iter().map(Sequence::returned).min().unwrap_or_default()
    }

    fn stop(self) -> Result<(IperfDatagrams, Vec<SequenceReport>), LabError> {
        let Self { server, running, seconds, sequences } = self;
        let reports = sequences.into_iter().map(Sequence::stop).collect::<Result<_, _>>()?;
        let iperf = IperfServer::finish_datagrams(running, seconds)?;
        drop(server);
        Ok((iperf, reports))
    }
}

/// Does this machine carry a load without a rekey, at this moment?
fn carried_without_rekey(l3vpn: &L3vpn, load: u32) -> Result<bool, LabError> {
    let (iperf, sequences) = Traffic::start(l3vpn, load, 3)?.stop()?;
    let whole = iperf.lost == 0 && sequences.into_iter().all(|sequence| sequence.perfect().is_ok());
    figures(&format!("without rekey, {load} Mbit/s: {iperf}: {}", if whole { "carried" } else { "too much" }));
    Ok(whole)
}
