//! Walk A through a regional edge: two tunnels from each site, ESP on every link that nobody trusts.

use std::{fs, path::Path};

use hw_tests::lab::{
    Capture, IperfServer, L3vpn, LabError, LeakWatch, Options, Ping, Site, Tenant, Tunnel, TunnelEnd, WebServer,
    check_capture, scenario,
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
                host.ping(&Ping::to(destination))?.all_answered()?;
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
