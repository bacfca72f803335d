//! A full flow table: what one tenant does refuses nothing to another, and what is established lives on.

use proptest::prelude::*;

use crate::{
    common::{
        Node,
        packets::{ACK, Packet, RST, SYN, eth, segment, syn, udp},
        walk_a::workers,
    },
    isolation,
};

const TENANTS: u32 = 3;
/// Pairs that fit.
const PAIRS: usize = 32;

/// Tenants with a VRF each, all with the same addresses: what comes in on vif 2t-1 goes out on vif 2t. UDP to port 666 is denied.
fn state() -> String {
    let mut vrfs = Vec::new();
    let (mut vifs, mut nexthops, mut routes) = (Vec::new(), Vec::new(), Vec::new());
    for tenant in 1..=TENANTS {
        vrfs.push(format!(r#"{{"id": {tenant}, "name": "vrf{tenant}"}}"#));
        for (vif, net) in [(tenant * 2 - 1, 1), (tenant * 2, 2)] {
            vifs.push(format!(
                r#"{{"id": {vif}, "name": "v{vif}", "type": "PHYSICAL", "mac": "02:00:00:00:00:0{vif}", "vrf": {tenant},
                "addresses": ["10.{net}.0.1/16"], "flags": {{"policy": true}}, "ingressAcls": [5]}}"#
            ));
            nexthops.push(format!(
                r#"{{"id": {vif}, "vrf": {tenant}, "encap": {{"oif": {vif}, "encapData": "02aaaaaaaa0{vif} 02000000000{vif} 0800"}}}}"#
            ));
            routes.push(format!(r#"{{"vrf": {tenant}, "prefix": "10.{net}.0.0/16", "nexthop": {vif}}}"#));
        }
    }
    let (vrfs, vifs, nexthops, routes) = (vrfs.join(","), vifs.join(","), nexthops.join(","), routes.join(","));
    format!(
        r#"{{"generation": 1, "settings": {{"maxFlows": {}, "halfOpenPercentPerVif": 100}}, "vrfs": [{vrfs}], "vifs": [{vifs}],
        "nexthops": [{nexthops}], "routes": [{routes}],
        "acls": [{{"id": 5, "entries": [{{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {{"first": 666, "last": 666}}}}]}}]}}"#,
        PAIRS * 2
    )
}

/// What a tenant's flow is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Udp,
    Syn,
    /// UDP, answered by the tenant itself.
    AnsweredUdp,
    /// TCP, opened by the tenant itself.
    OpenTcp,
    Denied,
}

struct Bed(Node);

impl Bed {
    fn new() -> Self {
        Self(Node::new(&state()))
    }

    /// From the tenant's clients to its servers.
    fn there(&mut self, tenant: u32, packet: &Packet) -> bool {
        self.pass(tenant * 2 - 1, tenant * 2, packet)
    }

    fn back(&mut self, tenant: u32, packet: &Packet) -> bool {
        self.pass(tenant * 2, tenant * 2 - 1, packet)
    }

    fn pass(&mut self, into: u32, out: u32, packet: &Packet) -> bool {
        let sent = self.0.receive(into, &eth([2, 0, 0, 0, 0, into as u8], [2, 0xaa, 0, 0, 0, 9], &packet.ip()));
        assert!(sent.iter().all(|sent| u32::from(sent.meta.vif.get()) == out));
        !sent.is_empty()
    }

    /// Begins a flow; was it let through?
    fn begin(&mut self, tenant: u32, kind: Kind, port: u16) -> bool {
        let (client, server) = ("10.1.0.2", "10.2.0.2");
        match kind {
            Kind::Udp => self.there(tenant, &udp(client, server, port, 53, b"x")),
            Kind::Denied => self.there(tenant, &udp(client, server, port, 666, b"x")),
            Kind::Syn => self.there(tenant, &syn(client, server, port, 80)),
            Kind::AnsweredUdp => {
                self.there(tenant, &udp(client, server, port, 53, b"x"))
                    && self.back(tenant, &udp(server, client, 53, port, b"y"))
            }
            Kind::OpenTcp => {
                self.there(tenant, &segment(client, server, (port, 80), SYN, (100, 0), &[]))
                    && self.back(tenant, &segment(server, client, (80, port), SYN | ACK, (500, 101), &[]))
                    && self.there(tenant, &segment(client, server, (port, 80), ACK, (101, 501), &[]))
            }
        }
    }

    /// Is this pair there? Asked of the table, so that asking changes nothing.
    fn has(&self, tenant: u32, port: u16) -> bool {
        let client = |sport: u16, vif: u16| sport == port && u32::from(vif) == tenant * 2 - 1;
        self.0.records().iter().any(|record| client(record.key.sport, record.key.vif.get()))
    }

    fn flows_of(&self, tenant: u32) -> usize {
        self.0.records().iter().filter(|record| u32::from(record.key.vif.get()) == tenant * 2 - 1).count()
    }
}

#[test]
fn case_01_unanswered_flows_of_one_tenant_refuse_none_to_another() {
    let mut bed = Bed::new();
    let through = (1..=40).filter(|port| bed.begin(1, Kind::Udp, *port)).count();
    assert_eq!((through, bed.0.all_drops()), (PAIRS, vec![("Flow Table Full", 8)]));
    bed.0.wait(60_000);
    for port in 1..=3 {
        assert!(bed.begin(2, Kind::Syn, port), "SYN {port}: {:?}", bed.0.all_drops());
    }
    assert_eq!(bed.0.all_drops(), [("Flow Table Full", 8)]);
    // The oldest have given way, to the others nothing has happened.
    assert_eq!((1..=40).filter(|port| bed.has(1, *port)).collect::<Vec<_>>(), (4..=32).collect::<Vec<_>>());
}

#[test]
fn case_01_each_tenant_has_at_least_an_equal_share_of_unanswered_flows() {
    let mut bed = Bed::new();
    for port in 1..=200 {
        for tenant in 1..=TENANTS {
            // The first one knocks a hundred times as often.
            for knock in 0..if tenant == 1 { 100 } else { 1 } {
                bed.begin(tenant, Kind::Udp, port * 100 + knock);
            }
        }
    }
    for tenant in 2..=TENANTS {
        assert!(bed.flows_of(tenant) >= PAIRS / 3, "{} has {}", tenant, bed.flows_of(tenant));
    }
}

#[test]
fn case_01_who_answers_itself_gives_way_with_what_was_idle_for_longest() {
    for kind in [Kind::AnsweredUdp, Kind::OpenTcp] {
        let mut bed = Bed::new();
        (1..=PAIRS as u16).for_each(|port| assert!(bed.begin(1, kind, port)));
        bed.0.wait(1000);
        // Of these, the first half are in use.
        for port in 1..=PAIRS as u16 / 2 {
            let packet = match kind {
                Kind::OpenTcp => segment("10.1.0.2", "10.2.0.2", (port, 80), ACK, (101, 501), b"data"),
                _ => udp("10.1.0.2", "10.2.0.2", port, 53, b"x"),
            };
            assert!(bed.there(1, &packet));
        }
        for port in 1..=10 {
            assert!(bed.begin(2, Kind::OpenTcp, port), "{port}: {:?}", bed.0.all_drops());
        }
        assert!((1..=10).all(|port| bed.has(2, port)));
        let left: Vec<_> = (1..=PAIRS as u16).filter(|port| bed.has(1, *port)).collect();
        assert_eq!(left, (1..=16).chain(27..=32).collect::<Vec<u16>>(), "{kind:?}");
        // It does not come back at the other's cost.
        (100..200).for_each(|port| _ = bed.begin(1, kind, port));
        assert!((1..=10).all(|port| bed.has(2, port)));
    }
}

#[test]
fn case_01_an_unanswered_flood_takes_at_most_two_thirds_of_a_share() {
    let mut bed = Bed::new();
    (1..=PAIRS as u16).for_each(|port| assert!(bed.begin(2, Kind::OpenTcp, port)));
    for port in 1..=5000 {
        bed.begin(1, if port % 2 == 0 { Kind::Udp } else { Kind::Syn }, port);
    }
    let living = (1..=PAIRS as u16).filter(|port| bed.has(2, *port)).count();
    assert!(living >= PAIRS - PAIRS / 3 - 1, "{living} of {PAIRS} live");
    // What the tenant begins takes the place of the flood's flows.
    let before: Vec<_> = (1..=PAIRS as u16).filter(|port| bed.has(2, *port)).collect();
    for port in 100..103 {
        assert!(bed.begin(2, Kind::OpenTcp, port), "{:?}", bed.0.all_drops());
    }
    assert!(before.iter().all(|port| bed.has(2, *port)));
}

#[test]
fn case_01_denials_and_what_is_over_go_before_all_else() {
    let mut bed = Bed::new();
    (1..=4).for_each(|port| assert!(bed.begin(1, Kind::OpenTcp, port)));
    (1..=200).for_each(|port| assert!(!bed.begin(1, Kind::Denied, port)));
    let denied = bed.0.records().len();
    assert!(denied > 40, "{denied}");
    // Another tenant's denials are remembered as well, in the place of those.
    (1..=10).for_each(|port| assert!(!bed.begin(2, Kind::Denied, port)));
    assert_eq!(bed.flows_of(2), 10);
    for port in 1000..1026 {
        assert!(bed.begin(3, Kind::Udp, port), "{:?}", bed.0.all_drops());
    }
    // The table is full of traffic. One that was reset goes first, whoever's it is and whoever comes.
    (2000..2002).for_each(|port| assert!(bed.begin(3, Kind::Udp, port)));
    assert!(!bed.begin(3, Kind::Udp, 2002), "{:?}", bed.0.records().len());
    assert!(bed.there(1, &segment("10.1.0.2", "10.2.0.2", (2, 80), RST, (101, 0), &[])));
    assert!(bed.begin(3, Kind::Udp, 2003));
    assert!(!bed.has(1, 2) && [1, 3, 4].iter().all(|port| bed.has(1, *port)));
}

#[test]
fn case_01_tenants_behind_one_underlay_have_shares_of_their_own() {
    let mut node = isolation::node_with(r#""maxFlows": 64, "halfOpenPercentPerVif": 25"#);
    let from = |tenant, packet: &Packet| isolation::down(tenant, packet);
    // Half-open ones first: a quarter of the table each.
    let (blue, green) = (isolation::BLUE, isolation::GREEN);
    let (server, client) = (crate::common::walk_a::SERVER, crate::common::walk_a::CLIENT);
    let underlay = crate::common::walk_a::UNDERLAYS[0];
    let through =
        (1..=20).filter(|port| !node.receive(underlay, &from(blue, &syn(server, client, *port, 80))).is_empty());
    assert_eq!(through.count(), 8);
    assert_eq!(node.all_drops(), [("Half Open Limit", 12)]);
    for port in 1..=8 {
        assert_eq!(node.receive(underlay, &from(green, &syn(server, client, port, 80))).len(), 1);
    }
    // Then the whole table, by the first.
    for port in 100..200 {
        node.receive(underlay, &from(blue, &udp(server, client, port, 53, b"x")));
    }
    for port in 300..303 {
        assert_eq!(node.receive(underlay, &from(green, &udp(server, client, port, 53, b"x"))).len(), 1);
    }
}

#[test]
fn case_01_new_flows_out_of_one_underlay_have_a_rate_for_each_tenant() {
    let mut node = isolation::node_with(r#""newFlowRatePerVif": 10"#);
    let underlay = crate::common::walk_a::UNDERLAYS[0];
    let (server, client) = (crate::common::walk_a::SERVER, crate::common::walk_a::CLIENT);
    for tenant in [isolation::BLUE, isolation::GREEN] {
        let packets = (1..=30).map(|port| isolation::down(tenant, &udp(server, client, port, 53, b"x")));
        assert_eq!(packets.filter(|frame| !node.receive(underlay, frame).is_empty()).count(), 10);
    }
}

#[test]
fn case_01_icmp_errors_from_one_underlay_have_a_rate_for_each_tenant() {
    let mut node = isolation::node_with(r#""icmpErrorRate": 10"#);
    let underlay = crate::common::walk_a::UNDERLAYS[0];
    let (server, client) = (crate::common::walk_a::SERVER, crate::common::walk_a::CLIENT);
    for tenant in [isolation::BLUE, isolation::GREEN] {
        let expired = isolation::down(tenant, &udp(server, client, 1, 53, b"x").ttl(1));
        assert_eq!((0..30).filter(|_| !node.receive(underlay, &expired).is_empty()).count(), 10);
    }
}

#[test]
fn case_01_every_worker_has_shares_of_its_own_table() {
    let mut bed = Bed(Node::with(&state().replace("\"maxFlows\": 64", "\"maxFlows\": 256"), workers(2)));
    for port in 1..=2000 {
        bed.begin(1, Kind::Udp, port);
    }
    for port in 1..=20 {
        assert!(bed.begin(2, Kind::OpenTcp, port), "{port}: {:?}", bed.0.all_drops());
    }
    assert!((1..=20).all(|port| bed.has(2, port)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever one tenant floods the table with, and however long it has held it: all that another one begins is admitted, up to its
    /// share, and what it has established lives.
    #[test]
    fn case_01_whatever_one_tenant_does_anothers_flows_are_admitted(
        kinds in prop::collection::vec(prop::sample::select(
            vec![Kind::Udp, Kind::Syn, Kind::AnsweredUdp, Kind::OpenTcp, Kind::Denied]), 1..4),
        established in 0u16..8,
        flood in 1u16..200,
        again in 1u16..40,
        new in prop::sample::select(vec![Kind::Udp, Kind::Syn, Kind::OpenTcp]),
        pause in prop::sample::select(vec![0u64, 100, 20_000]),
    ) {
        let mut bed = Bed::new();
        for port in 1..=established {
            prop_assert!(bed.begin(2, Kind::OpenTcp, port));
        }
        let kind = |n: u16| kinds[usize::from(n) % kinds.len()];
        for n in 0..flood {
            bed.begin(1, kind(n), 1000 + n);
        }
        bed.0.wait(pause);
        for port in 100..108 {
            for n in 0..again {
                bed.begin(1, kind(n), 2000 + (port - 100) * 40 + n);
            }
            prop_assert!(bed.begin(2, new, port), "{}: {:?}", port, bed.0.all_drops());
        }
        for port in (1..=established).chain(100..108) {
            prop_assert!(bed.has(2, port), "{} of the victim is gone", port);
        }
    }
}
