//! Patterns: lists of `rte_flow_item`, copied so that they outlive the call.

use std::cell::RefCell;

use crate::{
    model::{EINVAL, Item, ItemKind, MAX_SPEC},
    pmd::ffi,
};

use super::error::Refusal;

// The model knows the structures by their octets.
const _: () = {
    assert!(size_of::<ffi::rte_flow_item_eth>() == ItemKind::Eth.size());
    assert!(size_of::<ffi::rte_flow_item_vlan>() == ItemKind::Vlan.size());
    assert!(size_of::<ffi::rte_flow_item_ipv4>() == ItemKind::Ipv4.size());
    assert!(size_of::<ffi::rte_flow_item_ipv6>() == ItemKind::Ipv6.size());
    assert!(size_of::<ffi::rte_flow_item_ipv6_frag_ext>() == ItemKind::Ipv6FragExt.size());
    assert!(size_of::<ffi::rte_flow_item_udp>() == ItemKind::Udp.size());
    assert!(size_of::<ffi::rte_flow_item_tcp>() == ItemKind::Tcp.size());
    assert!(size_of::<ffi::rte_flow_item_sctp>() == ItemKind::Sctp.size());
    assert!(size_of::<ffi::rte_flow_item_icmp>() == ItemKind::Icmp.size());
    assert!(size_of::<ffi::rte_flow_item_icmp6>() == ItemKind::Icmp6.size());
    assert!(size_of::<ffi::rte_flow_item_mpls>() == ItemKind::Mpls.size());
    assert!(size_of::<ffi::rte_flow_item_esp>() == ItemKind::Esp.size());
    assert!(size_of::<ffi::rte_flow_item_tag>() == ItemKind::Tag.size());
    assert!(size_of::<ffi::rte_flow_item_integrity>() == ItemKind::Integrity.size());
    assert!(size_of::<ffi::rte_flow_item_ethdev>() == ItemKind::RepresentedPort.size());
};

/// Longer patterns are no patterns.
const MOST: usize = 64;

type Octets = [u8; MAX_SPEC];

/// One item of a pattern.
#[derive(Debug, Clone)]
pub(super) struct OwnedItem {
    kind: ItemKind,
    spec: Option<Octets>,
    last: Option<Octets>,
    mask: Option<Octets>,
}

impl OwnedItem {
    /// As the NIC takes it.
    pub(super) fn item(&self) -> Item<'_> {
        let size = self.kind.size();
        Item {
            kind: self.kind,
            spec: part(self.spec.as_ref(), size),
            last: part(self.last.as_ref(), size),
            mask: part(self.mask.as_ref(), size),
        }
    }

    /// The item of a rule of a template: values of the rule, mask of the template.
    fn become_of(&mut self, template: &OwnedItem) {
        self.spec = self.spec.filter(|_| self.kind == template.kind);
        (self.kind, self.last, self.mask) = (template.kind, None, self.spec.and(template.mask));
    }
}

/// Makes the items of a rule those of its template: see [`OwnedItem`].
pub(super) fn merge(template: &[OwnedItem], rule: &mut Vec<OwnedItem>) {
    rule.truncate(template.len());
    let missing = template.iter().skip(rule.len());
    rule.extend(missing.map(|item| OwnedItem { kind: item.kind, spec: None, last: None, mask: None }));
    rule.iter_mut().zip(template).for_each(|(item, template)| item.become_of(template));
}

fn part(octets: Option<&Octets>, size: usize) -> Option<&[u8]> {
    octets?.get(..size)
}

thread_local! {
    /// Memory of patterns to use again: they are too large for the allocator's quick lists.
    static SPARE: RefCell<Vec<Vec<OwnedItem>>> = const { RefCell::new(Vec::new()) };
}
/// Patterns whose memory is kept.
const SPARES: usize = 1024;

/// Gives the memory of a pattern back.
pub(super) fn give_back(mut items: Vec<OwnedItem>) {
    items.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARES {
            spare.push(items);
        }
    });
}

/// Copies a pattern.
///
/// # Safety
/// `pattern` is null, or a list that ends with END, whose items' structures are complete.
pub(super) unsafe fn read(pattern: *const ffi::rte_flow_item) -> Result<Vec<OwnedItem>, Refusal> {
    if pattern.is_null() {
        return Err(Refusal::new(EINVAL, c"no pattern"));
    }
    let mut items = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    for index in 0..MOST {
        // SAFETY: the END has not come yet.
        let item = unsafe { &*pattern.add(index) };
        if item.type_ == ffi::RTE_FLOW_ITEM_TYPE_END {
            return Ok(items);
        }
        let kind = kind(item.type_);
        let copy = |from: *const std::ffi::c_void| {
            (!from.is_null() && kind.size() > 0).then(|| {
                let mut octets = [0; MAX_SPEC];
                // SAFETY: an item's structures have the size of its type, and that fits.
                unsafe { from.cast::<u8>().copy_to_nonoverlapping(octets.as_mut_ptr(), kind.size()) };
                octets
            })
        };
        items.push(OwnedItem { kind, spec: copy(item.spec), last: copy(item.last), mask: copy(item.mask) });
    }
    Err(Refusal::new(EINVAL, c"the pattern has no end"))
}

fn kind(number: ffi::rte_flow_item_type) -> ItemKind {
    match number {
        ffi::RTE_FLOW_ITEM_TYPE_VOID => ItemKind::Void,
        ffi::RTE_FLOW_ITEM_TYPE_ANY => ItemKind::Any,
        ffi::RTE_FLOW_ITEM_TYPE_ETH => ItemKind::Eth,
        ffi::RTE_FLOW_ITEM_TYPE_VLAN => ItemKind::Vlan,
        ffi::RTE_FLOW_ITEM_TYPE_IPV4 => ItemKind::Ipv4,
        ffi::RTE_FLOW_ITEM_TYPE_IPV6 => ItemKind::Ipv6,
        ffi::RTE_FLOW_ITEM_TYPE_IPV6_FRAG_EXT => ItemKind::Ipv6FragExt,
        ffi::RTE_FLOW_ITEM_TYPE_UDP => ItemKind::Udp,
        ffi::RTE_FLOW_ITEM_TYPE_TCP => ItemKind::Tcp,
        ffi::RTE_FLOW_ITEM_TYPE_SCTP => ItemKind::Sctp,
        ffi::RTE_FLOW_ITEM_TYPE_ICMP => ItemKind::Icmp,
        ffi::RTE_FLOW_ITEM_TYPE_ICMP6 => ItemKind::Icmp6,
        ffi::RTE_FLOW_ITEM_TYPE_MPLS => ItemKind::Mpls,
        ffi::RTE_FLOW_ITEM_TYPE_ESP => ItemKind::Esp,
        ffi::RTE_FLOW_ITEM_TYPE_MARK => ItemKind::Mark,
        ffi::RTE_FLOW_ITEM_TYPE_META => ItemKind::Meta,
        ffi::RTE_FLOW_ITEM_TYPE_TAG => ItemKind::Tag,
        ffi::RTE_FLOW_ITEM_TYPE_INTEGRITY => ItemKind::Integrity,
        ffi::RTE_FLOW_ITEM_TYPE_PORT_ID => ItemKind::PortId,
        ffi::RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT => ItemKind::RepresentedPort,
        ffi::RTE_FLOW_ITEM_TYPE_PORT_REPRESENTOR => ItemKind::PortRepresentor,
        _ => ItemKind::Other,
    }
}
