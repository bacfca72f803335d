//! One SA as both ends know it.

use proto::v1;

use super::peer::KernelPeer;
use crate::lab::LabError;

/// How ESP goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// As IP protocol 50.
    Esp,
    /// In UDP between ports 4500 (RFC 3948).
    EspInUdp,
}

/// Which way an SA protects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the node to the machine.
    ToPeer,
    /// From the machine to the node.
    ToNode,
}

/// AES-256-GCM with a check value of 16 octets, ESN, and a window of 1024 packets.
#[derive(Debug, Clone, Copy)]
pub struct SharedSa {
    /// Which of its direction: gives it its id, SPI and key.
    pub number: u8,
    /// Which way it protects.
    pub direction: Direction,
    /// Number of its first packet.
    pub first: u64,
}

/// How an SA stands in the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaAtPeer {
    /// Sealed, or opened.
    pub packets: u64,
    /// Octets of the packets inside.
    pub bytes: u64,
    /// Left of the window.
    pub replay_old: u64,
    /// Received before.
    pub replay_duplicate: u64,
    /// Not authentic.
    pub authentication_failed: u64,
}

impl SharedSa {
    /// One for each direction, with numbers from 1.
    #[must_use]
    pub const fn pair(number: u8) -> [Self; 2] {
        Self::pair_from(number, 1)
    }

    /// One for each direction whose first packets have this number.
    #[must_use]
    pub const fn pair_from(number: u8, first: u64) -> [Self; 2] {
        [Self { number, direction: Direction::ToPeer, first }, Self { number, direction: Direction::ToNode, first }]
    }

    /// Its id at the node.
    #[must_use]
    pub const fn id(&self) -> u32 {
        let base = match self.direction {
            Direction::ToPeer => 0x100,
            Direction::ToNode => 0x200,
        };
        base + self.number as u32
    }

    /// Its SPI.
    #[must_use]
    pub const fn spi(&self) -> u32 {
        0xc000_0000 + self.id()
    }

    /// Key and salt in hexadecimal.
    fn key(&self) -> String {
        (0..36_u32).map(|octet| format!("{:02x}", (octet * 7 + self.id() * 31 + self.id() / 0x100) & 0xff)).collect()
    }

    pub(super) fn at_node(&self) -> v1::SecurityAssociation {
        let (direction, first_sequence) = match self.direction {
            Direction::ToPeer => (v1::SaDirection::Outbound, self.first),
            Direction::ToNode => (v1::SaDirection::Inbound, 0),
        };
        v1::SecurityAssociation {
            id: self.id(),
            spi: self.spi(),
            direction: direction.into(),
            key: self.key(),
            esn: true,
            first_sequence,
            ..Default::default()
        }
    }

    /// How `ip xfrm state` tells it from others.
    pub(super) fn name(&self) -> String {
        let [node, peer] = KernelPeer::ENDS;
        let (from, to) = match self.direction {
            Direction::ToPeer => (node, peer),
            Direction::ToNode => (peer, node),
        };
        format!("src {from} dst {to} proto esp spi {:#x}", self.spi())
    }

    /// The command that adds it in the machine.
    pub(super) fn add(&self, outside: Outside) -> String {
        // The kernel is told the last number used.
        let last = self.first - 1;
        let first = match self.direction {
            Direction::ToPeer => String::new(),
            Direction::ToNode => format!("replay-oseq {} replay-oseq-hi {}", last & 0xffff_ffff, last >> 32),
        };
        let encap = match outside {
            Outside::Esp => "",
            Outside::EspInUdp => "encap espinudp 4500 4500 0.0.0.0",
        };
        format!(
            "ip xfrm state add {} reqid 1 mode tunnel replay-window 1024 {first} flag esn flag af-unspec \
             aead 'rfc4106(gcm(aes))' 0x{} 128 {encap}",
            self.name(),
            self.key()
        )
    }
}

impl SaAtPeer {
    /// Reads what `ip -s xfrm state get` prints.
    pub(super) fn read(command: &str, text: &str) -> Result<Self, LabError> {
        let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()).collect();
        // "840(bytes), 10(packets)", for the first time under "lifetime current".
        let current = |unit: &str| {
            let after = words.iter().skip_while(|word| **word != "current:");
            after.filter_map(|word| word.strip_suffix(unit)).next()?.parse::<u64>().ok()
        };
        // "stats:" "replay-window 0 replay 0 failed 0"
        let counted = |name: &str| {
            let after = words.iter().skip_while(|word| **word != "stats:");
            after.skip_while(|word| **word != name).nth(1)?.parse::<u64>().ok()
        };
        let read = || {
            Some(Self {
                packets: current("(packets)")?,
                bytes: current("(bytes)")?,
                replay_old: counted("replay-window")?,
                replay_duplicate: counted("replay")?,
                authentication_failed: counted("failed")?,
            })
        };
        read().ok_or_else(|| LabError::Unexpected {
            command: command.to_owned(),
            expected: "an SA's lifetime and statistics",
            output: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_says_of_an_sa_is_read_and_anything_else_refused() {
        let text = "src 172.28.13.36 dst 172.28.23.36\n\tproto esp spi 0xc0000101 reqid 1 mode tunnel\n\treplay-window 0 seq 0 \
                    flag af-unspec esn\n\tlifetime config:\n\t  limit: soft (INF)(bytes), hard (INF)(bytes)\n\tlifetime \
                    current:\n\t  312(bytes), 3(packets)\n\t  add 2026-11-27 00:13:28 use -\n\tstats:\n\t  replay-window 4 \
                    replay 5 failed 6\n";
        let read = SaAtPeer::read("ip", text).unwrap();
        let wanted = SaAtPeer { packets: 3, bytes: 312, replay_old: 4, replay_duplicate: 5, authentication_failed: 6 };
        assert_eq!(read, wanted);
        assert!(SaAtPeer::read("ip", "RTNETLINK answers: No such process").is_err());
    }

    #[test]
    fn no_two_sas_have_a_key_or_an_index_in_common() {
        let all: Vec<SharedSa> = (1..=20).flat_map(SharedSa::pair).collect();
        for (at, sa) in all.iter().enumerate() {
            assert_eq!(sa.key().len(), 72);
            assert!(all.iter().skip(at + 1).all(|other| other.key() != sa.key() && other.spi() != sa.spi()));
        }
    }
}
