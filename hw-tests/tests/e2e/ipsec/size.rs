//! What fits into a tunnel, and how that is found out.

use std::time::Duration;

use hw_tests::lab::{
    Capture, IperfServer, L3vpn, LabError, LeakWatch, Options, Ping, Site, Tenant, Tunnel, TunnelEnd, check_capture,
    scenario, until,
};
use proto::v1;

use super::figures;

/// MTU of the tunnels less IPv4, UDP and MPLS (RFC 7510).
const PATH_MTU: u32 = 1370 - 32;
/// MTU of a link in the middle.
const NARROW: u32 = 1200;
/// Largest packet of a tenant through ESP (RFC 4303, 8 octets, 8 of IV, 16 of check value, 2 of trailer, to a multiple of 4), bare
/// and in UDP, over such a link.
const THROUGH_BARE: u32 = (NARROW - 20 - 8 - 8 - 16) / 4 * 4 - 2 - 32;
const THROUGH_UDP: u32 = (NARROW - 20 - 8 - 8 - 8 - 16) / 4 * 4 - 2 - 32;
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn oversize_is_refused_with_df_and_fragmented_before_esp_without() -> Result<(), String> {
    scenario("oversize_is_refused_with_df_and_fragmented_before_esp_without", || {
        let mut l3vpn = L3vpn::new(&Options::through_edge())?;
        // Fragments on any untrusted link, in either direction.
        let captures = l3vpn
            .edge()?
            .untrusted()
            .into_iter()
            .map(|(namespace, device)| Capture::filtered(l3vpn.lab(), namespace, device, 100, "ip[6:2] & 0x3fff != 0"))
            .collect::<Result<Vec<_>, _>>()?;
        for (site, far) in [(Site::Ce1, "192.168.1.100"), (Site::Ce2, "192.168.100.100")] {
            let host = l3vpn.host(Tenant::Blue, site);
            let fits = u16::try_from(PATH_MTU - 28).unwrap_or_default();
            host.ping(&Ping::to(far).size(fits).do_not_fragment())?.all_answered()?;
            host.ping(&Ping::to(far).size(fits + 1).do_not_fragment())?.none_answered()?;
            assert_eq!(host.learnt_mtu(far)?, Some(PATH_MTU));
            host.forget()?;
            host.ping(&Ping::to(far).size(fits + 1))?.all_answered()?;
            host.ping(&Ping::to(far).size(8000))?.all_answered()?;
        }
        let (host1, host2) = (l3vpn.host(Tenant::Blue, Site::Ce1), l3vpn.host(Tenant::Blue, Site::Ce2));
        // IPv6 is never fragmented on the way (RFC 8200 §5).
        let six = u16::try_from(PATH_MTU - 48).unwrap_or_default();
        host1.ping(&Ping::to("fd00:1::100").size(six).do_not_fragment())?.all_answered()?;
        host1.ping(&Ping::to("fd00:1::100").size(six + 1).do_not_fragment())?.none_answered()?;
        assert_eq!(host1.learnt_mtu("fd00:1::100")?, Some(PATH_MTU));
        // TCP does not run into it.
        host1.forget()?;
        let report = IperfServer::start(host2, 5201)?.test(host1, "192.168.1.100", 1, 2, false)?;
        assert!(report.octets > 100_000, "{report}");
        assert_eq!(host1.learnt_mtu("192.168.1.100")?, None, "TCP ran into the MTU: its MSS was not clamped");
        for capture in captures {
            let verdict = check_capture(&capture.stop()?)?;
            assert_eq!(verdict.frames, 0, "ESP was fragmented: {:?}", verdict.protocols);
        }
        figures(&format!("with DF: told {PATH_MTU}; without: whole, and no fragment on four untrusted links"));
        l3vpn.assert_healthy()
    })
}

#[test]
fn a_router_that_takes_no_larger_esp_lowers_that_tunnels_mtu() -> Result<(), String> {
    scenario("a_router_that_takes_no_larger_esp_lowers_that_tunnels_mtu", || {
        let mut l3vpn = L3vpn::new(&Options::through_edge())?;
        for site in [Site::Ce1, Site::Ce2] {
            dont_fragment(&l3vpn, site)?;
        }
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        for (site, far, far6, told) in [
            (Site::Ce2, "192.168.100.100", "fd00:100::100", THROUGH_BARE),
            (Site::Ce1, "192.168.1.100", "fd00:1::100", THROUGH_UDP),
        ] {
            let edge = l3vpn.edge()?;
            let (namespace, device) = if site == Site::Ce2 { (edge.internet(), "to-re") } else { (edge.nat(), "wan") };
            let host = l3vpn.host(Tenant::Blue, site);
            let large = Ping::to(far).size(u16::try_from(PATH_MTU - 28).unwrap_or_default()).do_not_fragment().count(1);
            let answered = host.ping(&large)?.all_answered();
            answered.map_err(|error| LabError::Violated(format!("{error}{}", l3vpn.diagnosis())))?;
            namespace.ip(&format!("link set {device} mtu {NARROW}"))?;
            // The first is too large for the router, which says so to the node; the next one is too large for the node, which says
            // so to the host.
            until("the host to be told what fits", LIMIT, || {
                host.ping(&large)?;
                host.learnt_mtu(far)
            })?;
            assert_eq!(host.learnt_mtu(far)?, Some(told));
            let fits = u16::try_from(told - 28).unwrap_or_default();
            host.ping(&Ping::to(far).size(fits).do_not_fragment())?.all_answered()?;
            host.ping(&Ping::to(far).size(fits + 1).do_not_fragment())?.none_answered()?;
            // IPv6 hosts are told no less than 1280 (RFC 8200 §5), and that much arrives. The answers do not: the other end knows
            // nothing of the link.
            let other = l3vpn.host(Tenant::Blue, if site == Site::Ce2 { Site::Ce1 } else { Site::Ce2 });
            let requests = "ip6[6] == 58 and ip6[40] == 128 and ip6[4:2] == 1240";
            let capture = Capture::filtered(l3vpn.lab(), other.namespace(), other.device(), 100, requests)?;
            host.ping(&Ping::to(far6).size(1280 - 48).do_not_fragment())?;
            host.ping(&Ping::to(far6).size(1280 - 47).do_not_fragment())?.none_answered()?;
            assert_eq!(host.learnt_mtu(far6)?, Some(1280));
            // One of the three is lost where this flow goes by the tunnel that has not yet heard of the link: it hears of it by that.
            let arrived = check_capture(&capture.stop()?)?.frames;
            assert!((2..=3).contains(&arrived), "{arrived} requests of 1280 octets");
            figures(&format!("{}: a link of {NARROW} on the way, {told} told to {}", site.node(), host.role()));
            namespace.ip(&format!("link set {device} mtu 1500"))?;
        }
        // What the router and the NAT say about ESP is ICMP, and the only thing that is not ESP.
        for (link, verdict) in leaks.stop()? {
            for chain in verdict.protocols.keys() {
                assert!(chain.starts_with("eth:ethertype:ip:icmp:ip:"), "{link}: {:?}", verdict.protocols);
            }
        }
        l3vpn.assert_healthy()
    })
}

/// Both tunnels of a site set DF on the outside.
fn dont_fragment(l3vpn: &L3vpn, site: Site) -> Result<(), LabError> {
    let vifs = Tunnel::ALL.into_iter().filter(|tunnel| tunnel.site == site).map(|tunnel| {
        let pair = l3vpn.edge()?.associations()?.of(tunnel).clone();
        let ids = |sas: &[hw_tests::lab::Sa]| sas.iter().map(|sa| sa.id).collect();
        let mut vif = tunnel.vif_with(TunnelEnd::Customer, ids(&pair.up), ids(&pair.down));
        if let Some(tunnel) = &mut vif.tunnel {
            tunnel.df = v1::DfPolicy::DfSet.into();
        }
        Ok(vif)
    });
    let vifs = vifs.collect::<Result<_, LabError>>()?;
    l3vpn.node(site)?.client().change(v1::ForwardingDelta { vifs, ..v1::ForwardingDelta::default() }).map(drop)
}
