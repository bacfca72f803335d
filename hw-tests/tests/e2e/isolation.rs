//! Tenants with the same addresses never see each other.

use hw_tests::lab::{L3vpn, Options, Ping, Site, Tenant, WebServer, scenario};
use proto::v1;

#[test]
fn overlapping_tenants_are_isolated() -> Result<(), String> {
    scenario("overlapping_tenants_are_isolated", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;

        // One address, two servers: each tenant gets its own page, always.
        let servers = Tenant::ALL
            .iter()
            .map(|&tenant| WebServer::start(l3vpn.lab(), l3vpn.host(tenant, Site::Ce2), &tenant.page(Site::Ce2)))
            .collect::<Result<Vec<_>, _>>()?;
        for _ in 0..5 {
            for tenant in Tenant::ALL {
                let page = l3vpn.host(tenant, Site::Ce1).curl("http://192.168.1.100/")?;
                assert_eq!(page, tenant.page(Site::Ce2));
                let page = l3vpn.host(tenant, Site::Ce1).curl("http://[fd00:1::100]/")?;
                assert_eq!(page, tenant.page(Site::Ce2));
            }
        }
        drop(servers);

        // Only green serves: blue gets nothing at all, green its page.
        let _green =
            WebServer::start(l3vpn.lab(), l3vpn.host(Tenant::Green, Site::Ce2), &Tenant::Green.page(Site::Ce2))?;
        let refused = l3vpn.host(Tenant::Blue, Site::Ce1).curl_output("http://192.168.1.100/")?;
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
        assert_eq!(l3vpn.host(Tenant::Green, Site::Ce1).curl("http://192.168.1.100/")?, Tenant::Green.page(Site::Ce2));

        // The same 5-tuple in both VRFs at once is two pairs, with the label of each.
        for tenant in Tenant::ALL {
            l3vpn.host(tenant, Site::Ce1).ping(&Ping::to("192.168.1.100"))?.all_answered()?;
            let flows = l3vpn.node(Site::Ce1)?.client().flows(v1::ListFlowsRequest {
                vrf: Some(tenant.vrf()),
                source: "192.168.100.100".to_owned(),
                ..Default::default()
            })?;
            assert!(!flows.is_empty());
            let own = Some(tenant.label_toward(Site::Ce2));
            assert!(flows.iter().all(|flow| flow.label == own && flow.destination_vrf == tenant.vrf()), "{flows:#?}");
        }

        // The underlay cannot be reached from a tenant, nor a tenant from the underlay.
        let host1 = l3vpn.host(Tenant::Blue, Site::Ce1);
        for address in ["172.28.13.36", "172.28.13.1", "10.101.10.39", "10.101.9.245"] {
            host1.ping(&Ping::to(address).count(1))?.none_answered()?;
        }
        let [transit, _] = l3vpn.transits()?;
        transit.ip("route add 192.168.100.0/24 via 172.28.13.36")?;
        Ping::to("192.168.100.100")
            .count(1)
            .spawn(transit)?
            .wait(std::time::Duration::from_secs(10))
            .and_then(|output| hw_tests::lab::PingReport::from_output(output)?.none_answered())?;
        l3vpn.assert_healthy()
    })
}
