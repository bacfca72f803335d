//! Does a pattern fit into a definer of ConnectX-6 Dx's hardware steering? (DPDK, hws/mlx5dr_definer.c)
//!
//! A matcher picks double words and octets out of the layout of all headers (`mlx5_ifc_definer_hl_bits`): six double words from
//! anywhere, three more and eight octets from the first 64 double words. What needs more is E2BIG.

use super::super::item::{ETH_HAS_VLAN, IPV6_HAS_EXT, Item, ItemKind, MAX_SPEC};

const FULL: usize = 6;
const LIMITED: usize = 3;
const OCTETS: usize = 8;
/// Double words that the limited selectors and the octets' reach.
const REACH: usize = 64;

// Double words of the layout: of the outer header, and how far the inner one's is behind it.
const ETH_L2: (usize, usize) = (0, 4);
const ETH_L3: (usize, usize) = (14, 5);
const ETH_L4: (usize, usize) = (24, 2);
const OKS1: usize = 33;
const IPV4: (usize, usize) = (64, 2);
const IPV6_DST: (usize, usize) = (68, 4);
const IPV6_SRC: (usize, usize) = (76, 4);
// Their places behind the addresses are not told apart: all are out of the octets' reach.
const LABEL: usize = 100;
const PORT: usize = 110;
const META: usize = 111;
const TAGS: usize = 112;
const DOUBLE_WORDS: usize = 128;

/// Octets of the layout that a pattern matches: four bits of each double word, the first octet's the lowest.
struct Layout {
    used: [u8; DOUBLE_WORDS],
    inner: bool,
}

impl Layout {
    /// One octet of a double word.
    fn octet(&mut self, at: (usize, usize), word: usize, octet: u8) {
        self.mark(at.0 + word + if self.inner { at.1 } else { 0 }, 1 << octet);
    }

    fn mark(&mut self, word: usize, octets: u8) {
        if let Some(used) = self.used.get_mut(word) {
            *used |= octets;
        }
    }

    /// `len` octets of a mask, of which those that are not zero are matched.
    fn run(&mut self, at: (usize, usize), (word, octet): (usize, usize), mask: &[u8]) {
        for (index, _) in mask.iter().enumerate().filter(|(_, mask)| **mask != 0) {
            let place = octet + index;
            self.octet(at, word + place / 4, (place % 4) as u8);
        }
    }

    /// The whole field, if any bit of it is matched: the driver compares fields, not octets.
    fn field(&mut self, at: (usize, usize), place: (usize, usize), mask: &[u8]) {
        if mask.iter().any(|mask| *mask != 0) {
            self.run(at, place, [0xff; 16].get(..mask.len()).unwrap_or_default());
        }
    }
}

/// The mask of an item in a rule, or in a template.
fn mask_of(item: &Item) -> [u8; MAX_SPEC] {
    let mut whole = [0; MAX_SPEC];
    match (item.mask, item.spec) {
        (Some(mask), _) => whole.iter_mut().zip(mask).for_each(|(to, from)| *to = *from),
        (None, Some(_)) => whole = item.kind.default_mask(),
        (None, None) => {}
    }
    whole
}

/// Does it fit?
pub(super) fn fits(items: &[Item]) -> bool {
    let mut layout = Layout { used: [0; DOUBLE_WORDS], inner: false };
    for (at, item) in items.iter().enumerate() {
        let next = items.get(at + 1).map(|next| next.kind);
        place(&mut layout, item, next);
    }
    fit(&layout.used, 0, Selectors { full: FULL, limited: 0, octets: OCTETS })
        || fit(&layout.used, 0, Selectors { full: FULL, limited: LIMITED, octets: OCTETS })
}

fn place(layout: &mut Layout, item: &Item, next: Option<ItemKind>) {
    let mask = mask_of(item);
    let part = |at: usize, len: usize| mask.get(at..at + len).unwrap_or_default();
    let before_ip = matches!(next, Some(ItemKind::Ipv4 | ItemKind::Ipv6));
    match item.kind {
        ItemKind::Eth => {
            layout.field(ETH_L2, (0, 0), part(0, 4));
            layout.field(ETH_L2, (1, 0), part(4, 2));
            // The type is the tag's where one follows, and is the IP version's before an IP item.
            if next != Some(ItemKind::Vlan) && !before_ip {
                layout.field(ETH_L2, (1, 2), part(12, 2));
            }
            if part(ETH_HAS_VLAN, 1) != [0] {
                layout.octet(ETH_L2, 2, 1);
            }
        }
        ItemKind::Vlan => {
            layout.octet(ETH_L2, 2, 1);
            layout.field(ETH_L2, (2, 2), part(0, 2));
            if !before_ip {
                layout.field(ETH_L2, (1, 2), part(2, 2));
            }
        }
        ItemKind::Ipv4 => {
            layout.octet(ETH_L2, 2, 1);
            layout.field(ETH_L3, (0, 0), part(0, 1));
            layout.field(ETH_L3, (0, 1), part(1, 1));
            if part(6, 2) == [0x3f, 0xff] {
                layout.octet(ETH_L2, 2, 0);
            } else {
                layout.field(ETH_L3, (1, 2), part(6, 2));
            }
            layout.field(ETH_L3, (0, 2), part(8, 1));
            if !matches!(next, Some(ItemKind::Tcp | ItemKind::Udp)) {
                layout.field(ETH_L3, (0, 3), part(9, 1));
            }
            layout.field(IPV4, (0, 0), part(12, 4));
            layout.field(IPV4, (1, 0), part(16, 4));
        }
        ItemKind::Ipv6 => {
            layout.octet(ETH_L2, 2, 1);
            if part(0, 2).iter().zip([0x0f, 0xf0]).any(|(mask, class)| mask & class != 0) {
                layout.octet(ETH_L3, 0, 1);
            }
            layout.field(ETH_L3, (0, 2), part(7, 1));
            if !matches!(next, Some(ItemKind::Tcp | ItemKind::Udp)) {
                layout.field(ETH_L3, (0, 3), part(6, 1));
            }
            if part(IPV6_HAS_EXT, 1) != [0] {
                layout.octet(ETH_L4, 1, 0);
            }
            for word in 0..4 {
                layout.field(IPV6_SRC, (word, 0), part(8 + 4 * word, 4));
                layout.field(IPV6_DST, (word, 0), part(24 + 4 * word, 4));
            }
        }
        ItemKind::Udp | ItemKind::Tcp => {
            layout.octet(ETH_L2, 2, 1);
            layout.field(ETH_L4, (0, 0), part(0, 2));
            layout.field(ETH_L4, (0, 2), part(2, 2));
            if item.kind == ItemKind::Tcp {
                layout.field(ETH_L4, (1, 1), part(13, 1));
            }
        }
        ItemKind::Mpls => {
            // The port that leads to it is matched, whatever the item before says.
            layout.octet(ETH_L2, 2, 1);
            layout.run(ETH_L4, (0, 2), &[0xff; 2]);
            layout.mark(LABEL, 0xf);
            layout.inner = true;
        }
        ItemKind::Integrity => layout.mark(OKS1, 1),
        ItemKind::RepresentedPort | ItemKind::PortRepresentor | ItemKind::PortId => layout.mark(PORT, 0xf),
        ItemKind::Meta => layout.mark(META, 0xf),
        ItemKind::Tag => layout.mark(TAGS, 0xf),
        _ => {}
    }
}

/// Selectors of a definer: of any double word, of the first ones, and of single octets.
#[derive(Clone, Copy)]
struct Selectors {
    full: usize,
    limited: usize,
    octets: usize,
}

/// `mlx5dr_definer_best_hl_fit_recu`: selectors that are left for the double words from `word` on.
fn fit(used: &[u8], word: usize, left: Selectors) -> bool {
    let Selectors { full, limited, octets } = left;
    let Some(word) = (word..used.len()).find(|word| used.get(*word).is_some_and(|used| *used != 0)) else {
        return true;
    };
    let own = used.get(word).map_or(0, |used| used.count_ones() as usize);
    let near = word < REACH;
    (near && limited > 0 && fit(used, word + 1, Selectors { limited: limited - 1, ..left }))
        || (full > 0 && fit(used, word + 1, Selectors { full: full - 1, ..left }))
        || (near && own <= octets && fit(used, word + 1, Selectors { octets: octets - own, ..left }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONES: &[u8] = &[0xff; MAX_SPEC];

    fn item<'a>(kind: ItemKind, mask: &'a [u8]) -> Item<'a> {
        Item { kind, spec: None, last: None, mask: Some(mask) }
    }

    /// As the driver of DPDK 24.11.8 has answered (`tests/mlx5_judge`).
    #[test]
    fn an_address_of_ipv6_fits_and_two_do_not() {
        let port = item(ItemKind::RepresentedPort, ONES);
        let address =
            |at: usize| -> Vec<u8> { (0..44).map(|octet| 0xff * u8::from((at..at + 16).contains(&octet))).collect() };
        let (src, dst) = (address(8), address(24));
        let both: Vec<u8> = src.iter().zip(&dst).map(|(a, b)| a | b).collect();
        for (mask, fit) in [(&src, true), (&dst, true), (&both, false)] {
            assert_eq!(fits(&[port, item(ItemKind::Eth, &[0; 20]), item(ItemKind::Ipv6, mask)]), fit);
        }
    }

    #[test]
    fn both_headers_of_a_tunnel_fit_without_the_mac_address_and_not_with_it() {
        let mut ipv4 = [0; 20];
        (ipv4[0], ipv4[6], ipv4[7], ipv4[9]) = (0x0f, 0x3f, 0xff, 0xff);
        ipv4[12..20].fill(0xff);
        let inner = {
            let mut inner = ipv4;
            inner[8] = 0xff;
            inner
        };
        let mut outer = ipv4;
        outer[1] = 1;
        let mut tcp = [0; 20];
        tcp[..4].fill(0xff);
        tcp[13] = 0x17;
        let eth = |mac: bool| {
            let mut eth = [0; 20];
            if mac {
                eth[..6].fill(0xff);
            }
            eth[14] = 1;
            eth
        };
        let label = [0xff, 0xff, 0xf0, 0];
        for mac in [false, true] {
            let eth = eth(mac);
            let udp = [0, 0, 0xff, 0xff, 0, 0, 0, 0];
            let items = [
                item(ItemKind::RepresentedPort, ONES),
                item(ItemKind::Eth, &eth),
                item(ItemKind::Ipv4, &outer),
                item(ItemKind::Udp, &udp),
                item(ItemKind::Mpls, &label),
                item(ItemKind::Ipv4, &inner),
                item(ItemKind::Tcp, &tcp),
            ];
            assert_eq!(fits(&items), !mac, "MAC address: {mac}");
        }
    }
}
