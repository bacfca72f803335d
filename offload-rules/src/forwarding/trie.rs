//! A persistent longest-prefix-match trie: the structure under routes, address maps and VLAN maps.
//!
//! A multibit trie of six bits a step with compressed nodes (Eatherton et al., "Tree Bitmap", 2004) whose paths are
//! compressed too: a node holds the prefixes of one to six bits below its offset and one child for each of 64 slots, and
//! a chain of nodes with a single child is one node. Nodes are shared between clones and copied only along the path of
//! a change, so a clone costs two reference counts and a change O(depth).

use std::{cmp::Reverse, sync::Arc};

/// Bits decided at each node.
const STRIDE: u8 = 6;

/// For each slot, the positions of the one to six prefixes that hold it; see [`position`].
static COVERING: [u128; 64] = covering();

const fn covering() -> [u128; 64] {
    let mut table = [0u128; 64];
    let mut slot = 0;
    while slot < 64 {
        let mut bits = 1;
        while bits <= STRIDE as usize {
            table[slot] |= 1 << ((1 << bits) | (slot >> (STRIDE as usize - bits)));
            bits += 1;
        }
        slot += 1;
    }
    table
}

/// Keys: unsigned integers, most significant bit first.
pub(super) trait Key: Copy + Eq + std::fmt::Debug {
    /// Bits of a key.
    const BITS: u8;
    /// The key of the prefix of length 0.
    const ZERO: Self;
    /// The six bits from `offset`, padded with zeros beyond the end.
    fn slot(self, offset: u8) -> usize;
    /// The first `len` bits, the others 0.
    fn prefix(self, len: u8) -> Self;
    /// Number of leading bits that are the same.
    fn common(self, other: Self) -> u8;
    /// This key with `value` in the `bits` bits from `offset`, which are 0.
    fn with(self, offset: u8, bits: u8, value: u8) -> Self;
}

macro_rules! key {
    ($int:ty) => {
        impl Key for $int {
            const BITS: u8 = <$int>::BITS as u8;
            const ZERO: Self = 0;

            #[inline]
            fn slot(self, offset: u8) -> usize {
                // Invariant: offset is a multiple of the stride below BITS.
                ((self << offset) >> (<Self as Key>::BITS - STRIDE)) as usize & 63
            }

            #[inline]
            fn prefix(self, len: u8) -> Self {
                if len == 0 { 0 } else { self & (<$int>::MAX << (<Self as Key>::BITS - len)) }
            }

            #[inline]
            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }

            fn with(self, offset: u8, bits: u8, value: u8) -> Self {
                self | (<$int>::from(value) << (<Self as Key>::BITS - offset - bits))
            }
        }
    };
}
key!(u32);
key!(u64);
key!(u128);

/// Values by prefix. A clone is cheap, and a changed clone shares what did not change.
#[derive(Debug, Clone)]
pub(super) struct Trie<K, V> {
    root: Option<Arc<Node<K, V>>>,
    /// Value of the prefix of length 0.
    default: Option<V>,
    len: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    /// The bits before `offset`; the others are 0.
    path: K,
    /// Which prefixes are here, by [`position`].
    prefixes: u128,
    /// Which slots have a child.
    slots: u64,
    /// A multiple of the stride.
    offset: u8,
    /// Values in order of position.
    values: Arc<[V]>,
    /// Children in order of slot, side by side: a step down is one cache miss.
    children: Arc<[Node<K, V>]>,
}

/// A copy of a list with one more item.
fn with_item<T: Clone>(list: &[T], at: usize, item: T) -> Arc<[T]> {
    let (before, after) = list.split_at_checked(at).unwrap_or((list, &[]));
    before.iter().cloned().chain(std::iter::once(item)).chain(after.iter().cloned()).collect()
}

/// A copy of a list with one item less.
fn without_item<T: Clone>(list: &[T], at: usize) -> Arc<[T]> {
    let (before, after) = list.split_at_checked(at).unwrap_or((list, &[]));
    before.iter().cloned().chain(after.iter().skip(1).cloned()).collect()
}

/// Offset of the node that holds prefixes of this length (1 or more).
const fn offset_of(len: u8) -> u8 {
    (len - 1) / STRIDE * STRIDE
}

/// Position of a prefix in its node: a leading 1, then its one to six bits.
fn position<K: Key>(key: K, len: u8, offset: u8) -> u32 {
    let bits = len - offset;
    (1 << bits) | (key.slot(offset) as u32 >> (STRIDE - bits))
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Self {
        Self { root: None, default: None, len: 0 }
    }
}

impl<K: Copy, V> Clone for Node<K, V> {
    fn clone(&self) -> Self {
        Self { values: Arc::clone(&self.values), children: Arc::clone(&self.children), ..*self }
    }
}

impl<K: Key, V> Node<K, V> {
    fn new(path: K, offset: u8) -> Self {
        Self { path, prefixes: 0, slots: 0, offset, values: Arc::default(), children: Arc::default() }
    }

    #[inline]
    fn rank(&self, position: u32) -> usize {
        (self.prefixes & ((1u128 << position) - 1)).count_ones() as usize
    }

    #[inline]
    fn child_rank(&self, slot: usize) -> usize {
        (self.slots & ((1u64 << slot) - 1)).count_ones() as usize
    }

    #[inline]
    fn has(&self, position: u32) -> bool {
        self.prefixes >> position & 1 == 1
    }

    #[inline]
    fn child(&self, slot: usize) -> Option<&Self> {
        if self.slots >> slot & 1 == 1 { self.children.get(self.child_rank(slot)) } else { None }
    }

    fn add_child(&mut self, slot: usize, child: Self) {
        self.children = with_item(&self.children, self.child_rank(slot), child);
        self.slots |= 1 << slot;
    }
}

impl<K: Key, V: Clone> Trie<K, V> {
    /// Value of the longest prefix of `key`.
    #[inline]
    pub(super) fn lookup(&self, key: K) -> Option<&V> {
        let mut best = None;
        let mut next = self.root.as_deref();
        while let Some(node) = next {
            if key.common(node.path) < node.offset {
                break;
            }
            let slot = key.slot(node.offset);
            let hits = node.prefixes & COVERING[slot & 63];
            if hits != 0 {
                best = Some((node, 127 - hits.leading_zeros()));
            }
            next = node.child(slot);
        }
        match best {
            Some((node, position)) => node.values.get(node.rank(position)),
            None => self.default.as_ref(),
        }
    }

    /// Value of exactly this prefix.
    #[inline]
    pub(super) fn get(&self, key: K, len: u8) -> Option<&V> {
        if len == 0 {
            return self.default.as_ref();
        }
        let offset = offset_of(len);
        let mut node = self.root.as_deref()?;
        while node.offset < offset {
            if key.common(node.path) < node.offset {
                return None;
            }
            node = node.child(key.slot(node.offset))?;
        }
        if node.offset != offset || key.common(node.path) < offset {
            return None;
        }
        let position = position(key, len, offset);
        if node.has(position) { node.values.get(node.rank(position)) } else { None }
    }

    /// Adds or replaces; returns what was there. Bits of `key` beyond `len` are ignored.
    pub(super) fn insert(&mut self, key: K, len: u8, value: V) -> Option<V> {
        let len = len.min(K::BITS);
        let old = if len == 0 { self.default.replace(value) } else { self.insert_node(key.prefix(len), len, value) };
        self.len += usize::from(old.is_none());
        old
    }

    fn insert_node(&mut self, key: K, len: u8, value: V) -> Option<V> {
        let offset = offset_of(len);
        let root = self.root.get_or_insert_with(|| Arc::new(Node::new(key.prefix(offset), offset)));
        let mut node = Arc::make_mut(root);
        loop {
            // Where the path of this node and that of the prefix part, on the grid of offsets.
            let shared = key.common(node.path).min(node.offset).min(offset) / STRIDE * STRIDE;
            if shared < node.offset {
                let below = std::mem::replace(node, Node::new(key.prefix(shared), shared));
                node.add_child(below.path.slot(shared), below);
            }
            if node.offset == offset {
                let position = position(key, len, offset);
                let rank = node.rank(position);
                if node.has(position) {
                    return Arc::make_mut(&mut node.values).get_mut(rank).map(|old| std::mem::replace(old, value));
                }
                node.values = with_item(&node.values, rank, value);
                node.prefixes |= 1 << position;
                return None;
            }
            let slot = key.slot(node.offset);
            if node.slots >> slot & 1 == 0 {
                node.add_child(slot, Node::new(key.prefix(offset), offset));
            }
            let rank = node.child_rank(slot);
            // Invariant: the slot has a child, from before or from the line above.
            node = Arc::make_mut(&mut node.children).get_mut(rank)?;
        }
    }

    /// Removes exactly this prefix; returns what was there.
    pub(super) fn remove(&mut self, key: K, len: u8) -> Option<V> {
        // Looked up first, so that nothing is copied for what is not there.
        self.get(key, len)?;
        self.len -= 1;
        if len == 0 {
            return self.default.take();
        }
        let (old, empty) = Self::remove_node(Arc::make_mut(self.root.as_mut()?), key, len);
        if empty {
            self.root = None;
        }
        old
    }

    /// Removes a prefix that is there; true when the node has become empty.
    fn remove_node(node: &mut Node<K, V>, key: K, len: u8) -> (Option<V>, bool) {
        let offset = offset_of(len);
        let old = if node.offset == offset {
            let position = position(key, len, offset);
            let rank = node.rank(position);
            let old = node.values.get(rank).cloned();
            node.values = without_item(&node.values, rank);
            node.prefixes &= !(1 << position);
            old
        } else {
            let slot = key.slot(node.offset);
            let rank = node.child_rank(slot);
            let Some(child) = Arc::make_mut(&mut node.children).get_mut(rank) else { return (None, false) };
            let (old, empty) = Self::remove_node(child, key, len);
            if empty {
                node.children = without_item(&node.children, rank);
                node.slots &= !(1 << slot);
            }
            old
        };
        match &*node.children {
            [] if node.values.is_empty() => return (old, true),
            [only] if node.values.is_empty() => {
                // A node that only leads on is left out.
                let only = only.clone();
                *node = only;
            }
            _ => {}
        }
        (old, false)
    }

    /// Are the prefixes of 1 and more bits the same ones, shared? Equal tries that were made apart are not.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (None, None) => true,
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            _ => false,
        }
    }

    /// Number of prefixes.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// No prefixes.
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Prefixes with their length and value, in order of address, the shorter first.
    pub(super) fn iter(&self) -> Iter<'_, K, V> {
        let stack = self.root.iter().map(|root| (0, Item::Node(root))).collect();
        Iter { default: self.default.as_ref(), stack }
    }
}

/// Iterator over a [`Trie`].
pub(super) struct Iter<'a, K, V> {
    default: Option<&'a V>,
    /// What is still to be visited, with its rank within its node; the next one last.
    stack: Vec<(u32, Item<'a, K, V>)>,
}

enum Item<'a, K, V> {
    Value(K, u8, &'a V),
    Node(&'a Node<K, V>),
}

impl<'a, K: Key, V> Iterator for Iter<'a, K, V> {
    type Item = (K, u8, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(default) = self.default.take() {
            return Some((K::ZERO, 0, default));
        }
        loop {
            match self.stack.pop()?.1 {
                Item::Value(key, len, value) => return Some((key, len, value)),
                Item::Node(node) => self.expand(node),
            }
        }
    }
}

impl<'a, K: Key, V> Iter<'a, K, V> {
    fn expand(&mut self, node: &'a Node<K, V>) {
        let start = self.stack.len();
        let mut left = node.prefixes;
        for value in node.values.iter() {
            let position = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            let bits = position.ilog2();
            let prefix = position - (1 << bits);
            let key = node.path.with(node.offset, bits as u8, prefix as u8);
            let order = (prefix << (u32::from(STRIDE) - bits)) * 8 + bits;
            self.stack.push((order, Item::Value(key, node.offset + bits as u8, value)));
        }
        let mut left = node.slots;
        for child in node.children.iter() {
            // After the prefixes of up to six bits that start in the same slot.
            self.stack.push((left.trailing_zeros() * 8 + 7, Item::Node(child)));
            left &= left.wrapping_sub(1);
        }
        if let Some(new) = self.stack.get_mut(start..) {
            new.sort_unstable_by_key(|(order, _)| Reverse(*order));
        }
    }
}
