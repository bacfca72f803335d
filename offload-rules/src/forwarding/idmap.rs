//! A persistent map from numbers to objects: four array look-ups, whatever the size.
//!
//! Ids are small integers that are handed out densely, so the map is a radix tree of four levels of 256. A clone shares
//! everything; a change copies the four arrays on its path.

use std::sync::Arc;

type Level<T> = [Option<Arc<T>>; 256];
type Leaf<V> = [Option<V>; 256];
type Root<V> = Level<Level<Level<Leaf<V>>>>;

/// Objects by number.
#[derive(Debug, Clone)]
pub(super) struct IdMap<V> {
    root: Option<Arc<Root<V>>>,
    len: usize,
}

impl<V> Default for IdMap<V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

/// The octets of an id, most significant first, as indices.
#[inline]
fn path(id: u32) -> [usize; 4] {
    id.to_be_bytes().map(usize::from)
}

/// The level below, made when it is missing, to be changed.
fn descend<T: Clone>(slot: &mut Option<Arc<T>>, empty: impl FnOnce() -> T) -> &mut T {
    Arc::make_mut(slot.get_or_insert_with(|| Arc::new(empty())))
}

fn empty<T>() -> [Option<T>; 256] {
    std::array::from_fn(|_| None)
}

impl<V: Clone> IdMap<V> {
    /// The object with this number.
    #[inline]
    pub(super) fn get(&self, id: u32) -> Option<&V> {
        let [a, b, c, d] = path(id);
        // Indices below 256 into arrays of 256.
        self.root.as_ref()?[a].as_ref()?[b].as_ref()?[c].as_ref()?[d].as_ref()
    }

    /// Is there one?
    pub(super) fn contains(&self, id: u32) -> bool {
        self.get(id).is_some()
    }

    /// Adds or replaces; returns what was there.
    pub(super) fn insert(&mut self, id: u32, value: V) -> Option<V> {
        let old = self.slot(id).replace(value);
        self.len += usize::from(old.is_none());
        old
    }

    /// Removes; returns what was there.
    pub(super) fn remove(&mut self, id: u32) -> Option<V> {
        // Looked up first, so that nothing is copied for what is not there.
        self.get(id)?;
        self.len -= 1;
        self.slot(id).take()
    }

    /// Changes the object with this number, made from its default when it is missing.
    pub(super) fn update(&mut self, id: u32, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let slot = self.slot(id);
        let added = slot.is_none();
        change(slot.get_or_insert_with(V::default));
        self.len += usize::from(added);
    }

    fn slot(&mut self, id: u32) -> &mut Option<V> {
        let [a, b, c, d] = path(id);
        let level = &mut descend(&mut self.root, empty)[a];
        let level = &mut descend(level, empty)[b];
        let level = &mut descend(level, empty)[c];
        &mut descend(level, empty)[d]
    }

    /// Number of objects.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Objects in order of number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &V)> {
        let levels = self.root.iter().flat_map(|root| root.iter().enumerate());
        let levels = levels
            .flat_map(|(a, l)| l.iter().flat_map(move |l| l.iter().enumerate().map(move |(b, l)| (a << 8 | b, l))));
        let levels = levels
            .flat_map(|(a, l)| l.iter().flat_map(move |l| l.iter().enumerate().map(move |(b, l)| (a << 8 | b, l))));
        let leaves = levels
            .flat_map(|(a, l)| l.iter().flat_map(move |l| l.iter().enumerate().map(move |(b, v)| (a << 8 | b, v))));
        leaves.filter_map(|(id, value)| value.as_ref().map(|value| (id as u32, value)))
    }

    /// Objects in order of number, without the number.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::IdMap;

    fn id() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..600, any::<u32>(), 0x00ff_ff00u32..=0x0100_00ff]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_map_answers_like_an_ordered_map_and_old_clones_keep_their_content(
            ops in prop::collection::vec((id(), any::<Option<u16>>()), 0..60)
        ) {
            let (mut map, mut oracle) = (IdMap::default(), BTreeMap::new());
            let mut clones = Vec::new();
            for (id, value) in ops {
                clones.push((map.clone(), oracle.clone()));
                match value {
                    Some(value) => prop_assert_eq!(map.insert(id, value), oracle.insert(id, value)),
                    None => prop_assert_eq!(map.remove(id), oracle.remove(&id)),
                }
                prop_assert_eq!(map.get(id), oracle.get(&id));
            }
            clones.push((map, oracle));
            for (map, oracle) in clones {
                prop_assert_eq!(map.len(), oracle.len());
                prop_assert!(map.iter().eq(oracle.iter().map(|(k, v)| (*k, v))));
            }
        }
    }
}
