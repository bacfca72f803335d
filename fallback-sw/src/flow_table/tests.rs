use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use offload_rules::{VifId, VrfId, flow::FlowKey};
use proptest::prelude::*;

use super::{Binding, Class, FlowTable, Holdings, InsertError, NONE, SetVifError, Times};

fn vif(number: u32) -> VifId {
    VifId::new(number).unwrap()
}

fn key(number: u32, on: u32) -> FlowKey {
    let src = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | number >> 8));
    let dst = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    FlowKey::new(VrfId::new(7).unwrap(), vif(on), src, dst, 6, 1024 + (number & 0xff) as u16, 443)
}

fn pair(number: u32) -> (FlowKey, FlowKey) {
    let forward = key(number, 1);
    (forward, forward.reversed(forward.vrf, vif(2)))
}

fn find(table: &FlowTable, key: &FlowKey) -> Option<u32> {
    table.find(table.hash(key), key)
}

#[test]
fn a_pair_is_found_by_both_keys_and_each_points_to_the_other() {
    let mut table = FlowTable::new(100).unwrap();
    let (forward, reverse) = pair(1);
    let (one, two) = table.insert_pair(forward, reverse).unwrap();
    assert_eq!((find(&table, &forward), find(&table, &reverse)), (Some(one), Some(two)));
    assert_eq!(table.record(one).unwrap().reverse, two);
    assert_eq!(table.record(two).unwrap().reverse, one);
    assert_eq!(table.record(one).unwrap().ecmp, [0xff; 2]);
    assert_eq!(table.find_candidate(table.hash(&forward)), Some(one));
    assert_eq!(table.len(), 2);
    assert_eq!(table.remove_pair(two), 2);
    assert_eq!((find(&table, &forward), find(&table, &reverse), table.len()), (None, None, 0));
    assert_eq!(table.remove_pair(two), 0);
}

#[test]
fn a_pair_costs_at_most_256_octets_with_index_and_lists() {
    const PAIRS: u32 = 100_000;
    let mut table = FlowTable::with_seed(2 * PAIRS, 7).unwrap();
    let mut holdings = Holdings::new(2 * PAIRS).unwrap();
    let holder = holdings.holder(1);
    for number in 0..PAIRS {
        let forward = FlowKey { dport: (number >> 16) as u16, ..key(number, 1) };
        let (slot, _) = table.insert_pair(forward, forward.reversed(forward.vrf, vif(2))).unwrap();
        holdings.file(slot, holder, Class::Unanswered, 0);
    }
    let octets = table.memory_bytes() + holdings.memory_bytes(table.len());
    assert!(octets <= 256 * PAIRS as usize, "{octets} octets");
}

#[test]
fn what_a_slot_bound_is_gone_with_its_flow() {
    let mut table = FlowTable::new(4).unwrap();
    let (forward, reverse) = pair(1);
    let (one, two) = table.insert_pair(forward, reverse).unwrap();
    let bound = Binding { sequence_shift: 5, offload: 6, leases: 7 };
    *table.binding_mut(two).unwrap() = bound;
    table.set_created(one, 8);
    table.set_changed(one, 9);
    assert_eq!(table.times(one), Times { created: 8, changed: 9 });
    table.set_created(two, 8);
    assert_eq!(table.times(two), Times { created: 8, changed: 8 });
    assert_eq!((table.binding(one), table.binding(two)), (Binding::default(), bound));
    table.remove_pair(one);
    let (one, two) = table.insert_pair(forward, reverse).unwrap();
    for slot in [one, two] {
        assert_eq!((table.binding(slot), table.times(slot)), (Binding::default(), Times::default()));
    }
}

#[test]
fn a_flow_with_itself_is_one_record_that_is_its_own_other_direction() {
    let mut table = FlowTable::new(4).unwrap();
    let (forward, _) = pair(1);
    let (one, two) = table.insert_pair(forward, forward).unwrap();
    assert_eq!((one, table.len(), table.record(one).unwrap().reverse), (two, 1, one));
    assert_eq!(table.remove_pair(one), 1);
    assert!(table.is_empty());
}

#[test]
fn a_key_that_exists_is_named_and_nothing_is_added() {
    let mut table = FlowTable::new(100).unwrap();
    let (forward, reverse) = pair(1);
    let (one, two) = table.insert_pair(forward, reverse).unwrap();
    assert_eq!(table.insert_pair(forward, key(9, 3)), Err(InsertError::Exists(one)));
    assert_eq!(table.insert_pair(key(9, 3), reverse), Err(InsertError::Exists(two)));
    assert_eq!(table.insert_one(reverse), Err(InsertError::Exists(two)));
    assert_eq!((table.len(), find(&table, &key(9, 3))), (2, None));
}

#[test]
fn the_last_free_slot_is_not_taken_by_half_a_pair() {
    let mut table = FlowTable::new(3).unwrap();
    let (forward, reverse) = pair(1);
    table.insert_pair(forward, reverse).unwrap();
    let (forward, reverse) = pair(2);
    assert_eq!(table.insert_pair(forward, reverse), Err(InsertError::Full));
    assert_eq!((table.len(), find(&table, &forward)), (2, None));
    assert!(table.insert_one(forward).is_ok());
    assert_eq!(table.insert_one(reverse), Err(InsertError::Full));
}

#[test]
fn a_freed_slot_is_reused_first_with_the_next_generation() {
    let mut table = FlowTable::new(100).unwrap();
    let slots: Vec<u32> = (0..10).map(|n| table.insert_one(key(n, 1)).unwrap()).collect();
    let before = table.generation(slots[4]);
    table.remove_pair(slots[2]);
    table.remove_pair(slots[4]);
    assert_eq!(table.insert_one(key(20, 1)), Ok(slots[4]));
    assert_eq!(table.insert_one(key(21, 1)), Ok(slots[2]));
    assert_eq!(table.insert_one(key(22, 1)), Ok(10));
    assert_eq!(table.generation(slots[4]), before.wrapping_add(1));
    for _ in 0..256 {
        table.remove_pair(slots[4]);
        table.insert_one(key(20, 1)).unwrap();
    }
    assert_eq!(table.generation(slots[4]), before.wrapping_add(1));
}

#[test]
fn the_same_tuple_on_another_vif_is_a_sibling_and_can_move() {
    let mut table = FlowTable::new(100).unwrap();
    let slot = table.insert_one(key(1, 1)).unwrap();
    let moved = key(1, 2);
    assert_eq!(find(&table, &moved), None);
    assert_eq!(table.find_sibling(table.hash(&moved), &moved), Some(slot));
    assert_eq!(table.find_sibling(table.hash(&key(1, 1)), &key(1, 1)), None);
    assert_eq!(table.set_vif(slot, moved.vif), Ok(()));
    assert_eq!((find(&table, &moved), find(&table, &key(1, 1))), (Some(slot), None));
    let other = table.insert_one(key(1, 1)).unwrap();
    assert_eq!(table.set_vif(slot, key(1, 1).vif), Err(SetVifError::Exists(other)));
    assert_eq!(table.set_vif(50, moved.vif), Err(SetVifError::Vacant(50)));
}

#[test]
fn one_tuple_on_ever_more_vifs_fills_two_buckets_and_hurts_nobody_else() {
    let mut table = FlowTable::with_seed(10_000, 1).unwrap();
    let others: Vec<FlowKey> = (100..3000).map(|n| key(n, 1)).collect();
    for other in &others {
        table.insert_one(*other).unwrap();
    }
    let taken = (1..60).take_while(|on| table.insert_one(key(1, *on)).is_ok()).count() as u32;
    assert_eq!(taken, 20);
    assert_eq!(table.insert_one(key(1, 60)), Err(InsertError::Full));
    assert!((1..=taken).all(|on| find(&table, &key(1, on)).is_some()));
    assert!(others.iter().all(|other| find(&table, other).is_some()));
    assert!((3000..6000).all(|n| table.insert_one(key(n, 1)).is_ok()));
}

#[test]
fn every_record_of_the_limit_can_be_used_and_is_found() {
    for capacity in [1u32, 2, 9, 100, 143, 1000, 50_000] {
        let mut table = FlowTable::with_seed(capacity, u64::from(capacity)).unwrap();
        for n in 0..capacity {
            assert_eq!(table.insert_one(key(n, 1)), Ok(n), "capacity {capacity}");
        }
        assert_eq!(table.insert_one(key(capacity, 1)), Err(InsertError::Full));
        assert!((0..capacity).all(|n| find(&table, &key(n, 1)) == Some(n)));
    }
}

#[test]
fn churn_at_the_limit_keeps_every_established_flow() {
    let mut table = FlowTable::with_seed(20_000, 3).unwrap();
    let mut slots: Vec<u32> = (0..20_000).map(|n| table.insert_one(key(n, 1)).unwrap()).collect();
    let mut step = 12_345u32;
    for n in 20_000..120_000 {
        step = step.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let at = (step >> 8) as usize % slots.len();
        assert_eq!(table.remove_pair(slots[at]), 1);
        slots[at] = table.insert_one(key(n, 1)).unwrap();
    }
    for slot in slots {
        let key = table.record(slot).unwrap().key;
        assert_eq!(find(&table, &key), Some(slot));
    }
}

#[test]
fn the_cursor_sees_every_flow_once() {
    let mut table = FlowTable::new(1000).unwrap();
    for n in 0..700 {
        table.insert_one(key(n, 1)).unwrap();
    }
    for slot in (0..700).filter(|slot| slot % 3 != 0 && *slot > 5) {
        table.remove_pair(slot);
    }
    let mut seen = Vec::new();
    let mut from = 0;
    while let Some(slot) = table.next_occupied(from) {
        seen.push(slot);
        from = slot + 1;
    }
    assert_eq!(seen, (0..700).filter(|slot| slot % 3 == 0 || *slot <= 5).collect::<Vec<_>>());
    assert_eq!(table.next_occupied(u32::MAX), None);
}

#[test]
fn a_limit_of_ten_million_pairs_costs_nothing_until_used() {
    let table = FlowTable::new(20_000_000).unwrap();
    assert_eq!(table.memory_bytes(), 0);
    assert!(FlowTable::new(0).is_err());
    assert!(FlowTable::new(u32::MAX).is_err());
}

#[test]
fn tables_with_the_same_seed_hash_alike_and_others_do_not() {
    let hash = |seed| FlowTable::with_seed(1, seed).unwrap().hash(&key(1, 1));
    assert_eq!(hash(5), hash(5));
    assert_ne!(hash(5), hash(6));
    let random = || FlowTable::new(1).unwrap().hash(&key(1, 1));
    assert_ne!(random(), random());
}

#[test]
fn every_bit_of_a_key_but_the_vif_changes_about_half_of_the_hash() {
    let table = FlowTable::with_seed(1, 9).unwrap();
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let base = FlowKey::new(VrfId::new(7).unwrap(), vif(1), v6, v6, 6, 1000, 2000);
    let mut variants = Vec::new();
    for bit in 0..128 {
        let mask = 1u128 << bit;
        variants.push(FlowKey { src: (u128::from_be_bytes(base.src) ^ mask).to_be_bytes(), ..base });
        variants.push(FlowKey { dst: (u128::from_be_bytes(base.dst) ^ mask).to_be_bytes(), ..base });
    }
    for bit in 0..16 {
        variants.push(FlowKey { sport: base.sport ^ 1 << bit, ..base });
        variants.push(FlowKey { dport: base.dport ^ 1 << bit, ..base });
        variants.push(FlowKey { vrf: VrfId::new(7 ^ 1 << bit).unwrap(), ..base });
    }
    for bit in 0..8 {
        variants.push(FlowKey { proto: base.proto ^ 1 << bit, ..base });
    }
    for variant in variants {
        let flipped = (table.hash(&base) ^ table.hash(&variant)).count_ones();
        assert!((10..=54).contains(&flipped), "{flipped} bits: {variant:?}");
    }
    assert_eq!(table.hash(&base), table.hash(&FlowKey { vif: vif(9), ..base }));
}

#[test]
fn a_batch_of_any_length_says_the_same_as_single_lookups() {
    let mut table = FlowTable::with_seed(2000, 4).unwrap();
    for n in 0..2000 {
        table.insert_one(key(n, 1)).unwrap();
    }
    for len in [0, 1, 63, 64, 65, 300] {
        let keys: Vec<FlowKey> = (0..len).map(|n| key(n * 13, 1 + n % 2)).collect();
        let hashes: Vec<u64> = keys.iter().map(|key| table.hash(key)).collect();
        let mut out = vec![7; keys.len() + 2];
        table.lookup_batch(&keys, &hashes, &mut out);
        for (key, out) in keys.iter().zip(&out) {
            assert_eq!(find(&table, key).unwrap_or(NONE), *out);
        }
        assert_eq!(out[keys.len()..], [NONE; 2]);
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Pair(u32),
    One(u32, u32),
    Remove(u32),
    SetVif(u32, u32),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    // Few keys and few vifs: most operations meet something.
    let number = 0..120u32;
    let on = 1..4u32;
    let act = prop_oneof![
        4 => number.clone().prop_map(Act::Pair),
        4 => (number, on.clone()).prop_map(|(number, on)| Act::One(number, on)),
        2 => (0..110u32).prop_map(Act::Remove),
        2 => (0..110u32, on).prop_map(|(slot, on)| Act::SetVif(slot, on)),
    ];
    prop::collection::vec(act, 0..600)
}

proptest! {
    /// The oracle is a map from key to slot, and one from slot to key and partner.
    #[test]
    fn the_table_behaves_like_a_map(acts in acts(), seed in any::<u64>(), capacity in 1..100u32) {
        let mut table = FlowTable::with_seed(capacity, seed).unwrap();
        let mut keys: HashMap<FlowKey, u32> = HashMap::new();
        let mut slots: HashMap<u32, (FlowKey, u32)> = HashMap::new();
        for act in acts {
            match act {
                Act::Pair(number) => {
                    let (forward, reverse) = pair(number);
                    let expected = [forward, reverse].iter().find_map(|key| keys.get(key).copied());
                    match table.insert_pair(forward, reverse) {
                        Ok((one, two)) => {
                            prop_assert_eq!(expected, None);
                            prop_assert!(slots.insert(one, (forward, two)).is_none());
                            prop_assert!(slots.insert(two, (reverse, one)).is_none());
                            keys.extend([(forward, one), (reverse, two)]);
                        }
                        Err(InsertError::Exists(slot)) => prop_assert_eq!(expected, Some(slot)),
                        Err(InsertError::Full) => {
                            prop_assert!(expected.is_none() && slots.len() + 2 > capacity as usize);
                        }
                    }
                }
                Act::One(number, on) => {
                    let key = key(number, on);
                    match table.insert_one(key) {
                        Ok(slot) => {
                            prop_assert!(keys.insert(key, slot).is_none());
                            prop_assert!(slots.insert(slot, (key, NONE)).is_none());
                        }
                        Err(InsertError::Exists(slot)) => prop_assert_eq!(keys.get(&key), Some(&slot)),
                        Err(InsertError::Full) => {
                            prop_assert!(!keys.contains_key(&key) && slots.len() == capacity as usize);
                        }
                    }
                }
                Act::Remove(slot) => {
                    let mut removed = 0;
                    if let Some((key, partner)) = slots.remove(&slot) {
                        keys.remove(&key);
                        removed = 1;
                        if let Some((key, _)) = slots.remove(&partner) {
                            keys.remove(&key);
                            removed = 2;
                        }
                    }
                    prop_assert_eq!(table.remove_pair(slot), removed);
                }
                Act::SetVif(slot, on) => {
                    let result = table.set_vif(slot, vif(on));
                    if let Some((old, _)) = slots.get(&slot).copied() {
                        let new = FlowKey { vif: vif(on), ..old };
                        match keys.get(&new) {
                            Some(other) if *other != slot => {
                                prop_assert_eq!(result, Err(SetVifError::Exists(*other)));
                            }
                            _ => {
                                prop_assert_eq!(result, Ok(()));
                                keys.remove(&old);
                                keys.insert(new, slot);
                                if let Some(entry) = slots.get_mut(&slot) {
                                    entry.0 = new;
                                }
                            }
                        }
                    } else {
                        prop_assert_eq!(result, Err(SetVifError::Vacant(slot)));
                    }
                }
            }
            prop_assert_eq!(table.len() as usize, slots.len());
        }
        for slot in 0..capacity {
            let record = table.record(slot).map(|record| (record.key, record.reverse));
            prop_assert_eq!(record, slots.get(&slot).copied());
        }
        for number in 0..120 {
            for key in (1..4).map(|on| key(number, on)).chain([pair(number).1]) {
                prop_assert_eq!(find(&table, &key), keys.get(&key).copied());
                let sibling = table.find_sibling(table.hash(&key), &key);
                let expected: Vec<u32> = keys
                    .iter()
                    .filter(|(k, _)| k.vif != key.vif && FlowKey { vif: key.vif, ..**k } == key)
                    .map(|(_, slot)| *slot)
                    .collect();
                prop_assert!(sibling.map_or(expected.is_empty(), |slot| expected.contains(&slot)));
            }
        }
    }
}
