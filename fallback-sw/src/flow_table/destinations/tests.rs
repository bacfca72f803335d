use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use offload_rules::{VifId, VrfId, flow::FlowKey};
use proptest::prelude::*;

use super::groups::SPLIT;
use crate::flow_table::{FlowTable, TooMany};

fn vrf(number: u32) -> VrfId {
    VrfId::new(number).unwrap()
}

/// A key of its own for each number.
fn key(number: u32, of: u32, destination: IpAddr) -> FlowKey {
    let source: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::from(0x0a00_0000 | number).into(),
        IpAddr::V6(_) => Ipv6Addr::from(u128::from(number)).into(),
    };
    FlowKey::new(vrf(of), VifId::new(1).unwrap(), source, destination, 17, 1, 2)
}

/// Few addresses, so that groups are split and prefixes meet their ends.
fn destination() -> impl Strategy<Value = IpAddr> {
    let inet = |bits: u32| IpAddr::V4((0xc0a8_0000 | bits).into());
    let inet6 = |bits: u128| IpAddr::V6((0x2001_0db8 << 96 | bits).into());
    prop_oneof![
        6 => (0u32..4).prop_map(move |low| inet(0x100 + low * 85)),
        2 => (0u32..0x400).prop_map(inet),
        2 => (0u128..3).prop_map(move |low| inet6(1 << 64 | low)),
        1 => (0u128..4).prop_map(move |net| inet6(net << 64 | 7)),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (destination(), 14u8..=32, 46u8..=128).prop_map(|(address, len, len6)| match address {
        IpAddr::V4(v4) => Ipv4Net::new(v4, len).unwrap().trunc().into(),
        IpAddr::V6(v6) => Ipv6Net::new(v6, len6).unwrap().trunc().into(),
    })
}

fn covered(table: &FlowTable, of: u32, prefix: IpNet, skip: impl Fn(IpNet) -> bool) -> Vec<u32> {
    let mut found = Vec::new();
    table.covered(vrf(of), prefix, skip, &mut usize::MAX.clone(), &mut found).unwrap();
    found.sort_unstable();
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The model: a scan of all records.
    #[test]
    fn what_a_prefix_covers_is_what_a_scan_finds(
        steps in prop::collection::vec((0u32..1500, 1u32..3, destination(), prop::bool::weighted(0.8)), 1..1500),
        asked in prop::collection::vec(prefix(), 20),
    ) {
        let mut table = FlowTable::with_seed(2000, 7).unwrap();
        let mut model: BTreeMap<u32, (u32, FlowKey)> = BTreeMap::new();
        for (number, of, destination, comes) in steps {
            match model.remove(&number) {
                Some((slot, _)) => _ = table.remove_pair(slot),
                None if comes => {
                    let key = key(number, of, destination);
                    model.insert(number, (table.insert_one(key).unwrap(), key));
                }
                None => {}
            }
        }
        for (of, prefix) in asked.into_iter().flat_map(|prefix| [(1, prefix), (2, prefix)]) {
            let scan = |keep: &dyn Fn(IpAddr) -> bool| {
                let inside = model.values().filter(|(_, key)| {
                    key.vrf == vrf(of) && prefix.contains(&key.destination()) && keep(key.destination())
                });
                let mut slots: Vec<u32> = inside.map(|(slot, _)| *slot).collect();
                slots.sort_unstable();
                slots
            };
            let all = scan(&|_| true);
            prop_assert_eq!(covered(&table, of, prefix, |_| false), all.clone());
            // What is left out is left out with all that it was split into.
            let out: IpNet = "192.168.1.0/24".parse().unwrap();
            let rest = scan(&|address| !out.contains(&address));
            prop_assert_eq!(covered(&table, of, prefix, |group| out.contains(&group)), rest);
            let (mut most, mut some) = (all.len() / 2, Vec::new());
            let result = table.covered(vrf(of), prefix, |_| false, &mut most, &mut some);
            prop_assert!(result.is_ok() && all.is_empty() || result == Err(TooMany) && some.len() <= all.len() / 2);
        }
        for (slot, _) in model.values() {
            table.remove_pair(*slot);
        }
        prop_assert!(covered(&table, 1, "0.0.0.0/0".parse().unwrap(), |_| false).is_empty());
        prop_assert_eq!((table.destinations.inet.len(), table.destinations.inet6.len()), (0, 0), "no group is left");
    }
}

#[test]
fn a_longer_prefix_looks_only_at_its_own_records_once_split() {
    let mut table = FlowTable::with_seed(1000, 7).unwrap();
    let near = "192.168.1.1".parse().unwrap();
    let far = "192.168.1.200".parse().unwrap();
    for number in 0..2 * SPLIT {
        table.insert_one(key(number, 1, if number == 7 { near } else { far })).unwrap();
    }
    let (mut most, mut found) = (4, Vec::new());
    table.covered(vrf(1), "192.168.1.0/28".parse().unwrap(), |_| false, &mut most, &mut found).unwrap();
    assert_eq!(found.len(), 1);
}
