//! A packet on its way through the device.

use super::{
    checksum,
    params::{Params, REGISTER_A, REGISTER_B, REGISTERS_C, SOURCE_PORT, SOURCE_SQN},
    parse::{Layers, parse},
};
use crate::record::Counter;

/// Metadata registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Registers {
    /// Metadata from the sender.
    pub a: u32,
    /// Metadata for the receiver.
    pub b: u32,
    /// C0 to C7, between tables.
    pub c: [u32; 8],
}

/// A counter that a packet has met, and the octets it had there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The counter.
    pub counter: Counter,
    /// Octets of the frame, without FCS.
    pub octets: u64,
}

/// A frame and what the device knows of it.
#[derive(Debug, Clone)]
pub struct Packet {
    data: Vec<u8>,
    layers: Option<Layers>,
    /// Port of the switch by which it came; [`super::UPLINK`]: the wire.
    pub vport: u16,
    /// The send queue by which it came, if it did.
    pub sqn: u32,
    /// Registers.
    pub registers: Registers,
    /// The mark for software.
    pub tag: Option<u32>,
    /// What has counted it.
    pub counted: Vec<Counted>,
}

impl Packet {
    /// A frame that came by this port of the switch.
    #[must_use]
    pub fn new(data: &[u8], vport: u16) -> Self {
        Self {
            data: data.to_vec(),
            layers: None,
            vport,
            sqn: 0,
            registers: Registers::default(),
            tag: None,
            counted: Vec::new(),
        }
    }

    /// The frame as it is now.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The frame as it is now, without what else is known of it.
    #[must_use]
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// What the parser sees of it as it is now.
    pub fn layers(&mut self) -> &Layers {
        self.layers.get_or_insert_with(|| parse(&self.data))
    }

    /// What matchers look at.
    #[must_use]
    pub fn params(&mut self) -> Params {
        let mut fields = self.layers().fields.clone();
        fields.set(SOURCE_PORT, self.vport.into());
        fields.set(SOURCE_SQN, self.sqn.into());
        fields.set(REGISTER_A, self.registers.a.into());
        fields.set(REGISTER_B, self.registers.b.into());
        for (field, value) in REGISTERS_C.into_iter().zip(self.registers.c) {
            fields.set(field, value.into());
        }
        fields
    }

    /// Puts other octets in place of all.
    pub(super) fn replace(&mut self, data: Vec<u8>) {
        self.data = data;
        self.layers = None;
    }

    /// Changes octets in place; a change within an IPv4 header changes its checksum.
    pub(super) fn edit<T>(&mut self, change: impl FnOnce(&mut [u8]) -> T) -> T {
        let headers = [self.layers().outer_l3, self.layers().inner_l3].into_iter().flatten();
        let headers: Vec<_> = headers.filter_map(|at| Some((at, self.ipv4_header(at)?))).collect();
        let result = change(&mut self.data);
        for (at, before) in headers {
            let Some(after) = self.ipv4_header(at).filter(|after| *after != before) else { continue };
            let checksum = u16::from_be_bytes([before[10], before[11]]);
            let followed = checksum::follow(checksum, &before, &after);
            if let Some(place) = self.data.get_mut(at + 10..at + 12) {
                place.copy_from_slice(&followed.to_be_bytes());
            }
        }
        self.layers = None;
        result
    }

    fn ipv4_header(&self, at: usize) -> Option<[u8; 20]> {
        self.data.get(at..)?.first_chunk().copied().filter(|header: &[u8; 20]| header[0] >> 4 == 4)
    }
}
