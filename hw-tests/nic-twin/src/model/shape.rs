//! A pattern compiled: which headers must be there, which bits of them count, and the values of those bits.
//!
//! All rules whose patterns differ in values only have one shape: they are one table, and a packet is matched against all of them
//! with one look into a hash table (tuple space search).

use super::error::{EINVAL, ENOTSUP, ErrorKind, FlowError};
use super::item::{ETH_HAS_VLAN, INTEGRITY_BITS, IPV6_HAS_EXT, Item, ItemKind, MAX_SPEC, VLAN_HAS_MORE};
use super::layers::{Layers, MAX_LABELS, MAX_VLANS, bit, check, l4_bit, slot};
use super::profile::Engine;

/// The type of a customer's tag.
const CVLAN: [u8; 2] = [0x81, 0x00];

/// What a packet carries beside its octets, laid out as octets so that matching is the same for both.
pub(crate) mod meta {
    /// Where it came from: 1 the wire, 2 the application.
    pub(crate) const FROM: usize = 0;
    /// Port, big endian as all numbers here.
    pub(crate) const PORT: usize = 2;
    pub(crate) const MARK: usize = 4;
    pub(crate) const META: usize = 8;
    pub(crate) const CHECKS: usize = 12; // and 13
    /// Bit 0: has a tag; 1: has a second; 2: has a third.
    pub(crate) const TAGGED: usize = 14;
    pub(crate) const EXTENSIONS: usize = 16; // two octets each for outer and inner, little endian
    pub(crate) const TAGS: usize = 20;
    pub(crate) const TAG_COUNT: usize = 5;
    pub(crate) const LEN: usize = 40;
    pub(crate) const WIRE: u8 = 1;
    pub(crate) const APPLICATION: u8 = 2;
}

/// Eight octets of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Word {
    pub(crate) slot: u8,
    pub(crate) at: u8,
    pub(crate) mask: u64,
}

/// A range over a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    slot: u8,
    bit: u16,
    width: u16,
    mask: u128,
    low: u128,
    high: u128,
}

/// More words than the longest pattern has.
const MAX_WORDS: usize = 48;

/// A compiled pattern, in a buffer that is used again.
#[derive(Debug, Clone)]
pub(crate) struct Compiled {
    pub(crate) required: u32,
    words: [Word; MAX_WORDS],
    key: [u64; MAX_WORDS],
    len: usize,
    pub(crate) ranges: Vec<Range>,
    /// `spec` has bits outside the mask.
    pub(crate) stray_bits: bool,
    /// The pattern asks for checks that need the payload read.
    pub(crate) deep: bool,
    /// Of mlx5: it drops `has_more_vlan` without a word, and hardware steering takes every tag for a CVLAN.
    pub(crate) engine: Option<Engine>,
    meta_mask: [u8; meta::LEN],
    meta_spec: [u8; meta::LEN],
}

/// Where in the stack of layers a pattern is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    L2,
    Vlan(usize),
    /// Level, and 4, 6 or 0 for any.
    L3(usize, u8),
    Fragment,
    /// Level; is it UDP?
    L4(usize, bool),
    Label(usize),
    Esp,
}

/// The octets of `width` bits from bit `at` on as a number, up to 128 bits; `None` beyond the end.
pub(crate) fn read_bits(octets: &[u8], at: usize, width: usize) -> Option<u128> {
    let mut value = 0u128;
    let (mut at, mut left) = (at, width);
    while left > 0 {
        let octet = *octets.get(at / 8)?;
        let in_octet = (8 - at % 8).min(left);
        let bits = (octet >> (8 - at % 8 - in_octet)) & (0xffu16 >> (8 - in_octet)) as u8;
        value = value << in_octet | u128::from(bits);
        at += in_octet;
        left -= in_octet;
    }
    Some(value)
}

fn word_at(octets: &[u8], at: usize) -> u64 {
    if let Some(Ok(word)) = octets.get(at..at + 8).map(<[u8; 8]>::try_from) {
        return u64::from_be_bytes(word);
    }
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(octets.get(at..).unwrap_or_default()) {
        *to = *from;
    }
    u64::from_be_bytes(word)
}

/// A packet as the tables see it.
pub(crate) struct View<'a> {
    pub(crate) octets: &'a [u8],
    pub(crate) layers: &'a Layers,
    pub(crate) meta: &'a [u8; meta::LEN],
}

impl View<'_> {
    fn slot(&self, slot: u8) -> &[u8] {
        if usize::from(slot) == slot::META {
            return self.meta;
        }
        let at = self.layers.at.get(usize::from(slot)).copied().unwrap_or(0);
        self.octets.get(usize::from(at)..).unwrap_or_default()
    }

    pub(crate) fn word(&self, word: &Word) -> u64 {
        word_at(self.slot(word.slot), usize::from(word.at)) & word.mask
    }

    pub(crate) fn in_ranges(&self, ranges: &[Range]) -> bool {
        ranges.iter().all(|range| {
            read_bits(self.slot(range.slot), usize::from(range.bit), usize::from(range.width))
                .is_some_and(|value| (range.low..=range.high).contains(&(value & range.mask)))
        })
    }
}

impl Default for Compiled {
    fn default() -> Compiled {
        Compiled {
            required: 0,
            words: [Word::default(); MAX_WORDS],
            key: [0; MAX_WORDS],
            len: 0,
            ranges: Vec::new(),
            stray_bits: false,
            deep: false,
            engine: None,
            meta_mask: [0; meta::LEN],
            meta_spec: [0; meta::LEN],
        }
    }
}

/// An item's three structures, whole and with the default mask in place.
struct Full {
    spec: [u8; MAX_SPEC],
    last: [u8; MAX_SPEC],
    mask: [u8; MAX_SPEC],
}

fn whole(octets: Option<&[u8]>, size: usize) -> [u8; MAX_SPEC] {
    let mut out = [0; MAX_SPEC];
    if let Some(octets) = octets {
        let len = octets.len().min(size);
        if let (Some(to), Some(from)) = (out.get_mut(..len), octets.get(..len)) {
            to.copy_from_slice(from);
        }
    }
    out
}

/// The mask that an item has in effect: its own, else the default where there is a spec, else none.
pub(crate) fn effective_mask(item: &Item) -> [u8; MAX_SPEC] {
    match (item.spec, item.mask) {
        (Some(_), Some(mask)) => whole(Some(mask), item.kind.size()),
        (Some(_), None) => item.kind.default_mask(),
        (None, _) => [0; MAX_SPEC],
    }
}

impl Compiled {
    pub(crate) fn words(&self) -> &[Word] {
        self.words.get(..self.len).unwrap_or_default()
    }

    pub(crate) fn key(&self) -> &[u64] {
        self.key.get(..self.len).unwrap_or_default()
    }

    /// Compiles a pattern.
    ///
    /// # Errors
    /// The guide's rules on spec, last and mask, and on the order of layers.
    pub(crate) fn compile(&mut self, pattern: &[Item], transfer: bool) -> Result<(), FlowError> {
        self.required = 0;
        self.len = 0;
        self.ranges.clear();
        self.stray_bits = false;
        self.deep = false;
        self.meta_mask = [0; meta::LEN];
        self.meta_spec = [0; meta::LEN];
        let mut place = Place::Start;
        for (index, item) in pattern.iter().enumerate() {
            if item.kind == ItemKind::Void {
                continue;
            }
            let mut full = full(item, index)?;
            let tagged = pattern.get(index + 1).is_some_and(|next| next.kind == ItemKind::Vlan);
            if self.engine == Some(Engine::Hardware) && item.kind == ItemKind::Eth && tagged {
                full.spec[12..14].copy_from_slice(&CVLAN);
            }
            if self.metadata(item.kind, &full, index, transfer)? {
                continue;
            }
            let (next, slot, bits) = step(place, item, &full, index)?;
            place = next;
            self.required |= bits;
            self.flags(item.kind, slot, &full);
            self.header(item.kind, slot, full, index)?;
        }
        let (mask, spec) = (self.meta_mask, self.meta_spec);
        self.add_words(slot::META, &mask, &spec);
        Ok(())
    }

    /// Flag bits that the parser answers and not the wire.
    fn flags(&mut self, kind: ItemKind, slot: usize, full: &Full) {
        let (to, bits) = match kind {
            ItemKind::Eth => (meta::TAGGED, (full.mask[ETH_HAS_VLAN] & 1, full.spec[ETH_HAS_VLAN] & 1)),
            ItemKind::Vlan if self.engine.is_some() => return,
            ItemKind::Vlan => {
                let shift = slot + 1 - slot::VLAN;
                (meta::TAGGED, ((full.mask[VLAN_HAS_MORE] & 1) << shift, (full.spec[VLAN_HAS_MORE] & 1) << shift))
            }
            ItemKind::Ipv6 => {
                let to = meta::EXTENSIONS + if slot == slot::L3[0] { 0 } else { 2 };
                self.meta_mask[to + 1] |= full.mask[IPV6_HAS_EXT + 1] & 1;
                self.meta_spec[to + 1] |= full.spec[IPV6_HAS_EXT + 1] & full.mask[IPV6_HAS_EXT + 1] & 1;
                (to, (full.mask[IPV6_HAS_EXT], full.spec[IPV6_HAS_EXT]))
            }
            _ => return,
        };
        self.meta_mask[to] |= bits.0;
        self.meta_spec[to] |= bits.1 & bits.0;
    }

    /// Bits of a header: ranges apart, the rest as words.
    fn header(&mut self, kind: ItemKind, slot: usize, mut full: Full, index: usize) -> Result<(), FlowError> {
        let wire = kind.wire();
        if full.last.iter().any(|&octet| octet != 0) {
            for field in kind.fields() {
                let (at, width) = (usize::from(field.bit), usize::from(field.width));
                let read = |octets: &[u8]| read_bits(octets, at, width).unwrap_or_default();
                let mask = read(&full.mask);
                let (low, high) = (read(&full.spec) & mask, read(&full.last) & mask);
                // Zero, or equal to spec: no range.
                if read(&full.last) == 0 || high == low || mask == 0 {
                    continue;
                }
                if high < low {
                    let message = c"last is below spec";
                    return Err(FlowError::item(EINVAL, ErrorKind::ItemLast, index, message));
                }
                self.ranges.push(Range { slot: slot as u8, bit: field.bit, width: field.width, mask, low, high });
                for bit in at..at + width {
                    if let Some(octet) = full.mask.get_mut(bit / 8) {
                        *octet &= !(0x80 >> (bit % 8));
                    }
                }
            }
        }
        if let (Some(mask), Some(spec)) = (full.mask.get(..wire), full.spec.get(..wire)) {
            self.add_words(slot, mask, spec);
        }
        Ok(())
    }

    fn add_words(&mut self, slot: usize, mask: &[u8], spec: &[u8]) {
        let mut at = 0;
        while at < mask.len() {
            if mask.get(at).is_none_or(|&octet| octet == 0) {
                at += 1;
                continue;
            }
            let bits = word_at(mask, at);
            if let (Some(word), Some(key)) = (self.words.get_mut(self.len), self.key.get_mut(self.len)) {
                *word = Word { slot: slot as u8, at: at as u8, mask: bits };
                *key = word_at(spec, at) & bits;
                self.len += 1;
            }
            at += 8;
        }
    }

    fn set_meta(&mut self, at: usize, mask: &[u8], spec: &[u8]) {
        for (offset, (&mask, &spec)) in mask.iter().zip(spec).enumerate() {
            if let (Some(to_mask), Some(to_spec)) =
                (self.meta_mask.get_mut(at + offset), self.meta_spec.get_mut(at + offset))
            {
                *to_mask |= mask;
                *to_spec |= spec & mask;
            }
        }
    }

    /// Items about metadata, which can stand anywhere. Answers whether the item was one.
    fn metadata(&mut self, kind: ItemKind, full: &Full, index: usize, transfer: bool) -> Result<bool, FlowError> {
        let number = |octets: &[u8; MAX_SPEC]| u32::from_le_bytes([octets[0], octets[1], octets[2], octets[3]]);
        let (mask, spec, last) = (number(&full.mask), number(&full.spec), number(&full.last));
        let at = match kind {
            ItemKind::Mark => meta::MARK,
            ItemKind::Meta => meta::META,
            ItemKind::Tag => {
                let tag = usize::from(full.spec[4]);
                if tag >= meta::TAG_COUNT {
                    return Err(FlowError::item(EINVAL, ErrorKind::ItemSpec, index, c"no tag of this index"));
                }
                meta::TAGS + 4 * tag
            }
            ItemKind::Integrity => {
                let inner = u32::from_le_bytes([full.spec[0], full.spec[1], full.spec[2], full.spec[3]]) > 1;
                let (mask, spec) = (full.mask[INTEGRITY_BITS], full.spec[INTEGRITY_BITS]);
                self.set_meta(meta::CHECKS + usize::from(inner), &[mask], &[spec]);
                self.deep |= mask & check::DEEP != 0;
                return Ok(true);
            }
            ItemKind::PortId | ItemKind::RepresentedPort | ItemKind::PortRepresentor => {
                self.port(kind, PortField { mask, spec, last }, index, transfer)?;
                return Ok(true);
            }
            _ => return Ok(false),
        };
        if self.meta_mask.get(at..at + 4).is_some_and(|mask| mask.iter().any(|&octet| octet != 0)) {
            return Err(FlowError::item(EINVAL, ErrorKind::Item, index, c"this metadata is matched twice"));
        }
        let (low, high) = (spec & mask, last & mask);
        if last != 0 && high != low && mask != 0 {
            if high < low {
                return Err(FlowError::item(EINVAL, ErrorKind::ItemLast, index, c"last is below spec"));
            }
            self.ranges.push(Range {
                slot: slot::META as u8,
                bit: (at * 8) as u16,
                width: 32,
                mask: mask.into(),
                low: low.into(),
                high: high.into(),
            });
        } else {
            self.set_meta(at, &mask.to_be_bytes(), &spec.to_be_bytes());
        }
        Ok(true)
    }

    fn port(&mut self, kind: ItemKind, field: PortField, index: usize, transfer: bool) -> Result<(), FlowError> {
        let PortField { mask, spec, last } = field;
        if !transfer && kind != ItemKind::PortId {
            return Err(FlowError::item(EINVAL, ErrorKind::Item, index, c"this item requires the transfer attribute"));
        }
        if last != 0 && last & mask != spec & mask {
            return Err(FlowError::item(ENOTSUP, ErrorKind::ItemLast, index, c"no ranges of ports"));
        }
        if self.meta_mask[meta::FROM] != 0 {
            return Err(FlowError::item(EINVAL, ErrorKind::Item, index, c"the port is matched twice"));
        }
        let (Ok(spec), mask) = (u16::try_from(spec & mask), mask as u16) else {
            return Err(FlowError::item(EINVAL, ErrorKind::ItemSpec, index, c"no port has this number"));
        };
        let from = if kind == ItemKind::PortRepresentor { meta::APPLICATION } else { meta::WIRE };
        self.set_meta(meta::FROM, &[0xff], &[from]);
        self.set_meta(meta::PORT, &mask.to_be_bytes(), &spec.to_be_bytes());
        Ok(())
    }
}

/// The number of a port in an item.
struct PortField {
    mask: u32,
    spec: u32,
    last: u32,
}

fn full(item: &Item, index: usize) -> Result<Full, FlowError> {
    if item.spec.is_none() {
        if item.mask.is_some() {
            return Err(FlowError::item(EINVAL, ErrorKind::ItemMask, index, c"a mask without a spec"));
        }
        if item.last.is_some() {
            return Err(FlowError::item(EINVAL, ErrorKind::ItemLast, index, c"a last without a spec"));
        }
    }
    let size = item.kind.size();
    Ok(Full { spec: whole(item.spec, size), last: whole(item.last, size), mask: effective_mask(item) })
}

/// Does the spec have bits outside the mask?
pub(crate) fn has_stray_bits(item: &Item) -> bool {
    // Level of an integrity item and index of a tag are no bits to match; and a spec may be all there is.
    let skip = matches!(item.kind, ItemKind::Integrity | ItemKind::Tag | ItemKind::Any | ItemKind::Void);
    let mask = effective_mask(item);
    !skip && item.spec.is_some_and(|spec| spec.iter().zip(mask).any(|(&spec, mask)| spec & !mask != 0))
}

/// The layer of an item on top of what is below it: next place, slot, bits that must be there.
fn step(place: Place, item: &Item, full: &Full, index: usize) -> Result<(Place, usize, u32), FlowError> {
    let refuse = |errno, message| Err(FlowError::item(errno, ErrorKind::Item, index, message));
    let l3 = |level: usize, version: u8| {
        let family = match version {
            4 => bit::IPV4,
            6 => bit::IPV6,
            _ => bit::L3,
        };
        Ok((Place::L3(level, version), slot::L3[level], family << (bit::INNER * level as u32)))
    };
    let l4 = |level: usize, kind: ItemKind| {
        let bits = if kind == ItemKind::Any { bit::L4 } else { l4_bit(kind) };
        Ok((Place::L4(level, kind == ItemKind::Udp), slot::L4[level], bits << (bit::INNER * level as u32)))
    };
    match (item.kind, place) {
        (ItemKind::Eth, Place::Start) => Ok((Place::L2, slot::ETH, bit::ETH)),
        (ItemKind::Vlan, Place::Start | Place::L2) => Ok((Place::Vlan(0), slot::VLAN, bit::VLAN)),
        (ItemKind::Vlan, Place::Vlan(tag)) if tag + 1 < MAX_VLANS => {
            Ok((Place::Vlan(tag + 1), slot::VLAN + tag + 1, bit::VLAN << (tag + 1)))
        }
        (ItemKind::Vlan, Place::Vlan(_)) => refuse(ENOTSUP, c"more tags than this NIC parses"),
        (ItemKind::Ipv4, Place::Start | Place::L2 | Place::Vlan(_)) => l3(0, 4),
        (ItemKind::Ipv6, Place::Start | Place::L2 | Place::Vlan(_)) => l3(0, 6),
        (ItemKind::Ipv4, Place::Label(_)) => l3(1, 4),
        (ItemKind::Ipv6, Place::Label(_)) => l3(1, 6),
        (ItemKind::Ipv6FragExt, Place::L3(level, 6)) => {
            Ok((Place::Fragment, slot::FRAGMENT[level], bit::FRAGMENT << (bit::INNER * level as u32)))
        }
        (ItemKind::Any, _) if full.spec[0] != 1 || full.mask[0] == 0 || full.last[0] > 1 => {
            refuse(ENOTSUP, c"ANY stands for exactly one layer here")
        }
        (ItemKind::Any, Place::Start) => Ok((Place::L2, slot::ETH, bit::ETH)),
        (ItemKind::Any, Place::L2 | Place::Vlan(_)) => l3(0, 0),
        (ItemKind::Any, Place::Label(_)) => l3(1, 0),
        (ItemKind::Any, Place::L3(level, _)) => l4(level, ItemKind::Any),
        (ItemKind::Icmp, Place::L3(_, 6)) | (ItemKind::Icmp6, Place::L3(_, 4)) => {
            refuse(EINVAL, c"ICMP of the other IP version")
        }
        (ItemKind::Udp | ItemKind::Tcp | ItemKind::Sctp | ItemKind::Icmp | ItemKind::Icmp6, Place::L3(level, _)) => {
            l4(level, item.kind)
        }
        (ItemKind::Udp | ItemKind::Tcp | ItemKind::Sctp | ItemKind::Icmp | ItemKind::Icmp6, Place::Start) => {
            l4(0, item.kind)
        }
        (ItemKind::Esp, Place::Start | Place::L3(0, _) | Place::L4(0, true)) => Ok((Place::Esp, slot::ESP, bit::ESP)),
        (ItemKind::Mpls, Place::Start | Place::L4(0, true)) => Ok((Place::Label(0), slot::MPLS, bit::MPLS)),
        (ItemKind::Mpls, Place::Label(depth)) if depth + 1 < MAX_LABELS => {
            Ok((Place::Label(depth + 1), slot::MPLS + depth + 1, bit::MPLS << (depth + 1)))
        }
        (ItemKind::Mpls, Place::Label(_)) => refuse(ENOTSUP, c"more labels than this NIC parses"),
        (ItemKind::Other, _) => refuse(ENOTSUP, c"this NIC does not know this item"),
        (ItemKind::Udp | ItemKind::Tcp | ItemKind::Sctp | ItemKind::Esp, Place::L2 | Place::Vlan(_)) => {
            refuse(EINVAL, c"the L3 layer is missing")
        }
        _ => refuse(EINVAL, c"this item cannot follow the one before it"),
    }
}
