//! What decapsulation of MPLS over UDP has looked up, by outer header and label.
//!
//! Whether a tunnel ends here, whether the source may be and may come by this vif, where the label leads: look-ups whose answers are
//! the same for all packets of a tunnel and label while what they read is the same.

use std::{
    cell::{Cell, RefCell},
    net::Ipv4Addr,
};

use offload_rules::{
    VifId, VrfId,
    flow::Dependency,
    forwarding::{Changes, Snapshot},
};

use super::{context::Path, readers::Readers};

/// Outer headers with a label whose answers are remembered at once.
const SLOTS: usize = 256;

/// What was read for them, at most: beyond, everything is looked up anew.
const READS: usize = 4096;

/// What the look-ups depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DecapKey {
    /// The vif that it came in on: an IPsec tunnel, or one of the underlay.
    pub(super) vif: VifId,
    /// VRF of the underlay.
    pub(super) vrf: VrfId,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    /// The label, not looked at closely.
    pub(super) label: u32,
}

/// What they say: only of packets that may go on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decap {
    /// VRF of the tenant.
    pub(super) vrf: VrfId,
    pub(super) path: Path,
}

impl DecapKey {
    /// As two words; no two that differ have the same, and none has zeros, since nobody sends from 0.0.0.0.
    #[inline(always)]
    const fn words(&self) -> [u64; 2] {
        let Self { vif, vrf, source, destination, label } = self;
        let ends = source.to_bits() as u64 | (destination.to_bits() as u64) << 32;
        [ends, *label as u64 | (vif.get() as u64) << 32 | (vrf.get() as u64) << 48]
    }
}

/// One answer, with what it was asked; zeros: none.
#[derive(Debug, Clone, Copy)]
struct Known {
    key: [u64; 2],
    decap: Decap,
}

/// The cache; each key has one place in it.
pub(super) struct DecapCache {
    slots: Box<[Cell<Known>; SLOTS]>,
    /// What may make an answer another one, beside what arrivals depend on.
    reads: RefCell<Readers>,
}

impl Default for DecapCache {
    fn default() -> Self {
        Self { slots: Box::new(std::array::from_fn(|_| Cell::new(Known::none()))), reads: RefCell::default() }
    }
}

impl Known {
    fn none() -> Self {
        Self { key: [0; 2], decap: Decap { vrf: VrfId::default(), path: Path::Reassemble } }
    }
}

impl DecapCache {
    #[inline(always)]
    pub(super) fn get(&self, key: &DecapKey) -> Option<Decap> {
        let [ends, place] = key.words();
        let known = self.slots.get(slot(key))?.get();
        let [known_ends, known_place] = known.key;
        ((known_ends ^ ends) | (known_place ^ place) == 0).then_some(known.decap)
    }

    pub(super) fn put(&self, key: DecapKey, decap: Decap) {
        if let Some(slot) = self.slots.get(slot(&key)) {
            slot.set(Known { key: key.words(), decap });
        }
    }

    /// Something was read for an answer that is to be put here.
    pub(super) fn note(&self, read: &[Dependency]) {
        if self.reads.borrow().len() > READS {
            self.clear();
        }
        self.reads.borrow_mut().add(0, read);
    }

    /// Forgets everything when changes concern any of it; `snapshot` is the one after them.
    pub(super) fn follow(&self, changes: &Changes, snapshot: &Snapshot) {
        if changes.touches_arrivals() || !self.reads.borrow().concerned(changes, snapshot).is_empty() {
            self.clear();
        }
    }

    fn clear(&self) {
        self.reads.borrow_mut().clear();
        for slot in self.slots.iter() {
            slot.set(Known::none());
        }
    }
}

/// The place of a key.
#[inline(always)]
const fn slot(key: &DecapKey) -> usize {
    let mixed = (key.source.to_bits() ^ key.label.rotate_left(16)).wrapping_mul(0x9e37_79b1);
    mixed as usize >> 24
}

/// The 20 bits of the label at the start of a payload; a number that no label has when it is too short.
#[inline]
pub(super) fn label_word(payload: &[u8]) -> u32 {
    payload.first_chunk::<4>().map_or(u32::MAX, |word| u32::from_be_bytes(*word) >> 12)
}
