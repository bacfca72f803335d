use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use proptest::prelude::*;

use super::Fib;
use crate::{
    Label, NexthopId, VrfId,
    forwarding::{Route, RouteFlags, RouteOrigin},
};

fn route(prefix: IpNet, label: u32) -> Arc<Route> {
    Arc::new(Route {
        vrf: VrfId::new(18).unwrap(),
        prefix: prefix.trunc(),
        nexthop: NexthopId::new(489).unwrap(),
        label: Some(Label::new(label).unwrap()),
        flags: RouteFlags::default(),
        origin: RouteOrigin::default(),
    })
}

/// The answer by RFC 1812 §5.2.4.3: of all routes that hold the address, the longest.
fn linear(routes: &BTreeMap<IpNet, Arc<Route>>, address: IpAddr) -> Option<&Arc<Route>> {
    routes.values().filter(|r| r.prefix.contains(&address)).max_by_key(|r| r.prefix.prefix_len())
}

/// Addresses that share long prefixes with each other, so that nodes split and merge.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (any::<u32>(), 0u32..=32)
        .prop_map(|(bits, keep)| 0x0a0a_0a0au32 ^ bits.checked_shr(keep).unwrap_or(0))
        .prop_map(|bits| IpAddr::V4(bits.into()));
    let v6 = (any::<u128>(), 0u32..=128)
        .prop_map(|(bits, keep)| (0x00ff_u128 << 112 | 0x13_6c00_0002) ^ bits.checked_shr(keep).unwrap_or(0))
        .prop_map(|bits| IpAddr::V6(bits.into()));
    prop_oneof![v4, v6]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), 0u8..=128, prop::bool::weighted(0.1)).prop_map(|(address, len, default)| {
        let max = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, if default { 0 } else { len % (max + 1) }).unwrap().trunc()
    })
}

#[derive(Debug, Clone)]
enum Op {
    Insert(IpNet, u32),
    /// The n-th of those that are there.
    Remove(prop::sample::Index),
    RemoveAny(IpNet),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (prefix(), 16u32..1000).prop_map(|(p, l)| Op::Insert(p, l)),
        2 => any::<prop::sample::Index>().prop_map(Op::Remove),
        1 => prefix().prop_map(Op::RemoveAny),
    ]
}

fn same(fib: &Fib, oracle: &BTreeMap<IpNet, Arc<Route>>, probes: &[IpAddr]) -> Result<(), TestCaseError> {
    prop_assert_eq!(fib.len(), oracle.len());
    prop_assert!(fib.iter().eq(oracle.values()), "iteration differs: {:?}", fib.iter().collect::<Vec<_>>());
    for address in probes {
        prop_assert_eq!(fib.lookup(*address), linear(oracle, *address), "lookup of {}", address);
    }
    for prefix in oracle.keys() {
        let (first, last) = (prefix.network(), prefix.broadcast());
        prop_assert_eq!(fib.lookup(first), linear(oracle, first));
        prop_assert_eq!(fib.lookup(last), linear(oracle, last));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn lookups_match_a_linear_scan_and_old_clones_do_not_change(
        ops in prop::collection::vec(op(), 1..60),
        probes in prop::collection::vec(address(), 20),
    ) {
        let (mut fib, mut oracle) = (Fib::default(), BTreeMap::new());
        let mut clones = Vec::new();
        for (i, op) in ops.into_iter().enumerate() {
            if i % 7 == 0 {
                clones.push((fib.clone(), oracle.clone()));
            }
            match op {
                Op::Insert(prefix, label) => {
                    let route = route(prefix, label);
                    prop_assert_eq!(fib.insert(Arc::clone(&route)), oracle.insert(prefix, route));
                }
                Op::Remove(index) if !oracle.is_empty() => {
                    let prefix = *index.get(&oracle.keys().collect::<Vec<_>>()).to_owned();
                    prop_assert_eq!(fib.remove(prefix), oracle.remove(&prefix));
                }
                Op::Remove(_) => {}
                Op::RemoveAny(prefix) => prop_assert_eq!(fib.remove(prefix), oracle.remove(&prefix)),
            }
        }
        same(&fib, &oracle, &probes)?;
        for (fib, oracle) in clones {
            same(&fib, &oracle, &probes)?;
        }
        for prefix in oracle.keys() {
            fib.remove(*prefix);
        }
        prop_assert!(fib.is_empty() && fib.iter().next().is_none());
    }
}

#[test]
fn removing_a_route_restores_the_covering_one_with_its_label() {
    let mut fib = Fib::default();
    let wide = route("192.168.0.0/16".parse().unwrap(), 279);
    fib.insert(Arc::clone(&wide));
    fib.insert(route("192.168.1.0/24".parse().unwrap(), 280));
    let host = "192.168.1.100".parse().unwrap();
    assert_eq!(fib.lookup(host).unwrap().label.unwrap().get(), 280);
    fib.remove("192.168.1.0/24".parse().unwrap());
    assert_eq!(fib.lookup(host), Some(&wide));
}

#[test]
fn the_default_route_of_one_family_does_not_answer_for_the_other() {
    let mut fib = Fib::default();
    fib.insert(route("0.0.0.0/0".parse().unwrap(), 16));
    assert!(fib.lookup("203.0.113.1".parse().unwrap()).is_some());
    assert!(fib.lookup("::".parse().unwrap()).is_none());
    fib.insert(route("::/0".parse().unwrap(), 17));
    assert_eq!(fib.lookup("ff::13:6c00:2".parse().unwrap()).unwrap().label.unwrap().get(), 17);
}

#[test]
fn host_routes_of_both_families_match_their_address_alone() {
    let mut fib = Fib::default();
    fib.insert(route("192.168.1.100/32".parse().unwrap(), 16));
    fib.insert(route("ff::13:6c00:2/128".parse().unwrap(), 17));
    assert!(fib.lookup("192.168.1.100".parse().unwrap()).is_some());
    assert!(fib.lookup("192.168.1.101".parse().unwrap()).is_none());
    assert!(fib.lookup("ff::13:6c00:2".parse().unwrap()).is_some());
    assert!(fib.lookup("ff::13:6c00:3".parse().unwrap()).is_none());
}
