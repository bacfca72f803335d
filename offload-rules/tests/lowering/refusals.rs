//! What is refused, and why.

use std::sync::Arc;

use offload_rules::{
    MacAddr,
    flow::{Decap, Egress, Forward, Operations, Oversize, Program, SequenceShift, SizeLimit},
    lower::{
        Action, Chain, Direction, DpdkVersion, Item, Layout, NicProfile, Shape, Stage, Table, Unsupported, lower,
        partial,
    },
};

use crate::flow::{Flow, To, vif};

/// Of DPDK 24.11 for hardware steering: 22.11's looks into no tunnel.
fn profile(name: &str) -> NicProfile {
    let version = if name == "mlx5-hws" { DpdkVersion::V24_11 } else { DpdkVersion::V22_11 };
    NicProfile::of_version(name, version).unwrap()
}

fn refusal(flow: &Flow, name: &str) -> Option<Unsupported> {
    lower(&flow.direction(), &profile(name), false).err()
}

fn with(flow: &Flow, change: impl FnOnce(&mut Forward)) -> Direction {
    let mut direction = flow.direction();
    let Operations::Forward(mut forward) = direction.program.ops.clone() else { panic!("a flow that is forwarded") };
    change(&mut forward);
    direction.program = Arc::new(Program { ops: Operations::Forward(forward), ..(*direction.program).clone() });
    direction
}

#[test]
fn what_only_software_can_do_is_refused_by_every_nic() {
    let plain = Flow::plain().tcp();
    let cases: [(Direction, Unsupported); 7] = [
        (Flow { proto: 1, ..plain.clone() }.direction(), Unsupported::Icmp),
        (Flow { proto: 58, ..plain.clone().v6() }.direction(), Unsupported::Icmp),
        (Flow { proto: 44, ..plain.clone().v6() }.direction(), Unsupported::Protocol),
        (with(&plain, |forward| forward.egress = Egress::Punt(vif(4))), Unsupported::Punt),
        (with(&plain, |forward| forward.shift = Some(SequenceShift::Acknowledgement)), Unsupported::SequenceShift),
        (with(&plain, |forward| forward.l2 = None), Unsupported::RawIp),
        (Direction { egress_port: None, ..plain.direction() }, Unsupported::ForeignPort),
    ];
    for name in NicProfile::NAMES {
        for (direction, why) in &cases {
            assert_eq!(lower(direction, &profile(name), false), Err(*why), "{name}");
        }
    }
}

#[test]
fn what_has_no_ethernet_header_and_what_contradicts_itself_is_refused() {
    let twin = profile("twin");
    let mut direction = Flow::plain().direction();
    direction.arrival.eth_dst = MacAddr::default();
    assert_eq!(lower(&direction, &twin, false), Err(Unsupported::RawIp));
    let mut direction = Flow::plain().direction();
    direction.arrival.tunnel = Flow::plain().out_of_tunnel().direction().arrival.tunnel;
    assert_eq!(lower(&direction, &twin, false), Err(Unsupported::Match), "a tunnel, and a key of a vif");
    let direction = with(&Flow::plain().out_of_tunnel(), |forward| forward.decap = None);
    assert_eq!(lower(&direction, &twin, false), Err(Unsupported::Match), "a tunnel that stays on");
    let direction = with(&Flow::plain(), |forward| forward.decap = Some(Decap::MplsOUdp));
    assert_eq!(lower(&direction, &twin, false), Err(Unsupported::Match), "no tunnel to come out of");
}

#[test]
fn a_packet_with_its_last_ttl_makes_no_rule() {
    for ttl in [0, 1] {
        assert_eq!(refusal(&Flow { ttl, ..Flow::plain() }, "twin"), Some(Unsupported::Ttl));
    }
    let kept = with(&Flow { ttl: 1, ..Flow::plain() }, |forward| forward.ttl = 0);
    assert!(lower(&kept, &profile("twin"), false).is_ok(), "where the vif leaves TTL alone, 1 is enough");
}

#[test]
fn larger_packets_than_the_way_takes_need_a_range() {
    let flow = Flow { mtu: 1499, ..Flow::plain() };
    assert_eq!(refusal(&flow, "twin"), None);
    for name in ["mlx5-hws", "mlx5-sws"] {
        assert_eq!(refusal(&flow, name), Some(Unsupported::Oversize), "{name}");
        assert_eq!(refusal(&Flow { mtu: 1500, ..flow.clone() }, name), None, "{name}");
    }
}

#[test]
fn the_nic_takes_no_ipv6_packet_whose_outer_packet_has_to_be_fragmented() {
    let narrow = Flow { mtu: 968, ..Flow::plain().v6().to(To::Tunnel) };
    let size = SizeLimit { mtu: 968, larger: Oversize::FragmentOuter { mtu: 1000 } };
    let direction = with(&narrow, |forward| forward.size = Some(size));
    let rule = lower(&direction, &profile("twin"), false).unwrap().rule;
    let limits: Vec<_> = rule
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Ipv6 { max_len, .. } => Some(*max_len),
            _ => None,
        })
        .collect();
    assert_eq!(limits, [Some(968 - 40)], "octets behind the header");
    assert_eq!(lower(&direction, &profile("mlx5-sws"), false), Err(Unsupported::Oversize));
    assert!(Shape::of(&direction, &profile("twin")).length);
}

#[test]
fn mlx5_forwards_every_way_with_one_tag() {
    for name in ["mlx5-hws", "mlx5-sws"] {
        for flow in [Flow::plain(), Flow::plain().tagged(3), Flow::plain().out_of_tunnel()] {
            for to in [To::Tenant, To::Tunnel, To::Drop] {
                for proto in [6, 17, 47] {
                    let both = flow.tunnel.is_some() && to == To::Tunnel;
                    assert_eq!(
                        refusal(&Flow { proto, tags_out: 1, ..flow.clone().to(to) }, name),
                        both.then_some(Unsupported::TunnelToTunnel),
                        "{name} {flow:?}"
                    );
                }
            }
        }
        let stacked = Flow { tags: vec![(0x88a8, 1), (0x8100, 2)], ..Flow::plain() };
        assert_eq!(refusal(&stacked, name), Some(Unsupported::Vlan), "{name}");
        let eligible = Flow { pcp_dei: 1, ..Flow::plain().tagged(3) };
        assert_eq!(refusal(&eligible, name), Some(Unsupported::Vlan), "{name}: such a tag could not be put back");
        let (s, d, _, label, ttl) = Flow::plain().out_of_tunnel().tunnel.unwrap();
        let old = Flow { tunnel: Some((s, d, 51234, label, ttl)), ..Flow::plain().out_of_tunnel() };
        assert_eq!(refusal(&old, name), Some(Unsupported::TunnelPort), "{name}");
        assert_eq!(refusal(&Flow { proto: 132, ..Flow::plain() }, name), Some(Unsupported::Protocol), "{name}");
    }
    assert_eq!(refusal(&Flow::plain().v6(), "mlx5-sws"), None);
    assert_eq!(refusal(&Flow::plain().v6(), "mlx5-hws"), None);
    // A tag of hardware steering is a CVLAN, whatever its type.
    let service = Flow { tags: vec![(0x88a8, 3)], ..Flow::plain() };
    assert_eq!(refusal(&service, "mlx5-hws"), Some(Unsupported::TagType));
    assert_eq!(refusal(&service, "mlx5-sws"), None);
}

/// Hardware steering: two definers where one is too small.
#[test]
fn mlx5_hws_matches_tunnels_and_ipv6_in_stages() {
    let of = |flow: &Flow| lower(&flow.direction(), &profile("mlx5-hws"), false).unwrap();
    let tables = |flow: &Flow| of(flow).rules().map(|rule| rule.table).collect::<Vec<_>>();
    assert_eq!(tables(&Flow::plain()), [Table::Tenant]);
    assert_eq!(tables(&Flow::plain().v6()), [Table::Tenant, Table::Source6]);
    assert_eq!(tables(&Flow::plain().out_of_tunnel()), [Table::Tunnel, Table::Inner]);
    assert_eq!(
        refusal(&Flow::plain().out_of_tunnel().v6(), "mlx5-hws"),
        Some(Unsupported::Family6),
        "one stage too few"
    );
    let hairpin = profile("mlx5-hws").with_layout(Layout::Hairpin);
    let chain = lower(&Flow::plain().out_of_tunnel().v6().direction(), &hairpin, false).unwrap();
    let tables_of_chain: Vec<_> = chain.rules().map(|rule| rule.table).collect();
    assert_eq!(tables_of_chain, [Table::Tunnel, Table::Inner, Table::Source6]);
    let tagged = [Table::Untagged, Table::Tenant, Table::Source6, Table::Untagged, Table::Source6];
    assert_eq!(tables(&Flow::plain().tagged(3).v6()), tagged, "what puts the tag back is there first");
    for flow in [Flow::plain(), Flow::plain().v6(), Flow::plain().out_of_tunnel()] {
        for rule in of(&flow).rules() {
            let checks = rule.items.iter().filter(|item| matches!(item, Item::Integrity { .. })).count();
            assert!(checks <= 1, "one item in a template: {rule:?}");
        }
        let chain = of(&flow);
        let checks = chain.rules().flat_map(|rule| rule.items.clone()).filter_map(|item| match item {
            Item::Integrity { level, .. } => Some(level),
            _ => None,
        });
        let each: &[u8] = if flow.tunnel.is_some() { &[0, 2] } else { &[0] };
        assert_eq!(checks.collect::<Vec<_>>(), each);
    }
}

/// Software steering checks headers of what tenants send, in the rule that steers it.
#[test]
fn strict_offload_leaves_in_software_what_the_nic_does_not_check() {
    let strict = |name| profile(name).strict(true);
    let out = Flow::plain().out_of_tunnel().direction();
    assert_eq!(lower(&out, &strict("mlx5-sws"), false), Err(Unsupported::HeaderCheck));
    assert!(lower(&out, &profile("mlx5-sws"), false).is_ok());
    assert!(lower(&Flow::plain().direction(), &strict("mlx5-sws"), false).is_ok());
    for name in ["mlx5-hws", "twin"] {
        assert!(lower(&out, &strict(name), false).is_ok(), "{name}");
    }
}

/// Without a switch, the side of receiving takes tunnels off and the side of sending puts them on.
#[test]
fn mlx5_without_a_switch_goes_every_way_by_hairpin() {
    for name in ["mlx5-hws", "mlx5-sws"] {
        let profile = profile(name).with_layout(Layout::Hairpin);
        for flow in [Flow::plain(), Flow::plain().out_of_tunnel()] {
            for (to, tags_out) in [(To::Tenant, 0), (To::Tenant, 1), (To::Tunnel, 0), (To::Tunnel, 1)] {
                let flow = Flow { tags_out, ..flow.clone().to(to) };
                let chain = lower(&flow.direction(), &profile, false).unwrap();
                assert_eq!(chain.rule.actions.last(), Some(&Action::Hairpin(vif(7))), "{name} {flow:?}");
                let sends = chain.needs.first().filter(|rule| rule.table == Table::Egress);
                let out_of_tunnel_to_tag = flow.tunnel.is_some() && to == To::Tenant;
                let finished_here = (to == To::Tenant && tags_out == 0) || out_of_tunnel_to_tag;
                assert_eq!(sends.is_none(), finished_here, "{name} {flow:?}");
                let Some(sends) = sends else { continue };
                let stage = Stage::ToSend(sends.actions.as_slice().into());
                assert!(sends.items.contains(&Item::ToSend(stage.clone())));
                assert!(chain.rule.actions.contains(&Action::SetToSend(stage)));
                assert_eq!(sends.items[0], Item::Port(vif(7)), "of the port that it leaves on");
            }
        }
    }
}

#[test]
fn bnxt_drops_and_forwards_nothing() {
    // ulp_rte_parser.c drops the mask of fragments; no class template has IHL or TCP's flags.
    let latest = NicProfile::of_version("bnxt", DpdkVersion::V24_11).unwrap();
    for flow in [Flow::plain(), Flow::plain().tcp(), Flow::plain().v6().tcp(), Flow::plain().tagged(3)] {
        assert_eq!(refusal(&flow, "bnxt"), Some(Unsupported::RewriteL2), "22.11 sets no MACs: {flow:?}");
        assert_eq!(lower(&flow.direction(), &latest, false), Err(Unsupported::Match), "{flow:?}");
    }
    assert_eq!(refusal(&Flow::plain().to(To::Tunnel), "bnxt"), Some(Unsupported::Encap));
    assert_eq!(refusal(&Flow::plain().out_of_tunnel(), "bnxt"), Some(Unsupported::Decap));
    assert_eq!(refusal(&Flow::plain().to(To::Drop), "bnxt"), None);
    // One less is all that it can do.
    let twice = with(&Flow::plain(), |forward| forward.ttl = 2);
    assert_eq!(lower(&twice, &profile("bnxt"), false), Err(Unsupported::Ttl));
}

/// Devices take more than their MTU: frames have room for tags.
#[test]
fn case_12_a_rule_has_a_length_range_where_the_nic_matches_lengths() {
    let longest = |flow: &Flow, name: &str| {
        let rule = lower(&flow.direction(), &profile(name), false).unwrap().rule;
        rule.items.iter().rev().find_map(|item| match item {
            Item::Ipv4 { max_len, .. } => Some(*max_len),
            _ => None,
        })
    };
    // Packets of 1500 octets by the MTU of the device, and what goes on takes as many.
    assert_eq!(longest(&Flow::plain(), "twin"), Some(Some(1500)));
    assert_eq!(longest(&Flow { mtu: 1508, ..Flow::plain() }, "twin"), Some(None));
    assert_eq!(longest(&Flow { mtu: 1507, ..Flow::plain() }, "twin"), Some(Some(1507)));
    // Without lengths there would be no rule at all: what only a sender beyond its link's MTU sends is accepted.
    assert_eq!(longest(&Flow::plain(), "mlx5-sws"), Some(None));
}

/// What a NIC has taken or refused of one shape holds for rules that look like it.
#[test]
fn a_shape_says_that_lengths_are_matched_where_the_rule_matches_them() {
    let (mut with, mut without) = (0, 0);
    for name in ["twin", "mlx5-hws", "mlx5-sws"] {
        for mtu in [1400, 1499, 1500, 1507, 1508, 1509] {
            for flow in [Flow::plain(), Flow::plain().v6(), Flow::plain().to(To::Tunnel)] {
                let (direction, profile) = (Flow { mtu, ..flow }.direction(), profile(name));
                let Ok(Chain { rule, .. }) = lower(&direction, &profile, false) else { continue };
                let matched = rule.items.iter().any(|item| {
                    matches!(item, Item::Ipv4 { max_len: Some(_), .. } | Item::Ipv6 { max_len: Some(_), .. })
                });
                assert_eq!(Shape::of(&direction, &profile).length, matched, "{name}, {mtu}: {rule:?}");
                *(if matched { &mut with } else { &mut without }) += 1;
            }
        }
    }
    assert!(with > 10 && without > 10, "{with} with, {without} without");
}

#[test]
fn nics_that_cannot_tell_options_or_fragments_forward_nothing() {
    for name in ["sfc", "nfp"] {
        assert_eq!(refusal(&Flow::plain(), name), Some(Unsupported::Match), "{name}");
    }
    assert_eq!(refusal(&Flow::plain().tagged(300).to(To::Drop), "sfc"), None);
    // Nor does nfp say that no second tag follows.
    assert_eq!(refusal(&Flow::plain().tagged(300).to(To::Drop), "nfp"), Some(Unsupported::Match));
    // nfp_flow.c takes has_vlan and drops it: a rule for untagged frames would hit tagged ones, too.
    assert_eq!(refusal(&Flow::plain().to(To::Drop), "sfc"), None);
    assert_eq!(refusal(&Flow::plain().to(To::Drop), "nfp"), Some(Unsupported::Match));
    assert_eq!(refusal(&Flow::plain(), "cnxk"), Some(Unsupported::PortToPort));
}

#[test]
fn intel_steers_marks_and_drops_only_where_no_other_tenant_is_hit() {
    for name in ["ice", "iavf", "ixgbe"] {
        assert_eq!(refusal(&Flow::plain(), name), Some(Unsupported::PortToPort), "{name}");
        assert_eq!(refusal(&Flow::plain().to(To::Tunnel), name), Some(Unsupported::Encap), "{name}");
        // It sees through tags: the rule would hit the same addresses in a VLAN.
        assert_eq!(refusal(&Flow::plain().to(To::Drop), name), Some(Unsupported::Match), "{name}");
        assert_eq!(refusal(&Flow::plain().tagged(300).to(To::Drop), name), Some(Unsupported::Match), "{name}");
        assert!(partial(&Flow::plain().direction(), 5, 0, &profile(name)).is_ok(), "{name}");
    }
}

#[test]
fn marks_have_a_largest_number() {
    let direction = Flow::plain().direction();
    assert!(partial(&direction, 0x7fff, 0, &profile("ixgbe")).is_ok());
    assert_eq!(partial(&direction, 0x8000, 0, &profile("ixgbe")), Err(Unsupported::Mark));
    assert_eq!(partial(&direction, 0x0100_0000, 0, &profile("twin")), Err(Unsupported::Mark));
}

#[test]
fn every_profile_has_its_name_and_every_fact_its_source() {
    for name in NicProfile::NAMES {
        let profile = profile(name);
        assert_eq!(profile.name, name);
        for fact in profile.facts() {
            assert!(!fact.source.is_empty(), "{name}: {}", fact.name);
        }
    }
    assert_eq!(NicProfile::by_name("mlx4"), None);
}
