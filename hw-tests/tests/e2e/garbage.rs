//! Noise on every interface.

use std::time::Duration;

use hw_tests::lab::{Garbage, IperfServer, L3vpn, LabError, Options, Ping, PingReport, Site, Tenant, scenario};

const SECONDS: u32 = 6;
/// Frames per second in all: a multiple of the real traffic's packets that still leaves the machine time for it.
const RATE: u32 = 8_000;

/// "00:0c:29:0f:f4:a1" as octets.
fn mac(text: &str) -> Result<[u8; 6], LabError> {
    let octets: Vec<u8> = text.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect();
    octets.try_into().map_err(|_| LabError::Violated(format!("{text} is no MAC")))
}

#[test]
fn garbage_on_every_vif_while_traffic_goes_on() -> Result<(), String> {
    scenario("garbage_on_every_vif_while_traffic_goes_on", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let mut garbage = Garbage::new(0x5eed);
        for tenant in Tenant::ALL {
            let device = if tenant == Tenant::Blue { "00:0c:29:01:02:24" } else { "00:0c:29:01:02:25" };
            garbage.aim(l3vpn.host(tenant, Site::Ce1).namespace(), "eth0", mac(device)?)?;
        }
        garbage.aim(l3vpn.switch_namespace(), "trunk", mac("00:0c:29:0f:f4:a1")?)?;
        let [a, b] = l3vpn.transits()?;
        for (transit, device, target) in [
            (a, "to-ce1", "00:0c:29:01:01:61"),
            (b, "to-ce1", "00:0c:29:01:02:56"),
            (a, "to-ce2", "00:0c:29:02:01:61"),
            (b, "to-ce2", "00:0c:29:02:02:56"),
        ] {
            garbage.aim(transit, device, mac(target)?)?;
        }

        let (host1, host2) = (l3vpn.host(Tenant::Blue, Site::Ce1), l3vpn.host(Tenant::Blue, Site::Ce2));
        let server = IperfServer::start(host2, 5201)?;
        let ping = Ping::to("192.168.1.100").count(SECONDS * 20).interval(Duration::from_millis(50));
        let pings = ping.spawn(l3vpn.host(Tenant::Green, Site::Ce1).namespace())?;
        let bulk = server.spawn(host1, "192.168.1.100", SECONDS - 2, 2, false)?;
        let flood = garbage.flood(Duration::from_secs(u64::from(SECONDS)), RATE)?;
        let report = IperfServer::finish(bulk, SECONDS)?;
        let pings = PingReport::from_output(pings.wait(ping.limit())?)?;

        assert!(flood.sent > u64::from(SECONDS) * 1000, "{flood:?}");
        assert!(report.octets > 1_000_000, "{report}");
        // The flood competes for the rings; nearly all of the pings get through, and none twice.
        assert!(pings.received * 10 >= pings.sent * 9 && pings.duplicates == 0, "{}", pings.text);
        // And when it is over, all do.
        for tenant in Tenant::ALL {
            l3vpn.host(tenant, Site::Ce1).ping(&Ping::to("192.168.1.100"))?.all_answered()?;
            l3vpn.host(tenant, Site::Ce1).ping(&Ping::to("fd00:1::100"))?.all_answered()?;
        }
        for site in [Site::Ce1, Site::Ce2] {
            let drops = l3vpn.node(site)?.client().drops()?;
            let reasons: Vec<_> = drops.iter().map(|drop| drop.reason.as_str()).collect();
            assert!(reasons.len() >= 5, "{}: only {reasons:?}", site.node());
        }
        l3vpn.assert_healthy()
    })
}
