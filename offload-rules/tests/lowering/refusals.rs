//! What is refused, and why.

use std::sync::Arc;

use offload_rules::{
    MacAddr,
    flow::{Op, Program},
    lower::{Direction, NicProfile, Shape, Unsupported, lower, partial},
};

use crate::flow::{Flow, To, vif};

fn profile(name: &str) -> NicProfile {
    NicProfile::by_name(name).unwrap()
}

fn refusal(flow: &Flow, name: &str) -> Option<Unsupported> {
    lower(&flow.direction(), &profile(name), false).err()
}

fn with_ops(flow: &Flow, change: impl FnOnce(&mut Vec<Op>)) -> Direction {
    let mut direction = flow.direction();
    let mut ops = direction.program.ops.clone();
    change(&mut ops);
    direction.program = Arc::new(Program { ops, ..(*direction.program).clone() });
    direction
}

#[test]
fn what_only_software_can_do_is_refused_by_every_nic() {
    let plain = Flow::plain().tcp();
    let cases: [(Direction, Unsupported); 7] = [
        (Flow { proto: 1, ..plain.clone() }.direction(), Unsupported::Icmp),
        (Flow { proto: 58, ..plain.clone().v6() }.direction(), Unsupported::Icmp),
        (Flow { proto: 44, ..plain.clone().v6() }.direction(), Unsupported::Protocol),
        (with_ops(&plain, |ops| _ = ops.splice(ops.len() - 1.., [Op::Punt(vif(4))])), Unsupported::Punt),
        (with_ops(&plain, |ops| ops.insert(2, Op::ShiftAck)), Unsupported::SequenceShift),
        (with_ops(&plain, |ops| ops.retain(|op| !matches!(op, Op::RewriteL2(_)))), Unsupported::RawIp),
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
    let direction = with_ops(&Flow::plain().out_of_tunnel(), |ops| _ = ops.remove(0));
    assert_eq!(lower(&direction, &twin, false), Err(Unsupported::Match), "a tunnel that stays on");
    let direction = with_ops(&Flow::plain(), |ops| _ = ops.pop());
    assert_eq!(lower(&direction, &twin, false), Err(Unsupported::Match), "sent nowhere");
}

#[test]
fn a_packet_with_its_last_ttl_makes_no_rule() {
    for ttl in [0, 1] {
        assert_eq!(refusal(&Flow { ttl, ..Flow::plain() }, "twin"), Some(Unsupported::Ttl));
    }
    let kept = with_ops(&Flow { ttl: 1, ..Flow::plain() }, |ops| _ = ops.remove(0));
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
fn mlx5_forwards_every_way_with_one_tag() {
    for name in ["mlx5-hws", "mlx5-sws"] {
        for flow in [Flow::plain(), Flow::plain().tagged(3), Flow::plain().out_of_tunnel()] {
            for to in [To::Tenant, To::Tunnel, To::Drop] {
                for proto in [6, 17, 47] {
                    assert_eq!(
                        refusal(&Flow { proto, tags_out: 1, ..flow.clone().to(to) }, name),
                        None,
                        "{name} {flow:?}"
                    );
                }
            }
        }
        let stacked = Flow { tags: vec![(0x88a8, 1), (0x8100, 2)], ..Flow::plain() };
        assert_eq!(refusal(&stacked, name), Some(Unsupported::Vlan), "{name}");
        assert_eq!(refusal(&Flow { proto: 132, ..Flow::plain() }, name), Some(Unsupported::Protocol), "{name}");
    }
    assert_eq!(refusal(&Flow::plain().v6(), "mlx5-sws"), None);
    assert_eq!(refusal(&Flow::plain().v6(), "mlx5-hws"), Some(Unsupported::Family6));
    assert_eq!(refusal(&Flow { proto: 47, ..Flow::plain().v6() }, "mlx5-hws"), None, "no ports, no five fields");
}

#[test]
fn bnxt_forwards_between_tenants_and_knows_no_tunnels() {
    assert_eq!(refusal(&Flow::plain().tcp(), "bnxt"), None);
    assert_eq!(refusal(&Flow::plain().v6(), "bnxt"), None);
    assert_eq!(refusal(&Flow::plain().to(To::Tunnel), "bnxt"), Some(Unsupported::Encap));
    assert_eq!(refusal(&Flow::plain().out_of_tunnel(), "bnxt"), Some(Unsupported::Decap));
    assert_eq!(refusal(&Flow::plain().to(To::Drop), "bnxt"), None);
    // One less is all that it can do.
    let twice = with_ops(&Flow::plain(), |ops| ops[0] = Op::DecrementTtl(2));
    assert_eq!(lower(&twice, &profile("bnxt"), false), Err(Unsupported::Ttl));
    // A tag that is kept needs its priority matched.
    let kept = Flow { tags_out: 1, ..Flow::plain().tagged(3) };
    assert_eq!(refusal(&kept, "bnxt"), Some(Unsupported::Match));
}

#[test]
fn nics_that_cannot_tell_options_or_fragments_forward_nothing() {
    for name in ["sfc", "nfp"] {
        assert_eq!(refusal(&Flow::plain(), name), Some(Unsupported::Match), "{name}");
        assert_eq!(refusal(&Flow::plain().to(To::Drop), name), None, "{name} drops");
    }
    assert_eq!(refusal(&Flow::plain(), "cnxk"), Some(Unsupported::Ttl));
}

#[test]
fn intel_steers_and_marks_and_drops_only_where_it_cannot_hit_another_tenant() {
    for name in ["ice", "ixgbe"] {
        assert_eq!(refusal(&Flow::plain(), name), Some(Unsupported::PortToPort), "{name}");
        assert_eq!(refusal(&Flow::plain().to(To::Tunnel), name), Some(Unsupported::Encap), "{name}");
        // It sees through tags: the rule would hit the same addresses in a VLAN.
        assert_eq!(refusal(&Flow::plain().to(To::Drop), name), Some(Unsupported::Match), "{name}");
        assert!(partial(&Flow::plain().direction(), 5, 0, &profile(name)).is_ok(), "{name}");
    }
    assert_eq!(refusal(&Flow::plain().tagged(300).to(To::Drop), "ixgbe"), None);
}

#[test]
fn marks_have_a_largest_number() {
    let direction = Flow::plain().direction();
    assert!(partial(&direction, 0x7fff, 0, &profile("ixgbe")).is_ok());
    assert_eq!(partial(&direction, 0x8000, 0, &profile("ixgbe")), Err(Unsupported::Mark));
    assert_eq!(partial(&direction, 0x0100_0000, 0, &profile("twin")), Err(Unsupported::Mark));
}

#[test]
fn a_shape_whose_canary_was_refused_is_not_tried_and_others_are() {
    let mut twin = profile("twin");
    let flow = Flow::plain().tagged(3);
    twin.narrow(Shape::of(&flow.direction()), true);
    assert_eq!(lower(&flow.direction(), &twin, false), Err(Unsupported::Probe));
    assert!(lower(&flow.clone().tcp().direction(), &twin, false).is_ok());
    assert!(partial(&flow.direction(), 1, 0, &twin).is_ok());
    twin.narrow(Shape::of_partial(&flow.direction()), true);
    assert_eq!(partial(&flow.direction(), 1, 0, &twin), Err(Unsupported::Probe));
    twin.narrow(Shape::of(&flow.direction()), false);
    assert!(lower(&flow.direction(), &twin, false).is_ok());
}

#[test]
fn every_profile_has_its_name_and_every_fact_its_source() {
    for name in NicProfile::NAMES {
        let profile = profile(name);
        assert_eq!(profile.name, name);
        for (fact, _, source) in profile.facts() {
            assert!(!source.is_empty(), "{name}: {fact}");
        }
    }
    assert_eq!(NicProfile::by_name("mlx4"), None);
}
