use std::collections::HashMap;

use offload_rules::{VifId, VrfId};
use proptest::prelude::*;

use super::*;

fn tenant(n: u32) -> Tenant {
    Tenant::Vif(VifId::new(n).unwrap())
}

fn node(program: ProgramId, tenant: Tenant) -> NewNode {
    NewNode { next: Next::End, program, tenant }
}

fn find(cache: &Cache, key: Key) -> Option<ProgramId> {
    let place = cache.entry(&key)?.place;
    let node = cache.node(place).unwrap();
    let expected = if node.next == Next::End { Hit::Leaf(node.program) } else { Hit::Inner(place) };
    assert_eq!(cache.find(&key), Some(expected));
    Some(node.program)
}

#[test]
fn a_scan_of_one_tenant_takes_only_its_own_places() {
    let (mut cache, mut lost) = (Cache::default(), Vec::new());
    for n in 0..100 {
        cache.insert(Key([1, 0, n]), node(n as u32 + 1, tenant(1)), &mut lost);
    }
    for n in 0..3 * MOST as u64 {
        cache.insert(Key([2, n, n << 40]), node(7, tenant(2)), &mut lost);
        assert!(cache.len() <= MOST);
    }
    for n in 0..100 {
        assert_eq!(find(&cache, Key([1, 0, n])), Some(n as u32 + 1));
    }
    // Of its own, the oldest have gone.
    let last = 3 * MOST as u64 - 1;
    assert_eq!(find(&cache, Key([2, last, last << 40])), Some(7));
    assert_eq!(find(&cache, Key([2, 0, 0])), None);
    assert_eq!(lost.len(), 2 * MOST + 100);
}

#[test]
fn a_program_that_takes_anothers_place_ends_what_was_found_before() {
    let (mut cache, mut lost) = (Cache::default(), Vec::new());
    let number = cache.insert(Key([1, 2, 3]), node(5, tenant(1)), &mut lost);
    let epoch = cache.epoch;
    assert_eq!(cache.insert(Key([1, 2, 3]), node(5, tenant(1)), &mut lost), number);
    assert_eq!((cache.epoch, lost.as_slice()), (epoch, [5].as_slice()));
    assert_eq!(cache.insert(Key([1, 2, 3]), node(6, tenant(1)), &mut lost), number);
    assert!(cache.epoch != epoch);
    // Another way on is another node: those below the first are not found from it.
    let read = NewNode { next: Next::Read(PacketRead::Destination), ..node(6, tenant(1)) };
    assert_ne!(cache.insert(Key([1, 2, 3]), read, &mut lost), number);
    assert_eq!((lost, cache.len()), (vec![5, 5, 6], 1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]
    #[test]
    fn the_table_behaves_like_a_map(steps in proptest::collection::vec((any::<bool>(), 1..400_u64, 1..100_u32), 1..2000)) {
        let (mut cache, mut map, mut lost) = (Cache::default(), HashMap::new(), Vec::new());
        for (inserts, key, program) in steps {
            if inserts {
                cache.insert(Key([key, key, 0]), node(program, Tenant::Vrf(VrfId::new(2).unwrap())), &mut lost);
                map.insert(key, program);
            } else {
                let wanted = Key([key, key, 0]);
                let place = cache.entry(&wanted).map(|entry| entry.place);
                prop_assert_eq!(place.and_then(|place| cache.remove(place)), map.remove(&key));
            }
        }
        prop_assert_eq!(cache.len(), map.len());
        for key in 1..400 {
            prop_assert_eq!(find(&cache, Key([key, key, 0])), map.get(&key).copied());
        }
    }
}
