//! One action of a rule.

use super::{
    broken::Broken,
    modify,
    packet::{Counted, Packet},
    reformat,
};
use crate::record::{Action, Id};

/// Where a packet goes after its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    Drop,
    Miss,
    Table(Id),
    Vport(u32),
    Tir(Id),
    Qp(u32),
}

/// Does one action; where the packet goes, if that decides it.
pub(super) fn act(action: &Action, packet: &mut Packet) -> Result<Option<Destination>, Broken> {
    match action {
        Action::Count { counter } => {
            packet.counted.push(Counted { counter: *counter, octets: packet.data().len() as u64 });
        }
        Action::Modify { commands } => modify::modify(packet, &commands.0)?,
        Action::Reformat { reformat, data } => reformat::reformat(packet, *reformat, &data.0)?,
        Action::Pop => reformat::pop(packet)?,
        Action::Push { tag } => reformat::push(packet, *tag)?,
        Action::Tag { tag } => packet.tag = Some(*tag),
        Action::Drop => return Ok(Some(Destination::Drop)),
        Action::Miss => return Ok(Some(Destination::Miss)),
        Action::Table { table } => return Ok(Some(Destination::Table(*table))),
        Action::Vport { vport } => return Ok(Some(Destination::Vport(*vport))),
        Action::Tir { tir } => return Ok(Some(Destination::Tir(*tir))),
        Action::Qp { qp } => return Ok(Some(Destination::Qp(*qp))),
        Action::Unknown => return Err(Broken::Action("a meter, a sampler or a mirror")),
    }
    Ok(None)
}
