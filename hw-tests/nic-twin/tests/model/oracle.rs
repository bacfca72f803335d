//! The tables against a linear scan over what the rules mean.

use nic_twin::model::{Attr, Item, ItemKind as K, RuleId};
use proptest::prelude::*;

use crate::kit::*;

/// A rule in plain terms: values under masks, and a range of destination ports.
#[derive(Debug, Clone)]
struct Plain {
    priority: u32,
    src: (u8, u8),
    dst: (u8, u8),
    tcp: Option<bool>,
    sport: (u16, u16),
    dport: Option<(u16, u16)>,
    vlan: Option<u16>,
}

#[derive(Debug, Clone)]
struct Packet {
    src: u8,
    dst: u8,
    tcp: bool,
    sport: u16,
    dport: u16,
    vlan: Option<u16>,
}

impl Plain {
    fn matches(&self, packet: &Packet) -> bool {
        let l4 = self.tcp.is_none_or(|tcp| {
            tcp == packet.tcp
                && packet.sport & self.sport.1 == self.sport.0 & self.sport.1
                && self.dport.is_none_or(|(low, high)| (low..=high).contains(&packet.dport))
        });
        l4 && packet.src & self.src.1 == self.src.0 & self.src.1
            && packet.dst & self.dst.1 == self.dst.0 & self.dst.1
            && self.vlan.is_none_or(|vlan| packet.vlan == Some(vlan))
    }

    fn insert(&self, nic: &mut nic_twin::model::Nic, number: u32) -> RuleId {
        let vlan = self.vlan.map(|vlan| fields(8, &[(0, &vlan.to_be_bytes())]));
        let (mut ip, mut l4) = ((vec![0; 20], vec![0; 20]), [[0; 4]; 3]);
        (ip.0[15], ip.1[15]) = self.src;
        (ip.0[19], ip.1[19]) = self.dst;
        l4[0][..2].copy_from_slice(&self.sport.0.to_be_bytes());
        l4[2][..2].copy_from_slice(&self.sport.1.to_be_bytes());
        if let Some((low, high)) = self.dport {
            l4[0][2..].copy_from_slice(&low.to_be_bytes());
            l4[1][2..].copy_from_slice(&high.to_be_bytes());
            l4[2][2..].fill(0xff);
        }
        let mut items = vec![plain(K::Eth)];
        items.extend(vlan.as_ref().map(|vlan| item(K::Vlan, vlan)));
        items.push(item(K::Ipv4, &ip));
        items.extend(self.tcp.map(|tcp| Item {
            kind: if tcp { K::Tcp } else { K::Udp },
            spec: Some(&l4[0]),
            last: Some(&l4[1]),
            mask: Some(&l4[2]),
        }));
        insert(nic, Attr { priority: self.priority, ..INGRESS }, &items, &mark(number)).unwrap().id
    }
}

impl Packet {
    fn octets(&self) -> Vec<u8> {
        let (src, dst) = ([10, 0, 0, self.src], [10, 0, 0, self.dst]);
        let frame = if self.tcp { tcp4 } else { udp4 }(src, dst, [self.sport, self.dport]);
        self.vlan.map_or(frame.clone(), |tag| vlan(0x8100, tag, &frame))
    }
}

fn rule() -> impl Strategy<Value = Plain> {
    let bits = || (0u8..8, prop_oneof![Just(0), Just(7), Just(4), Just(255)]);
    let dport = proptest::option::of((1u16..8, 0u16..4).prop_map(|(low, more)| (low, low + more)));
    let sport = (0u16..4, prop_oneof![Just(0), Just(0xffff), Just(1)]);
    let vlan = proptest::option::weighted(0.3, 1u16..3);
    (0u32..3, bits(), bits(), any::<Option<bool>>(), sport, dport, vlan)
        .prop_map(|(priority, src, dst, tcp, sport, dport, vlan)| Plain { priority, src, dst, tcp, sport, dport, vlan })
}

fn packet() -> impl Strategy<Value = Packet> {
    let vlan = proptest::option::weighted(0.3, 1u16..3);
    (0u8..8, 0u8..8, any::<bool>(), 0u16..4, 0u16..12, vlan).prop_map(|(src, dst, tcp, sport, dport, vlan)| Packet {
        src,
        dst,
        tcp,
        sport,
        dport,
        vlan,
    })
}

proptest! {
    #[test]
    fn the_tables_choose_the_rule_that_a_linear_scan_chooses(
        rules in proptest::collection::vec((rule(), any::<bool>()), 0..40),
        packets in proptest::collection::vec(packet(), 1..20),
    ) {
        let mut nic = nic();
        let ids: Vec<_> = (1..).zip(&rules).map(|(number, (rule, _))| rule.insert(&mut nic, number)).collect();
        for round in 0..2 {
            for packet in &packets {
                let best = (1..)
                    .zip(&rules)
                    .filter(|(_, (rule, stays))| (round == 0 || *stays) && rule.matches(packet))
                    .min_by_key(|(number, (rule, _))| (rule.priority, *number))
                    .map(|(number, _)| number);
                prop_assert_eq!(mark_of(&mut nic, &packet.octets()), best, "round {} {:?}", round, packet);
            }
            for (id, (_, stays)) in ids.iter().zip(&rules) {
                if round == 0 && !stays {
                    nic.destroy(*id).unwrap();
                }
            }
        }
    }
}
