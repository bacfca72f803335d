//! Modify-header commands (PRM, `set_add_copy_action_in`): eight octets each.

use super::{
    broken::Broken,
    packet::Packet,
    params::{bits, set_bits},
};

const SET: u32 = 1;
const ADD: u32 = 2;
const COPY: u32 = 3;

/// A part of a header, or of a register.
#[derive(Clone, Copy)]
enum Target {
    Register(Register),
    /// Header, octets from its begin to the field, bits to skip there, bits of the field.
    Field(Header, usize, usize, usize),
}

#[derive(Clone, Copy)]
enum Register {
    A,
    B,
    C(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Ethernet,
    Vlan,
    Ipv4,
    Ipv6,
    InnerIpv4,
    InnerIpv6,
}

/// Numbers of fields: `enum mlx5_modification_field` of DPDK's `mlx5_prm.h`. Ports and addresses are left out: with them L4 checksums
/// would have to follow, and no rule of ours writes them.
fn target(number: u32) -> Result<Target, Broken> {
    use Header::{Ethernet, InnerIpv4, InnerIpv6, Ipv4, Ipv6, Vlan};
    Ok(match number {
        0x01 => Target::Field(Ethernet, 6, 0, 32),
        0x02 => Target::Field(Ethernet, 10, 0, 16),
        0x04 => Target::Field(Ethernet, 0, 0, 32),
        0x05 => Target::Field(Ethernet, 4, 0, 16),
        0x06 => Target::Field(Ipv4, 1, 0, 6),
        0x0a => Target::Field(Ipv4, 8, 0, 8),
        0x17 => Target::Field(Vlan, 2, 4, 12),
        0x36 => Target::Field(InnerIpv4, 1, 0, 6),
        0x3a => Target::Field(InnerIpv4, 8, 0, 8),
        0x47 => Target::Field(Ipv6, 7, 0, 8),
        0x48 => Target::Field(InnerIpv6, 7, 0, 8),
        0x49 => Target::Register(Register::A),
        0x50 => Target::Register(Register::B),
        0x51..=0x58 => Target::Register(Register::C(number as usize - 0x51)),
        other => return Err(Broken::Field(other)),
    })
}

/// A run of bits in a field or register.
#[derive(Clone, Copy)]
struct Part {
    target: Target,
    /// From the lowest bit.
    offset: usize,
    /// At least 1.
    length: usize,
}

impl Part {
    fn new(number: u32, offset: u32, length: u32) -> Result<Self, Broken> {
        // A length of 0 stands for 32.
        let length = if length == 0 { 32 } else { length as usize };
        Ok(Self { target: target(number)?, offset: offset as usize, length })
    }

    fn mask(self) -> u64 {
        (1 << self.length) - 1
    }

    fn get(self, packet: &mut Packet) -> Result<u64, Broken> {
        match self.target {
            Target::Register(register) => Ok(u64::from(*place(packet, register)?) >> self.offset & self.mask()),
            Target::Field(header, octet, skip, width) => {
                let at = self.first_bit(packet, header, octet, skip, width)?;
                bits(packet.data(), at, self.length).ok_or(Broken::NoHeader(header.name()))
            }
        }
    }

    fn put(self, packet: &mut Packet, value: u64) -> Result<(), Broken> {
        match self.target {
            Target::Register(register) => {
                let place = place(packet, register)?;
                let kept = u64::from(*place) & !(self.mask() << self.offset);
                *place = (kept | (value & self.mask()) << self.offset) as u32;
                Ok(())
            }
            Target::Field(header, octet, skip, width) => {
                let at = self.first_bit(packet, header, octet, skip, width)?;
                packet.edit(|data| set_bits(data, at, self.length, value)).ok_or(Broken::NoHeader(header.name()))
            }
        }
    }

    /// The highest bit of the part, from the begin of the frame.
    fn first_bit(
        self,
        packet: &mut Packet,
        header: Header,
        octet: usize,
        skip: usize,
        width: usize,
    ) -> Result<usize, Broken> {
        let begin = header.begin(packet).ok_or(Broken::NoHeader(header.name()))?;
        let above = width.checked_sub(self.offset + self.length).ok_or(Broken::Commands)?;
        Ok((begin + octet) * 8 + skip + above)
    }
}

fn place(packet: &mut Packet, register: Register) -> Result<&mut u32, Broken> {
    let registers = &mut packet.registers;
    match register {
        Register::A => Ok(&mut registers.a),
        Register::B => Ok(&mut registers.b),
        Register::C(number) => registers.c.get_mut(number).ok_or(Broken::Commands),
    }
}

impl Header {
    fn begin(self, packet: &mut Packet) -> Option<usize> {
        let layers = packet.layers();
        let (at, version) = match self {
            Self::Ethernet => return Some(0),
            Self::Vlan => return layers.vlan,
            Self::Ipv4 => (layers.outer_l3?, 4),
            Self::Ipv6 => (layers.outer_l3?, 6),
            Self::InnerIpv4 => (layers.inner_l3?, 4),
            Self::InnerIpv6 => (layers.inner_l3?, 6),
        };
        packet.data().get(at).is_some_and(|octet| octet >> 4 == version).then_some(at)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "Ethernet",
            Self::Vlan => "VLAN",
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::InnerIpv4 => "inner IPv4",
            Self::InnerIpv6 => "inner IPv6",
        }
    }
}

/// Runs commands, one after the other.
pub(super) fn modify(packet: &mut Packet, commands: &[u8]) -> Result<(), Broken> {
    let (commands, rest) = commands.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(Broken::Commands);
    }
    for command in commands {
        let [a, b, c, d, e, f, g, h] = *command;
        let (first, second) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        let (kind, length) = (first >> 28, first & 31);
        let part = Part::new(first >> 16 & 0xfff, first >> 8 & 31, length)?;
        match kind {
            SET => part.put(packet, second.into())?,
            ADD => {
                let value = part.get(packet)?.wrapping_add(second.into());
                part.put(packet, value)?;
            }
            COPY => {
                let value = part.get(packet)?;
                Part::new(second >> 16 & 0xfff, second >> 8 & 31, length)?.put(packet, value)?;
            }
            other => return Err(Broken::Command(other)),
        }
    }
    Ok(())
}
