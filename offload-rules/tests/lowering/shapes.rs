//! Shapes, canaries, templates and the order of actions.

use std::collections::{BTreeSet, HashMap};

use offload_rules::lower::{Action, Item, L4, NicProfile, Outcome, Rule, Shape, canary, lower};
use proptest::prelude::*;

use crate::flow::{Flow, any_flow, vif};

/// The fixed order of mlx5's hardware steering.
fn rank(action: &Action) -> u8 {
    match action {
        Action::Mark(_) => 0,
        Action::RawDecap(_) => 1,
        Action::PopVlan => 2,
        Action::Count => 3,
        Action::Age(_) => 4,
        Action::PushVlan { .. } => 5,
        Action::SetVlan { .. } => 6,
        Action::SetMacs { .. } => 7,
        Action::SetTtl { .. } => 8,
        Action::SetMeta(_) => 9,
        Action::RawEncap(_) => 10,
        Action::Security(_) => 11,
        Action::Jump(_) | Action::Drop | Action::Queue(_) | Action::Rss | Action::Port(_) => 12,
    }
}

fn is_in_order(rule: &Rule) -> bool {
    let ranks: Vec<u8> = rule.actions.iter().map(rank).collect();
    ranks.is_sorted() && ranks.last() == Some(&12) && ranks.iter().filter(|rank| **rank == 12).count() == 1
}

#[test]
fn the_twin_takes_a_canary_of_every_shape_and_each_is_of_that_shape() {
    let twin = NicProfile::by_name("twin").unwrap();
    let shapes: BTreeSet<Shape> = Shape::all().collect();
    assert_eq!(shapes.len(), Shape::all().count(), "each once");
    assert_eq!(shapes.len(), 2 * 2 * 4 * 3 * (2 * 3 * 2 + 2));
    let mut templates = HashMap::new();
    for shape in &shapes {
        let rule = canary(shape, &twin, [vif(1), vif(2)]).unwrap();
        assert!(is_in_order(&rule), "{rule:?}");
        if let Some(other) = templates.insert(rule.template(), shape) {
            panic!("{shape:?} and {other:?} have one template");
        }
    }
}

#[test]
fn canaries_of_other_nics_are_those_that_they_could_take() {
    let count = |name: &str, outcome: Outcome| {
        let profile = NicProfile::by_name(name).unwrap();
        let of = Shape::all().filter(|shape| shape.to == outcome && shape.l4 != L4::Sctp);
        of.filter(|shape| canary(shape, &profile, [vif(1), vif(2)]).is_ok()).count()
    };
    // mlx5: one tag is matched; between tenants one is written, behind a tunnel the headers are a buffer. Hardware steering
    // has two thirds of the families and transports: four of six, since IPv6 goes without ports.
    for (name, tenant, tunnel, drop, mark) in
        [("mlx5-hws", 40, 48, 16, 16), ("mlx5-sws", 60, 72, 24, 24), ("ice", 0, 0, 0, 18), ("sfc", 0, 0, 18, 18)]
    {
        let got = [Outcome::Tenant, Outcome::Tunnel, Outcome::Drop, Outcome::Mark].map(|outcome| count(name, outcome));
        assert_eq!(got, [tenant, tunnel, drop, mark], "{name}");
    }
}

#[test]
fn an_age_is_put_in_its_place() {
    let rule = lower(&Flow::plain().direction(), &NicProfile::by_name("twin").unwrap(), false).unwrap();
    let rule = rule.with_age(30);
    assert_eq!(rule.actions[..2], [Action::Count, Action::Age(30)]);
    assert!(is_in_order(&rule));
}

proptest! {
    #[test]
    fn actions_are_in_the_one_order_and_items_in_that_of_the_wire(flow in any_flow(), alternate in any::<bool>()) {
        let rule = lower(&flow.direction(), &NicProfile::by_name("twin").unwrap(), alternate).unwrap();
        prop_assert!(is_in_order(&rule), "{:?}", rule);
        prop_assert_eq!(rule.priority, if alternate { 3 } else { 2 });
        let rank = |item: &Item| match item {
            Item::Port(_) => 0,
            Item::Meta(_) => 1,
            Item::Integrity { .. } => 2,
            Item::Eth { .. } => 3,
            Item::Vlan { .. } => 4,
            _ => 5,
        };
        prop_assert!(rule.items.iter().map(rank).is_sorted());
    }

    #[test]
    fn flows_that_differ_in_values_alone_share_a_template(flow in any_flow()) {
        let twin = NicProfile::by_name("twin").unwrap();
        let mut other = flow.clone();
        other.port += 1;
        other.eth_dst[5] ^= 1;
        (other.sport, other.dport, other.tos, other.ttl) = (1, 2, !flow.tos, flow.ttl % 254 + 2);
        other.tunnel = flow.tunnel.map(|(s, d, port, label, ttl)| (d, s, port, label ^ 0x8_0000, ttl % 255 + 1));
        let rule = |flow: &Flow| lower(&flow.direction(), &twin, false).unwrap();
        prop_assert_eq!(rule(&flow).template(), rule(&other).template());
    }
}
