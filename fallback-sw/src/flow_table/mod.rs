//! The flows of one worker: an index of cache-line buckets over a slab of records that are in two cache lines each.
//!
//! One thread owns a table; there are no locks and no atomics. Memory is reserved for the limit and touched as flows come.
//! A lookup costs one line of the index and one or two of the record; [`FlowTable::lookup_batch`] overlaps those of a whole
//! batch of packets. Keys, slots and pairs only: what a flow means is the worker's business.

mod destinations;
mod hash;
mod holdings;
mod index;
mod memory;
mod record;
#[cfg(test)]
mod tests;

use std::{io, net::IpAddr};

use ipnet::IpNet;
use offload_rules::{VifId, VrfId, flow::FlowKey};

pub(crate) use self::hash::{halves, place, rest, same_key};
use self::{destinations::Destinations, hash::Hasher, index::Index, memory::Array};
pub use self::{
    destinations::TooMany,
    holdings::{Class, Holder, Holdings},
    record::{Binding, NONE, Record, Times},
};
use crate::prefetch;

/// Most records that a table can be made for.
pub const MAX_RECORDS: u32 = 1 << 30;

/// Packets whose memory accesses are overlapped. Beyond the processor's 64 or so outstanding misses nothing is gained.
const STAGE: usize = 64;
/// In the stages of a batch: look into the other bucket.
const ELSEWHERE: u32 = u32::MAX - 1;

/// A flow was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The table is at its limit, or more flows share one tuple on different vifs than two buckets hold.
    #[error("flow table full: remove idle flows or raise the limit")]
    Full,
    /// A flow with one of the keys is in this slot. The caller decides which of the two stays.
    #[error("a flow with this key is in slot {0}")]
    Exists(u32),
}

/// A flow was not moved to another vif.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SetVifError {
    /// The key with the new vif is in this slot already.
    #[error("a flow with this key on the new vif is in slot {0}")]
    Exists(u32),
    /// No flow is in this slot.
    #[error("slot {0} is vacant")]
    Vacant(u32),
}

/// The flow table of one worker.
pub struct FlowTable {
    hasher: Hasher,
    index: Index,
    records: Array<Record>,
    destinations: Destinations,
    /// Records without another direction, by their source.
    lone_sources: Destinations,
    created: Array<u32>,
    /// By how much later than it was created a flow's program has changed: most never do, and then no memory is touched.
    changed: Array<u32>,
    bindings: Array<Binding>,
    /// Grows, modulo 256, with each use of a slot: an update that names an older generation is stale.
    generations: Array<u8>,
    /// One bit a slot, so that listing and ageing skip vacant stretches without touching them.
    occupied: Vec<u64>,
    capacity: u32,
    len: u32,
    /// Slots from here on were never used.
    fresh: u32,
    /// The slot that was freed last; the list continues in [`Record::reverse`].
    freed: u32,
}

/// Hashes keys, and asks for their index lines.
pub(crate) struct Finder<'a> {
    hasher: Hasher,
    buckets: &'a [index::Bucket],
}

impl Finder<'_> {
    /// [`FlowTable::hash`] of the key that has these words: both halves of each address, [`place`], protocol and version.
    #[inline(always)]
    pub(crate) const fn hash(&self, source: [u64; 2], destination: [u64; 2], place: u64, kind: u16) -> u64 {
        self.hasher.of_words(source, destination, place, kind)
    }

    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get(index::home(hash, self.buckets.len() as u32) as usize) {
            prefetch::read(bucket);
        }
    }
}

impl FlowTable {
    /// A table for this many records, two for each flow, 1..=[`MAX_RECORDS`].
    ///
    /// The keys of the hash are secret and different in every table.
    ///
    /// # Errors
    /// The number is out of range, or the kernel refuses the address space.
    pub fn new(capacity_records: u32) -> io::Result<Self> {
        Self::with_hasher(capacity_records, Hasher::random())
    }

    /// As [`FlowTable::new`], with hashes that depend on `seed` alone: for replay and tests, where runs must be alike. Who
    /// knows the seed can flood one bucket.
    ///
    /// # Errors
    /// As [`FlowTable::new`].
    pub fn with_seed(capacity_records: u32, seed: u64) -> io::Result<Self> {
        Self::with_hasher(capacity_records, Hasher::seeded(seed))
    }

    fn with_hasher(capacity: u32, hasher: Hasher) -> io::Result<Self> {
        if capacity == 0 || capacity > MAX_RECORDS {
            let what = format!("flow table for {capacity} records: use 1..={MAX_RECORDS}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Self {
            hasher,
            index: Index::new(capacity)?,
            records: Array::new(capacity as usize)?,
            destinations: Destinations::new(capacity)?,
            lone_sources: Destinations::new(capacity)?,
            created: Array::new(capacity as usize)?,
            changed: Array::new(capacity as usize)?,
            bindings: Array::new(capacity as usize)?,
            generations: Array::new(capacity as usize)?,
            occupied: vec![0; capacity.div_ceil(64) as usize],
            capacity,
            len: 0,
            fresh: 0,
            freed: NONE,
        })
    }

    /// Hash of a key under this table's secret. The vif does not enter it.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        self.hasher.hash(key)
    }

    /// Asks for the index line that a lookup of this hash reads first.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Asks for both lines of a record.
    #[inline(always)]
    pub fn prefetch_record(&self, slot: u32) {
        ask(self.records.as_slice(), slot);
    }

    /// A slot whose key probably has this hash, without reading the record.
    #[inline]
    #[must_use]
    pub fn find_candidate(&self, hash: u64) -> Option<u32> {
        self.index.find(hash, |_| true)
    }

    /// The slot of this key.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: u64, key: &FlowKey) -> Option<u32> {
        let records = self.records.as_slice();
        self.index.find(hash, |slot| records.get(slot as usize).is_some_and(|record| hash::same_key(&record.key, key)))
    }

    /// The slot of a flow whose key is equal to this one in everything but the vif. Where several are, any of them.
    #[must_use]
    pub fn find_sibling(&self, hash: u64, key: &FlowKey) -> Option<u32> {
        let records = self.records.as_slice();
        self.index.find(hash, |slot| records.get(slot as usize).is_some_and(|record| hash::siblings(&record.key, key)))
    }

    /// Looks up a batch: `out[i]` becomes the slot of `keys[i]`, or [`NONE`]. `hashes[i]` is [`FlowTable::hash`] of
    /// `keys[i]`. The three slices are equally long; what `out` has more becomes [`NONE`].
    ///
    /// Memory is asked for in stages, each for all packets before the next: index, record. Both lines of the records found
    /// are in the cache, or on their way, afterwards.
    pub fn lookup_batch(&self, keys: &[FlowKey], hashes: &[u64], out: &mut [u32]) {
        let known = keys.len().min(hashes.len()).min(out.len());
        let (Some(keys), Some(hashes), Some((out, rest))) =
            (keys.get(..known), hashes.get(..known), out.split_at_mut_checked(known))
        else {
            return;
        };
        for ((keys, hashes), out) in keys.chunks(STAGE).zip(hashes.chunks(STAGE)).zip(out.chunks_mut(STAGE)) {
            for hash in hashes {
                self.index.prefetch(*hash);
            }
            self.lookup_asked(keys, |key| key, hashes, out);
        }
        rest.fill(NONE);
    }

    /// As [`FlowTable::lookup_batch`], for keys inside of something, at most some dozens, whose index lines
    /// [`FlowTable::prefetch`] has asked for.
    #[inline]
    pub fn lookup_asked<T>(&self, items: &[T], key: impl Fn(&T) -> &FlowKey, hashes: &[u64], out: &mut [u32]) {
        if self.candidates_at_home(hashes, out) {
            self.candidates_elsewhere(hashes, out);
        }
        self.confirm(items, key, hashes, out);
    }

    /// First stage, for packets whose keys are compared later on: what it needs, held over a batch.
    #[inline(always)]
    pub(crate) fn finder(&self) -> Finder<'_> {
        Finder { hasher: self.hasher.clone(), buckets: self.index.buckets() }
    }

    /// For hashes whose index lines [`Finder::prefetch`] has asked for: the slot of the first record that may have the key, not compared,
    /// or [`NONE`]. One in some thousands has another key with the same signature before its own.
    #[inline]
    pub(crate) fn candidates(&self, hashes: &[u64], out: &mut [u32]) {
        if self.candidates_at_home(hashes, out) {
            self.candidates_elsewhere(hashes, out);
        }
    }

    /// All records, vacant ones, too.
    #[inline(always)]
    pub(crate) fn records_mut(&mut self) -> &mut [Record] {
        self.records.as_mut_slice()
    }

    /// Second stage: the first candidate in each home bucket. What may be in the other bucket is marked, and that bucket
    /// asked for. True: there are some of those.
    // A function of its own, like the other stages: together they would not fit into the registers.
    #[inline(never)]
    fn candidates_at_home(&self, hashes: &[u64], out: &mut [u32]) -> bool {
        let buckets = self.index.buckets();
        let records = self.records.as_slice();
        let mut elsewhere = false;
        for (out, hash) in out.iter_mut().zip(hashes) {
            let place = self.index.place(*hash);
            let Some(bucket) = buckets.get(place.home as usize) else { continue };
            if let Some(slot) = bucket.first(place.signature) {
                *out = slot;
                ask(records, slot);
                continue;
            }
            *out = NONE;
            if bucket.overflowed() {
                *out = ELSEWHERE;
                elsewhere = true;
                if let Some(bucket) = buckets.get(self.index.other(place.home, place.signature) as usize) {
                    prefetch::read(bucket);
                }
            }
        }
        elsewhere
    }

    /// Third stage, for what was marked: the first candidate in the other bucket.
    #[inline(never)]
    fn candidates_elsewhere(&self, hashes: &[u64], out: &mut [u32]) {
        let buckets = self.index.buckets();
        let records = self.records.as_slice();
        for (out, hash) in out.iter_mut().zip(hashes).filter(|(out, _)| **out == ELSEWHERE) {
            let place = self.index.place(*hash);
            *out = NONE;
            let bucket = buckets.get(self.index.other(place.home, place.signature) as usize);
            if let Some(slot) = bucket.and_then(|bucket| bucket.first(place.signature)) {
                *out = slot;
                ask(records, slot);
            }
        }
    }

    /// Last stage: is the candidate the one?
    #[inline(never)]
    fn confirm<T>(&self, items: &[T], key: impl Fn(&T) -> &FlowKey, hashes: &[u64], out: &mut [u32]) {
        let records = self.records.as_slice();
        for ((out, item), hash) in out.iter_mut().zip(items).zip(hashes) {
            let key = key(item);
            // `NONE` is beyond all records.
            let Some(record) = records.get(*out as usize) else { continue };
            if !hash::same_key(&record.key, key) {
                // One in some thousands: another key with this signature came first.
                *out = self.find(*hash, key).unwrap_or(NONE);
            }
        }
    }

    /// Adds a flow and returns the slots of its two directions, each the other's [`Record::reverse`]. All or nothing. The
    /// records are zero but for the key and `ecmp`.
    ///
    /// When the two keys are equal the flow is one record that is its own other direction, and both slots are the same.
    ///
    /// # Errors
    /// [`InsertError::Exists`] when a flow has one of the keys already (`fwd` is looked for first); [`InsertError::Full`].
    pub fn insert_pair(&mut self, fwd: FlowKey, rev: FlowKey) -> Result<(u32, u32), InsertError> {
        let (fwd_hash, rev_hash) = (self.hash(&fwd), self.hash(&rev));
        self.prefetch(fwd_hash);
        self.prefetch(rev_hash);
        for (hash, key) in [(fwd_hash, &fwd), (rev_hash, &rev)] {
            if let Some(slot) = self.find(hash, key) {
                return Err(InsertError::Exists(slot));
            }
        }
        let one = self.add(fwd_hash, fwd)?;
        if fwd == rev {
            self.link(one, one);
            return Ok((one, one));
        }
        let two = match self.add(rev_hash, rev) {
            Ok(two) => two,
            Err(error) => {
                // As its own other direction: it is not filed by its source.
                self.link(one, one);
                self.free(one);
                return Err(error);
            }
        };
        self.link(one, two);
        self.link(two, one);
        Ok((one, two))
    }

    /// Adds a record without another direction.
    ///
    /// # Errors
    /// As [`FlowTable::insert_pair`].
    pub fn insert_one(&mut self, key: FlowKey) -> Result<u32, InsertError> {
        let hash = self.hash(&key);
        if let Some(slot) = self.find(hash, &key) {
            return Err(InsertError::Exists(slot));
        }
        let slot = self.add(hash, key)?;
        let records = self.records.as_slice();
        let source_of = |slot: u32| records.get(slot as usize).map(|record| record.key.source());
        self.lone_sources.add(slot, (key.vrf, key.source()), source_of);
        Ok(slot)
    }

    /// Removes the record in this slot and its other direction; returns how many records that were: 0 when the slot is
    /// vacant.
    pub fn remove_pair(&mut self, slot: u32) -> u32 {
        let Some(record) = self.record(slot) else { return 0 };
        let reverse = record.reverse;
        // A record that does not point back belongs to another flow.
        let paired = reverse != slot && self.record(reverse).is_some_and(|record| record.reverse == slot);
        self.free(slot);
        if paired {
            self.free(reverse);
        }
        1 + u32::from(paired)
    }

    /// Moves a flow to another vif, as when its packets begin to arrive there. The hash stays what it was.
    ///
    /// # Errors
    /// [`SetVifError`]: nothing changed.
    pub fn set_vif(&mut self, slot: u32, vif: VifId) -> Result<(), SetVifError> {
        let Some(record) = self.record(slot) else { return Err(SetVifError::Vacant(slot)) };
        if record.key.vif == vif {
            return Ok(());
        }
        let key = FlowKey { vif, ..record.key };
        if let Some(other) = self.find(self.hash(&key), &key) {
            return Err(SetVifError::Exists(other));
        }
        if let Some(record) = self.records.get_mut(slot) {
            record.key = key;
        }
        Ok(())
    }

    /// The record in this slot, if a flow is there.
    #[inline(always)]
    #[must_use]
    pub fn record(&self, slot: u32) -> Option<&Record> {
        self.records.get(slot).filter(|record| record.is_occupied())
    }

    /// The record in this slot, to be changed.
    #[inline(always)]
    pub fn record_mut(&mut self, slot: u32) -> Option<&mut Record> {
        self.records.get_mut(slot).filter(|record| record.is_occupied())
    }

    /// The record in this slot, to be changed, and the way to its binding, whose memory is not read yet.
    #[inline(always)]
    pub fn record_and_binding(&mut self, slot: u32) -> Option<(&mut Record, BindingAt<'_>)> {
        let record = self.records.get_mut(slot).filter(|record| record.is_occupied())?;
        Some((record, BindingAt { bindings: &self.bindings, slot }))
    }

    /// When things happened to the flow in this slot.
    #[must_use]
    pub fn times(&self, slot: u32) -> Times {
        let created = self.created.get(slot).copied().unwrap_or_default();
        Times { created, changed: created.wrapping_add(self.changed.get(slot).copied().unwrap_or_default()) }
    }

    /// The flow in this slot is made now, and so is its program.
    pub fn set_created(&mut self, slot: u32, now: u32) {
        if let Some(created) = self.created.get_mut(slot) {
            *created = now;
        }
        self.set_changed(slot, now);
    }

    /// The program of the flow in this slot changes now.
    pub fn set_changed(&mut self, slot: u32, now: u32) {
        let later = now.wrapping_sub(self.created.get(slot).copied().unwrap_or_default());
        // Not written without need, which would touch its memory.
        if self.changed.get(slot).is_some_and(|changed| *changed != later)
            && let Some(changed) = self.changed.get_mut(slot)
        {
            *changed = later;
        }
    }

    /// What the flow in this slot has of its own beside its record; zeros when it is vacant.
    #[inline(always)]
    #[must_use]
    pub fn binding(&self, slot: u32) -> Binding {
        self.bindings.get(slot).copied().unwrap_or_default()
    }

    /// The same, to be changed. Memory is touched: only for a flow that has something.
    pub fn binding_mut(&mut self, slot: u32) -> Option<&mut Binding> {
        self.bindings.get_mut(slot)
    }

    /// Grows, modulo 256, with each use of a slot.
    #[must_use]
    pub fn generation(&self, slot: u32) -> u8 {
        self.generations.get(slot).copied().unwrap_or_default()
    }

    /// The first slot from `from` on that holds a flow: a cursor for ageing, sweeping and listing. Reads one bit a slot and
    /// no record. Flows that come or go between two calls may or may not be seen; all others are seen once.
    #[must_use]
    pub fn next_occupied(&self, from: u32) -> Option<u32> {
        let end = self.fresh.div_ceil(64) as usize;
        let first = from as usize / 64;
        for (i, word) in self.occupied.get(first..end)?.iter().enumerate() {
            let word = if i == 0 { word & (u64::MAX << (from % 64)) } else { *word };
            if word != 0 {
                return Some(((first + i) * 64) as u32 + word.trailing_zeros());
            }
        }
        None
    }

    /// Appends to `out` the slots of the records of a VRF with a destination in this prefix, but for whole groups of addresses that
    /// `skip` says no to. `most` is how many records and groups may be looked at; what is left is what was not needed.
    ///
    /// # Errors
    /// [`TooMany`]: what has been appended is not all.
    pub fn covered(
        &self,
        vrf: VrfId,
        prefix: IpNet,
        skip: impl Fn(IpNet) -> bool,
        most: &mut usize,
        out: &mut Vec<u32>,
    ) -> Result<(), TooMany> {
        let records = self.records.as_slice();
        let destination_of = |slot: u32| records.get(slot as usize).map(|record| record.key.destination());
        self.destinations.covered((vrf, prefix), skip, destination_of, most, out)
    }

    /// As [`FlowTable::covered`], for records without another direction and by their source. That of all others is the destination of
    /// their other direction.
    ///
    /// # Errors
    /// As [`FlowTable::covered`].
    pub fn lone_from(&self, vrf: VrfId, prefix: IpNet, most: &mut usize, out: &mut Vec<u32>) -> Result<(), TooMany> {
        let records = self.records.as_slice();
        let source_of = |slot: u32| records.get(slot as usize).map(|record| record.key.source());
        self.lone_sources.covered((vrf, prefix), |_| false, source_of, most, out)
    }

    /// From `from` on, an address of its family that no record of the VRF has a destination before. `None`: there is no record from there
    /// on.
    #[must_use]
    pub fn next_destination(&self, vrf: VrfId, from: IpAddr) -> Option<IpAddr> {
        self.destinations.next(vrf, from)
    }

    /// Records in use.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// No flows.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most records that fit.
    #[must_use]
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Octets of memory in use, estimated from above but for bindings, for when programs have changed and for how records without
    /// another direction are found by their source, which most flows have none of:
    /// every slot that ever held a flow, and the index, whose pages are all touched soon.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let index = if self.fresh == 0 { 0 } else { self.index.bytes() };
        let slot = size_of::<Record>() + size_of::<u32>() + size_of::<u8>();
        let records = self.fresh as usize * slot + self.destinations.bytes(self.fresh);
        records + index + self.fresh.div_ceil(64) as usize * size_of::<u64>()
    }

    /// Takes a slot and enters it in the index.
    fn add(&mut self, hash: u64, key: FlowKey) -> Result<u32, InsertError> {
        let recycled = self.freed != NONE;
        let slot = if recycled { self.freed } else { self.fresh };
        if slot >= self.capacity || !self.index.insert(hash, slot) {
            return Err(InsertError::Full);
        }
        let Some(record) = self.records.get_mut(slot) else { return Err(InsertError::Full) };
        if recycled {
            self.freed = record.reverse;
        } else {
            self.fresh += 1;
        }
        *record = Record::occupied(key);
        let records = self.records.as_slice();
        let destination_of = |slot: u32| records.get(slot as usize).map(|record| record.key.destination());
        self.destinations.add(slot, (key.vrf, key.destination()), destination_of);
        self.set_created(slot, 0);
        if let Some(generation) = self.generations.get_mut(slot) {
            *generation = generation.wrapping_add(1);
        }
        if let Some(word) = self.occupied.get_mut(slot as usize / 64) {
            *word |= 1 << (slot % 64);
        }
        self.len += 1;
        Ok(slot)
    }

    fn free(&mut self, slot: u32) {
        let Some(record) = self.record(slot) else { return };
        let (key, reverse) = (record.key, record.reverse);
        let hash = self.hash(&key);
        self.index.remove(hash, slot);
        self.destinations.remove(slot, (key.vrf, key.destination()));
        if reverse == NONE {
            self.lone_sources.remove(slot, (key.vrf, key.source()));
        }
        let next = self.freed;
        if let Some(record) = self.records.get_mut(slot) {
            *record = Record::vacant(next);
        }
        // Not written without need, which would touch its memory.
        if self.binding(slot) != Binding::default()
            && let Some(binding) = self.bindings.get_mut(slot)
        {
            *binding = Binding::default();
        }
        if let Some(word) = self.occupied.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
        self.freed = slot;
        self.len -= 1;
    }

    fn link(&mut self, slot: u32, reverse: u32) {
        if let Some(record) = self.records.get_mut(slot) {
            record.reverse = reverse;
        }
    }
}

/// The binding of a slot, to be read where it is needed.
#[derive(Clone, Copy)]
pub struct BindingAt<'a> {
    bindings: &'a Array<Binding>,
    slot: u32,
}

impl BindingAt<'_> {
    /// Reads it.
    #[inline(always)]
    #[must_use]
    pub fn get(self) -> Binding {
        self.bindings.get(self.slot).copied().unwrap_or_default()
    }
}

#[inline(always)]
fn ask(records: &[Record], slot: u32) {
    if let Some(record) = records.get(slot as usize) {
        prefetch::read(&record.key);
        prefetch::read(&record.packets);
    }
}
