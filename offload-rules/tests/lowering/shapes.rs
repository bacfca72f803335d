//! Shapes, canaries, templates and the order of actions.

use std::collections::{BTreeSet, HashMap};

use offload_rules::lower::{Action, DpdkVersion, Item, L4, NicProfile, Order, Outcome, Rule, Shape, canary, lower};
use proptest::prelude::*;

use crate::{
    flow::{Flow, any_flow, vif},
    template::Template,
};

/// Drivers' orders: what comes off a tunnel first and what goes into one last, tags before fields or behind them.
fn rank(action: &Action, order: Order, at: usize) -> u8 {
    let tags_last = order == Order::TagsLast;
    match action {
        Action::Mark(_) | Action::PopVlan => 0,
        Action::Reformat { .. } if at == 0 => 0,
        Action::Count => 1,
        Action::SetVlan { .. } => 3,
        Action::PushVlan { .. } => 3 + 4 * u8::from(tags_last),
        Action::SetMacs { .. } => 4,
        Action::SetTtl { .. } | Action::DecTtl => 5,
        Action::SetMeta(_) | Action::SetTag(_) | Action::SetToSend(_) => 6,
        Action::Reformat { .. } => 8,
        Action::Security(_) => 9,
        Action::Jump(_) | Action::Drop | Action::Queue(_) | Action::Rss | Action::Port(_) | Action::Hairpin(_) => 10,
    }
}

fn is_in_order(rule: &Rule, order: Order) -> bool {
    let ranks: Vec<u8> = rule.actions.iter().enumerate().map(|(at, action)| rank(action, order, at)).collect();
    ranks.is_sorted() && ranks.last() == Some(&10) && ranks.iter().filter(|rank| **rank == 10).count() == 1
}

#[test]
fn the_twin_takes_a_canary_of_every_shape_and_each_is_of_that_shape() {
    let twin = NicProfile::by_name("twin").unwrap();
    let shapes: BTreeSet<Shape> = Shape::all().collect();
    assert_eq!(shapes.len(), Shape::all().count(), "each once");
    assert_eq!(shapes.len(), 2 * 2 * 4 * 3 * (2 * 3 * 2 + 2));
    let mut templates = HashMap::new();
    for shape in &shapes {
        let rule = canary(shape, &twin, [vif(1), vif(2)]).unwrap().rule;
        assert!(is_in_order(&rule, Order::TagsFirst), "{rule:?}");
        if let Some(other) = templates.insert(Template::of(&rule), shape) {
            panic!("{shape:?} and {other:?} have one template");
        }
    }
}

#[test]
fn canaries_of_other_nics_are_those_that_they_could_take() {
    let count = |name: &str, outcome: Outcome| {
        let version = if name == "mlx5-hws" { DpdkVersion::V24_11 } else { DpdkVersion::V22_11 };
        let profile = NicProfile::of_version(name, version).unwrap();
        let of = Shape::all().filter(|shape| shape.to == outcome && shape.l4 != L4::Sctp);
        of.filter(|shape| canary(shape, &profile, [vif(1), vif(2)]).is_ok()).count()
    };
    // mlx5: one tag is matched and one written; no way from tunnel to tunnel; hardware steering has IPv6 in two rules, which out of a tunnel are one too few.
    for (name, tenant, tunnel, drop, mark) in
        [("mlx5-hws", 36, 36, 18, 12), ("mlx5-sws", 48, 36, 24, 24), ("ice", 0, 0, 0, 18), ("sfc", 0, 0, 18, 0)]
    {
        let got = [Outcome::Tenant, Outcome::Tunnel, Outcome::Drop, Outcome::Mark].map(|outcome| count(name, outcome));
        assert_eq!(got, [tenant, tunnel, drop, mark], "{name}");
    }
}

proptest! {
    #[test]
    fn actions_are_in_the_one_order_and_items_in_that_of_the_wire(flow in any_flow(), alternate in any::<bool>()) {
        let rule = lower(&flow.direction(), &NicProfile::by_name("twin").unwrap(), alternate).unwrap().rule;
        prop_assert!(is_in_order(&rule, Order::TagsFirst), "{:?}", rule);
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
        let rule = |flow: &Flow| lower(&flow.direction(), &twin, false).unwrap().rule;
        prop_assert_eq!(Template::of(&rule(&flow)), Template::of(&rule(&other)));
    }
}
