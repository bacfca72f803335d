use proto::v1::{
    FailureCount, FlowTier, FlowsByTier, OffloadPort, OffloadTable, OffloadTotals, OffloadTransit, ReasonCount, Shape,
    TransitReason,
};

use super::*;

fn text(render: impl FnOnce(&mut String) -> fmt::Result) -> String {
    let mut text = String::new();
    render(&mut text).unwrap();
    text
}

#[test]
fn a_busy_engine_is_shown_at_a_glance() {
    let shape = |shape: &str, outcome: ProbeOutcome, refused: &str, detail: &str, created| Shape {
        shape: shape.into(),
        outcome: outcome.into(),
        detail: detail.into(),
        refused_reason: refused.into(),
        created,
        proven: created > 0,
    };
    let refused = "the NIC refused the canary of this shape at start";
    let status = OffloadStatus {
        profile: "mlx5-hws".into(),
        driver: "mlx5_pci".into(),
        enabled: true,
        blocked_reason: String::new(),
        shapes: vec![
            shape("tenant-to-tunnel ipv4", ProbeOutcome::ProbePassed, "", "", 4000),
            shape("tenant-to-tunnel ipv6", ProbeOutcome::ProbeRefused, refused, "Operation not supported", 0),
            shape("drop ipv4", ProbeOutcome::ProbeUnsure, "", "Device or resource busy", 1000),
            shape("drop ipv6", ProbeOutcome::ProbeNotTried, "", "", 0),
        ],
        tables: vec![
            OffloadTable { name: "tenant".into(), entries: 1500, capacity: 4000 },
            OffloadTable { name: "tunnel".into(), entries: 1499, capacity: 0 },
        ],
        full: false,
        flows: Some(FlowsByTier { hardware: 1499, partial: 3, pending: 2, software: 7 }),
        in_flight: 4,
        queued: 5,
        totals: Some(OffloadTotals {
            installed: 5000,
            removed: 2001,
            activated: 2500,
            evicted: 6,
            lost: 1,
            resets: 1,
            sweeps: 99,
            ..OffloadTotals::default()
        }),
        failures: vec![
            FailureCount { class: "capacity".into(), count: 12 },
            FailureCount { class: "busy".into(), count: 0 },
        ],
        not_honoured: vec!["tunnel-to-tenant ipv6".into()],
        insert_rate_per_s: 1234.6,
        latency_p50_us: Some(18),
        latency_p99_us: Some(3740),
        last_reset_ms: Some(60_000),
        ipsec_sessions: 8,
        dpdk_version: "24.11.3".into(),
        layout: "switch".into(),
        engine: "templates".into(),
        ports: vec![
            OffloadPort {
                device: "wan".into(),
                ethdev: "0000:08:00.0".into(),
                role: "wire".into(),
                switch_domain: Some(0),
            },
            OffloadPort { device: "lan".into(), ethdev: "net_ring0".into(), role: "wire".into(), switch_domain: None },
        ],
        findings: vec!["flows between ports of 2 switches stay in software".into()],
        abilities: "forwards from tenants IPv4; drops from tenants IPv4; marks nothing".into(),
        transit: Some(OffloadTransit {
            rules: 90,
            wanted: 96,
            limit: 4096,
            ingresses: 3,
            prefixes: 24,
            reasons: vec![TransitReason { reason: "it spreads over several ways (ECMP)".into(), prefixes: 6 }],
        }),
    };
    insta::assert_snapshot!(text(|out| render_status(&status, out)), @"
    Offload:                  on
    Profile:                  mlx5-hws
    Driver:                   mlx5_pci
    DPDK:                     24.11.3
    Layout:                   switch
    Engine:                   templates
    The NIC:                  forwards from tenants IPv4; drops from tenants IPv4; marks nothing
    Ports:
      wan:                    0000:08:00.0, wire, switch domain 0
      lan:                    net_ring0, wire
    Missing:
      flows between ports of 2 switches stay in software
    Flow pairs:
      Hardware:               1499
      Partial:                3
      Pending:                2
      Software:               7
    SAs in the NIC:           8
    Transit without flows:
      Rules:                  90 of 96 wanted, at most 4096
      Ways in:                3
      Prefixes:               24
      In software:
        6: it spreads over several ways (ECMP)
    Tables (used/limit):
      tenant:                 1500/4000 (37.5 %)
      tunnel:                 1499/unknown
    Rules:
      Installed:              5000
      Removed:                2001
      In flight:              4
      Queued:                 5
      Insert rate:            1235/s
      Latency p50/p99:        18 us/3.7 ms
      Counter rounds:         99
    Pairs:
      Activated:              2500
      Evicted:                6
    Resets of the NIC:        1, the last at 60000 ms
    Failures:
      capacity:               12
      lost:                   1
    Accepted and not honoured (their flows stay in software):
      tunnel-to-tenant ipv6
    Shapes:
      Shape                             Probe      Proven   Installed   Remarks
      tenant-to-tunnel ipv4             passed     yes      4000
      tenant-to-tunnel ipv6             refused    no       0           the NIC refused the canary of this shape at start; Operation not supported
      drop ipv4                         unsure     yes      1000        Device or resource busy
      drop ipv6                         not tried  no       0
    ");
}

#[test]
fn an_engine_that_has_done_nothing_shows_no_latency_and_no_failure() {
    let shown = text(|out| render_status(&OffloadStatus::default(), out));
    for want in ["Offload:                  off\n", "p50/p99:        -/-\n", "Failures:\n  none\n", "NIC:        0\n"] {
        assert!(shown.contains(want), "{want:?} in {shown}");
    }
    assert!(!shown.contains("not honoured") && !shown.contains("Nothing is installed"), "{shown}");
}

#[test]
fn what_keeps_the_engine_from_installing_stands_out() {
    let blocked_reason = "offload is switched off".to_owned();
    let status = OffloadStatus { blocked_reason, full: true, latency_p50_us: Some(0), ..OffloadStatus::default() };
    let shown = text(|out| render_status(&status, out));
    assert!(shown.contains("Nothing is installed:     offload is switched off\n"), "{shown}");
    assert!(shown.contains("the NIC says that it is full\n") && shown.contains("<1 ms/-\n"), "{shown}");
}

#[test]
fn reasons_come_with_their_flows_and_a_sum() {
    let reason = |reason: &str, flows| ReasonCount { reason: reason.into(), flows };
    let response = ListReasonsResponse {
        reasons: vec![reason("the TCP connection is being opened or closed", 40), reason("packets go to the host", 2)],
    };
    insta::assert_snapshot!(text(|out| render_reasons(&response, out)), @"
    Flow pairs  Why not in hardware
    40          the TCP connection is being opened or closed
    2           packets go to the host

    42          Total
    ");
}

#[test]
fn a_rule_shows_items_actions_counts_and_the_other_directions_reason() {
    let rule = InstalledRule {
        text: "group 1 priority 2 transfer pattern ipv4 ttl is 64 / end actions count / port_representor / end".into(),
        vif: 4121,
        table: "tenant".into(),
        priority: 2,
        items: vec!["represented_port 1".into(), "ipv4 ttl is 64".into()],
        actions: vec!["count".into(), "represented_port 0".into()],
        tier: FlowTier::Hardware.into(),
        packets: 12,
        bytes: 1800,
        installed_ms: Some(90_000),
        live: true,
        needed_by: 0,
    };
    let stage = InstalledRule {
        text: "group 1 pattern vlan tci is 100 / end actions of_pop_vlan / jump group 6 / end".into(),
        table: "tenant".into(),
        tier: FlowTier::Hardware.into(),
        needed_by: 3,
        ..InstalledRule::default()
    };
    let forward = DirectionRules {
        flow: 8,
        tier: FlowTier::Hardware.into(),
        rules: vec![stage, rule],
        ..DirectionRules::default()
    };
    let reverse = DirectionRules {
        flow: 9,
        tier: FlowTier::Software.into(),
        not_offloaded_reason: "offload is switched off".into(),
        rules: Vec::new(),
    };
    let rules = FlowRules { forward: Some(forward), reverse: Some(reverse) };
    insta::assert_snapshot!(text(|out| render_rules(&rules, out)), @"
    Flow Index:               8
    Tier:                     Hardware
    Rule:                     group 1 pattern vlan tci is 100 / end actions of_pop_vlan / jump group 6 / end
      Port:                   any
      Table/Priority:         tenant/0
      Tier:                   Hardware
      Statistics:             0 packets, 0 bytes
      State:                  on its way
      Needed By:              3 rules
    Rule:                     group 1 priority 2 transfer pattern ipv4 ttl is 64 / end actions count / port_representor / end
      Port:                   vif0/4121
      Table/Priority:         tenant/2
      Tier:                   Hardware
      Items:                  represented_port 1
                              ipv4 ttl is 64
      Actions:                count
                              represented_port 0
      Statistics:             12 packets, 1800 bytes
      State:                  live
      Installed:              90000 ms

    Flow Index:               9
    Tier:                     Software(offload is switched off)
    Rule:                     none
    ");
}

#[test]
fn differences_come_one_by_one_with_their_number() {
    let difference = |kind: DifferenceKind, flow, detail: &str| RuleDifference {
        kind: kind.into(),
        flow,
        rule: "group 1 pattern ipv4 / end actions drop / end".into(),
        detail: detail.into(),
    };
    let diff = OffloadDiff {
        differences: vec![
            difference(DifferenceKind::Missing, Some(8), "the NIC does not know it"),
            difference(DifferenceKind::Extra, None, ""),
            difference(DifferenceKind::Different, Some(9), "TTL 64 is written, 63 was meant"),
        ],
    };
    insta::assert_snapshot!(text(|out| render_diff(&diff, out)), @"
    missing    flow 8          group 1 pattern ipv4 / end actions drop / end
                               the NIC does not know it
    extra      no flow         group 1 pattern ipv4 / end actions drop / end
    different  flow 9          group 1 pattern ipv4 / end actions drop / end
                               TTL 64 is written, 63 was meant

    1 missing, 1 extra, 1 different
    ");
    let none = text(|out| render_diff(&OffloadDiff::default(), out));
    assert_eq!(none, "No difference: the NIC holds what it should\n");
}

#[test]
fn the_switch_says_what_it_did() {
    let says = |enabled, changed, flows_drained, flows_draining| {
        text(|out| render_switch(&SetEnabledResult { enabled, changed, flows_drained, flows_draining }, out))
    };
    assert_eq!(says(true, true, 0, 0), "Offload is on; flows move to hardware as their packets come\n");
    assert_eq!(says(true, false, 0, 0), "Offload is on; it was so before\n");
    assert_eq!(says(false, true, 12, 0), "Offload is off; 12 flow pairs went back to software\n");
    assert_eq!(says(false, true, 9, 3), "Offload is off; 9 flow pairs went back to software, 3 are on their way\n");
    assert_eq!(says(false, false, 0, 0), "Offload is off; it was so before\n");
}
