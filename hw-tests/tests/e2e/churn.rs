//! Changes under traffic: interfaces that come and go, routes that move.

use std::time::Duration;

use hw_tests::lab::{L3vpn, LabError, Namespace, NodeClient, Options, Ping, PingReport, Site, Tenant, scenario, until};
use proto::v1;

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn interface_disappears_while_running() -> Result<(), String> {
    scenario("interface_disappears_while_running", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let client = l3vpn.node(Site::Ce1)?.client();
        let green = Tenant::Green.vif();
        let state_is = |wanted: v1::OperState| {
            until(&format!("vif {green} to be {wanted:?}"), LIMIT, || {
                Ok((client.vif(green)?.oper_state() == wanted).then_some(()))
            })
        };
        state_is(v1::OperState::Up)?;

        // Blue pings all the while; green's link goes and comes back, twice.
        let ping = Ping::to("192.168.1.100").count(100).interval(Duration::from_millis(50));
        let blue = ping.spawn(l3vpn.host(Tenant::Blue, Site::Ce1).namespace())?;
        for _ in 0..2 {
            l3vpn.unplug_site1(Tenant::Green)?;
            state_is(v1::OperState::Down)?;
            assert!(!client.vif(green)?.oper_error.is_empty(), "no word on why vif {green} is down");
            // Toward the host that is gone: a typed drop.
            let lost = l3vpn.host(Tenant::Green, Site::Ce2).ping(&Ping::to("192.168.100.100").count(2))?;
            assert_eq!(lost.received, 0, "{}", lost.text);
            l3vpn.plug_site1(Tenant::Green)?;
            state_is(v1::OperState::Up)?;
            l3vpn.wait_until_reachable(Tenant::Green, LIMIT)?;
        }
        PingReport::from_output(blue.wait(ping.limit())?)?.all_answered()?;
        for tenant in Tenant::ALL {
            l3vpn.host(tenant, Site::Ce2).ping(&Ping::to("192.168.100.100"))?.all_answered()?;
        }
        l3vpn.assert_healthy()
    })
}

/// CE1's flows from host1 to host2.
fn flows_to_host2(client: &NodeClient) -> Result<Vec<v1::Flow>, LabError> {
    client.flows(v1::ListFlowsRequest {
        vrf: Some(18),
        source: "192.168.100.100".to_owned(),
        destination: "192.168.1.100".to_owned(),
        ..Default::default()
    })
}

fn composite(members: [u32; 2]) -> v1::ForwardingDelta {
    let members = members.map(|nexthop| v1::CompositeMember { nexthop, weight: Some(100), label: None }).to_vec();
    let kind = Some(v1::nexthop::Kind::Composite(v1::CompositeNexthop { members }));
    let nexthop = v1::Nexthop { id: 532, kind, ..Default::default() };
    v1::ForwardingDelta { nexthops: vec![nexthop], ..Default::default() }
}

fn route(prefix: &str, nexthop: u32, label: Option<u32>) -> v1::ForwardingDelta {
    let route = v1::Route { vrf: 18, prefix: prefix.to_owned(), nexthop, label, ..Default::default() };
    v1::ForwardingDelta { routes: vec![route], ..Default::default() }
}

/// Do the flow's packets leave on this vif?
fn leaves_on(flow: &v1::Flow, vif: u32) -> bool {
    flow.ops.last().is_some_and(|op| *op == format!("output vif {vif}"))
}

/// Waits until all flows to host2 satisfy a condition.
fn flows_become(client: &NodeClient, what: &str, condition: impl Fn(&v1::Flow) -> bool) -> Result<(), LabError> {
    until(what, LIMIT, || {
        let flows = flows_to_host2(client)?;
        Ok((!flows.is_empty() && flows.iter().all(&condition)).then_some(()))
    })
}

#[test]
fn route_change_rederives_flows() -> Result<(), String> {
    scenario("route_change_rederives_flows", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let host1 = l3vpn.host(Tenant::Blue, Site::Ce1);
        let (ce1, ce2) = (l3vpn.node(Site::Ce1)?.client(), l3vpn.node(Site::Ce2)?.client());

        // Traffic runs through all legal changes, and loses nothing.
        let ping = Ping::to("192.168.1.100").count(150).interval(Duration::from_millis(20));
        let running = ping.spawn(host1.namespace())?;
        until("a flow to host2", LIMIT, || Ok((!flows_to_host2(ce1)?.is_empty()).then_some(())))?;

        // A lost member moves its flows to the other one; a returned member takes its slot back.
        let home = |flow: &v1::Flow| flow.ecmp_index.first().copied();
        let before = flows_to_host2(ce1)?;
        for (members, vif) in [([0, 86], 4109), ([85, 0], 4111), ([0, 86], 4109)] {
            ce1.change(composite(members))?;
            flows_become(ce1, &format!("the flows to move to vif {vif}"), |flow| leaves_on(flow, vif))?;
        }
        ce1.change(composite([85, 86]))?;
        flows_become(ce1, "the flows to go home", |flow| {
            leaves_on(flow, if home(flow) == Some(0) { 4111 } else { 4109 })
        })?;
        for flow in flows_to_host2(ce1)? {
            let earlier =
                before.iter().find(|earlier| (earlier.index, earlier.generation) == (flow.index, flow.generation));
            assert!(earlier.is_none_or(|earlier| home(earlier) == home(&flow)), "a flow has lost its home: {flow:#?}");
        }

        // Another label: known at CE2 first, then pushed by CE1.
        let label = v1::MplsLabel { label: 290, nexthop: 513 };
        ce2.change(v1::ForwardingDelta { labels: vec![label], ..Default::default() })?;
        ce1.change(route("192.168.1.0/24", 489, Some(290)))?;
        flows_become(ce1, "the flows to push label 290", |flow| flow.label == Some(290))?;
        PingReport::from_output(running.wait(ping.limit())?)?.all_answered()?;

        // A more specific route to nowhere stops them; without it the covering one is back, with its label.
        let drop_nexthop = v1::Nexthop {
            id: 700,
            vrf: 18,
            kind: Some(v1::nexthop::Kind::Drop(v1::DropNexthop {})),
            ..Default::default()
        };
        let blackhole = v1::ForwardingDelta { nexthops: vec![drop_nexthop], ..route("192.168.1.100/32", 700, None) };
        ce1.change(blackhole)?;
        host1.ping(&Ping::to("192.168.1.100"))?.none_answered()?;
        let key = v1::RouteKey { vrf: 18, prefix: "192.168.1.100/32".to_owned() };
        ce1.change(v1::ForwardingDelta { remove_routes: vec![key], ..Default::default() })?;
        host1.ping(&Ping::to("192.168.1.100"))?.all_answered()?;
        flows_become(ce1, "the flows to push label 290 again", |flow| {
            flow.action() == v1::FlowAction::Forward && flow.label == Some(290)
        })?;

        // A policy that denies what runs: refused at once; without it, allowed again.
        let deny = |action: v1::AclAction| v1::Acl {
            id: 65,
            name: "permit-all".to_owned(),
            entries: vec![v1::Ace { id: 1, action: action.into(), ..Default::default() }],
            default_action: 0,
        };
        ce1.change(v1::ForwardingDelta { acls: vec![deny(v1::AclAction::Deny)], ..Default::default() })?;
        host1.ping(&Ping::to("192.168.1.100"))?.none_answered()?;
        ce1.change(v1::ForwardingDelta { acls: vec![deny(v1::AclAction::Permit)], ..Default::default() })?;
        host1.ping(&Ping::to("192.168.1.100"))?.all_answered()?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn ecmp_link_down_moves_flows_and_ping_goes_on() -> Result<(), String> {
    scenario("ecmp_link_down_moves_flows_and_ping_goes_on", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let ce1 = l3vpn.node(Site::Ce1)?.client();
        let host1 = l3vpn.host(Tenant::Blue, Site::Ce1);
        let [transit_a, transit_b] = l3vpn.transits()?;
        let links = |transit: &Namespace, state: &str| {
            ["to-ce1", "to-ce2"].iter().try_for_each(|link| transit.ip(&format!("link set {link} {state}")).map(drop))
        };
        let restore = |transit: &Namespace, index: u32| {
            links(transit, "up")?;
            // The kernel forgets the routes of a link that goes down.
            for (site, device, net) in [(Site::Ce1, "to-ce1", 13 + index), (Site::Ce2, "to-ce2", 23 + index)] {
                transit.ip(&format!("route replace {}/32 via 172.28.{net}.36 dev {device}", site.tunnel_source()))?;
            }
            Ok::<_, LabError>(())
        };
        for (index, transit, lost, other) in [(0, transit_a, 4111, 4109), (1, transit_b, 4109, 4111)] {
            let ping = Ping::to("192.168.1.100").count(100).interval(Duration::from_millis(40));
            let running = ping.spawn(host1.namespace())?;
            until("a flow to host2", LIMIT, || Ok((!flows_to_host2(ce1)?.is_empty()).then_some(())))?;
            links(transit, "down")?;
            until("the link to be down", LIMIT, || {
                Ok((ce1.vif(lost)?.oper_state() == v1::OperState::Down).then_some(()))
            })?;
            flows_become(ce1, &format!("all flows to leave on vif {other}"), |flow| leaves_on(flow, other))?;
            host1.ping(&Ping::to("192.168.1.100"))?.all_answered()?;
            restore(transit, index)?;
            until("the link to be up again", LIMIT, || {
                Ok((ce1.vif(lost)?.oper_state() == v1::OperState::Up).then_some(()))
            })?;
            // Those of the returned member go home.
            flows_become(ce1, "the flows to go home", |flow| {
                leaves_on(flow, if flow.ecmp_index.first() == Some(&0) { 4111 } else { 4109 })
            })?;
            let report = PingReport::from_output(running.wait(ping.limit())?)?;
            // Until a node has seen that its link is gone, at most a second or so, what goes there is lost.
            assert!(report.received * 2 >= report.sent && report.duplicates == 0, "{}", report.text);
        }
        host1.ping(&Ping::to("192.168.1.100"))?.all_answered()?;
        l3vpn.assert_healthy()
    })
}
