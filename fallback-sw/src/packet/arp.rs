//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227).
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use offload_rules::{DropReason, MacAddr};

use super::Packet;

/// Octets of an ARP packet for IPv4 over Ethernet.
pub const ARP_LEN: usize = 28;

/// What an ARP packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ArpOperation {
    /// "Who has?"
    Request,
    /// "I have."
    Reply,
}

/// An ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Arp {
    /// Request or reply.
    pub operation: ArpOperation,
    /// MAC address of the sender: a unicast address.
    pub sender_mac: MacAddr,
    /// Address of the sender; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
    /// MAC address of the target; without meaning in a request.
    pub target_mac: MacAddr,
    /// Address that is asked for, or of the one who asked.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Parses the packet behind the Ethernet header; padding behind it is ignored.
    ///
    /// # Errors
    /// [`DropReason::ArpInvalid`]: cut off, not IPv4 over Ethernet, neither request nor reply, a sender that is no single
    /// station or host, a reply from 0.0.0.0, a target that nobody can own.
    pub fn parse(payload: &[u8]) -> Result<Self, DropReason> {
        let Some((&[0, 1, 0x08, 0x00, 6, 4, 0, operation], addresses)) = payload.split_first_chunk::<8>() else {
            return Err(DropReason::ArpInvalid);
        };
        let Some(&[m0, m1, m2, m3, m4, m5, s0, s1, s2, s3, n0, n1, n2, n3, n4, n5, t0, t1, t2, t3]) =
            addresses.first_chunk::<20>()
        else {
            return Err(DropReason::ArpInvalid);
        };
        let operation = match operation {
            1 => ArpOperation::Request,
            2 => ArpOperation::Reply,
            _ => return Err(DropReason::ArpInvalid),
        };
        let arp = Self {
            operation,
            sender_mac: MacAddr([m0, m1, m2, m3, m4, m5]),
            sender: Ipv4Addr::new(s0, s1, s2, s3),
            target_mac: MacAddr([n0, n1, n2, n3, n4, n5]),
            target: Ipv4Addr::new(t0, t1, t2, t3),
        };
        if arp.is_plausible() { Ok(arp) } else { Err(DropReason::ArpInvalid) }
    }

    fn is_plausible(&self) -> bool {
        // The sender of a probe is 0.0.0.0, and so is the target of the reply to it (RFC 5227 §2.1.1).
        let (sender_may_be_nobody, target_may_be_nobody) = match self.operation {
            ArpOperation::Request => (true, false),
            ArpOperation::Reply => (false, true),
        };
        !self.sender_mac.is_multicast()
            && self.sender_mac != MacAddr::default()
            && (is_host(self.sender) || sender_may_be_nobody && self.sender.is_unspecified())
            && (is_host(self.target) || target_may_be_nobody && self.target.is_unspecified())
    }

    /// A reply.
    #[must_use]
    pub const fn is_reply(&self) -> bool {
        matches!(self.operation, ArpOperation::Reply)
    }

    /// The sender asks whether an address is taken before it uses it (RFC 5227 §2.1.1). To be answered by the one who has
    /// the address; nothing is to be learned from it.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        matches!(self.operation, ArpOperation::Request) && self.sender.is_unspecified()
    }

    /// The sender announces its own address (RFC 5227 §2.3, RFC 5944 §4.6): whoever knows it updates the MAC address.
    #[must_use]
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target
    }

    /// "Who has `target`? Tell `sender`."
    #[must_use]
    pub const fn request(sender_mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self { operation: ArpOperation::Request, sender_mac, sender, target_mac: MacAddr([0; 6]), target }
    }

    /// The question whether `address` is taken.
    #[must_use]
    pub const fn probe(mac: MacAddr, address: Ipv4Addr) -> Self {
        Self::request(mac, Ipv4Addr::UNSPECIFIED, address)
    }

    /// The answer to this request: the address asked for is at `mac`.
    #[must_use]
    pub const fn reply(&self, mac: MacAddr) -> Self {
        Self {
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// The octets behind the Ethernet header.
    #[must_use]
    pub fn octets(&self) -> [u8; ARP_LEN] {
        let MacAddr([m0, m1, m2, m3, m4, m5]) = self.sender_mac;
        let MacAddr([n0, n1, n2, n3, n4, n5]) = self.target_mac;
        let [s0, s1, s2, s3] = self.sender.octets();
        let [t0, t1, t2, t3] = self.target.octets();
        let operation = if self.is_reply() { 2 } else { 1 };
        let [o0, o1, o2, o3, o4, o5, o6, o7] = [0, 1, 0x08, 0x00, 6, 4, 0, operation];
        [
            o0, o1, o2, o3, o4, o5, o6, o7, // hardware and protocol, operation
            m0, m1, m2, m3, m4, m5, s0, s1, s2, s3, // sender
            n0, n1, n2, n3, n4, n5, t0, t1, t2, t3, // target
        ]
    }

    /// A packet that holds [`Self::octets`], with headroom for the Ethernet header.
    #[must_use]
    pub fn packet(&self) -> Packet {
        Packet::from_frame(&self.octets())
    }
}

/// An address that one host can have.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.octets()[0] == 0 || address.is_loopback() || address.is_multicast() || address.is_broadcast())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 100);
    const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);

    #[test]
    fn a_request_is_answered_to_the_one_who_asked() {
        let request = Arp::request(MAC, HOST, GATEWAY);
        assert_eq!(Arp::parse(request.packet().data()), Ok(request));
        let reply = request.reply(MacAddr::VIRTUAL);
        assert_eq!(Arp::parse(&reply.octets()), Ok(reply));
        assert_eq!(
            (reply.sender, reply.sender_mac, reply.target, reply.target_mac),
            (GATEWAY, MacAddr::VIRTUAL, HOST, MAC)
        );
    }

    #[test]
    fn the_octets_are_those_of_rfc_826_as_etherparse_reads_them() {
        let octets = Arp::request(MAC, HOST, GATEWAY).octets();
        let theirs = etherparse::ArpPacketSlice::from_slice(&octets).unwrap();
        assert_eq!(theirs.operation(), etherparse::ArpOperation::REQUEST);
        assert_eq!((theirs.sender_hw_addr(), theirs.sender_protocol_addr()), (&MAC.0[..], &HOST.octets()[..]));
        assert_eq!((theirs.target_hw_addr(), theirs.target_protocol_addr()), (&[0; 6][..], &GATEWAY.octets()[..]));
    }

    #[test]
    fn probes_and_announcements_are_told_apart() {
        let probe = Arp::probe(MAC, HOST);
        assert!(probe.is_probe() && !probe.is_gratuitous());
        assert_eq!(Arp::parse(&probe.octets()), Ok(probe));
        let gratuitous = Arp::request(MAC, HOST, HOST);
        assert!(gratuitous.is_gratuitous() && !gratuitous.is_probe());
        assert_eq!(Arp::parse(&gratuitous.octets()), Ok(gratuitous));
        let reply = probe.reply(MacAddr::VIRTUAL);
        assert_eq!(Arp::parse(&reply.octets()), Ok(reply), "the answer to a probe");
    }

    #[test]
    fn what_no_station_sends_is_invalid() {
        let good = Arp::request(MAC, HOST, GATEWAY).octets();
        for (why, at, value) in [
            ("hardware type", 1, 2),
            ("protocol type", 2, 0x86),
            ("hardware length", 4, 8),
            ("protocol length", 5, 16),
            ("operation 0", 7, 0),
            ("operation 3", 7, 3),
            ("sender's MAC is a group", 8, 1),
            ("sender is multicast", 14, 224),
            ("sender is loopback", 14, 127),
            ("target is multicast", 24, 224),
        ] {
            let mut bad = good;
            bad[at] = value;
            assert_eq!(Arp::parse(&bad), Err(DropReason::ArpInvalid), "{why}");
        }
        let reply =
            Arp { operation: ArpOperation::Reply, sender: Ipv4Addr::UNSPECIFIED, ..Arp::request(MAC, HOST, GATEWAY) };
        assert_eq!(Arp::parse(&reply.octets()), Err(DropReason::ArpInvalid), "a reply from nobody");
        for len in 0..ARP_LEN {
            assert_eq!(Arp::parse(&good[..len]), Err(DropReason::ArpInvalid), "{len} octets");
        }
        let padded = [&good[..], &[0xee; 18]].concat();
        assert!(Arp::parse(&padded).is_ok());
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_written_back_as_it_was(mut octets in any::<[u8; ARP_LEN]>(), valid in any::<bool>()) {
            if valid {
                let operation = 1 + octets[7] % 2;
                octets[..8].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, operation]);
            }
            if let Ok(arp) = Arp::parse(&octets) {
                prop_assert_eq!(arp.octets(), octets);
                prop_assert!(!arp.sender_mac.is_multicast());
            }
        }
    }
}
