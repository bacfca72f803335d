//! One action of a rule.

use super::{
    modify,
    packet::{Counted, Packet},
    reformat,
};
use crate::record::{Action, Id};

/// What the device can't do with a packet as it is asked: the rule is not what its maker thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The header that is to be written or taken off is not there.
    #[error("there is no {0} header")]
    NoHeader(&'static str),
    /// A field that no rule of ours writes.
    #[error("modify-header field {0:#x} is not modelled")]
    Field(u32),
    /// An operation that no rule of ours uses.
    #[error("modify-header operation {0} is not modelled")]
    Command(u32),
    /// Not whole, or bits that a field does not have.
    #[error("modify-header commands beyond their field")]
    Commands,
    /// An action that no rule of ours uses.
    #[error("{0} is not modelled")]
    Action(&'static str),
    /// What is named is not in the record.
    #[error("{0} is not in the record")]
    Missing(&'static str),
    /// From table to table without end.
    #[error("tables lead to each other without end")]
    Endless,
}

/// Where a packet goes behind its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Drop,
    Miss,
    Table(Id),
    Vport(u32),
    Tir(Id),
    Qp(u32),
}

/// Does one action; where the packet goes, if that decides it.
pub(super) fn act(action: &Action, packet: &mut Packet) -> Result<Option<Way>, Broken> {
    match action {
        Action::Count { counter } => {
            packet.counted.push(Counted { counter: *counter, octets: packet.data().len() as u64 });
        }
        Action::Modify { commands } => modify::modify(packet, &commands.0)?,
        Action::Reformat { reformat, data } => reformat::reformat(packet, *reformat, &data.0)?,
        Action::Pop => reformat::pop(packet)?,
        Action::Push { tag } => reformat::push(packet, *tag)?,
        Action::Tag { tag } => packet.tag = Some(*tag),
        Action::Drop => return Ok(Some(Way::Drop)),
        Action::Miss => return Ok(Some(Way::Miss)),
        Action::Table { table } => return Ok(Some(Way::Table(*table))),
        Action::Vport { vport } => return Ok(Some(Way::Vport(*vport))),
        Action::Tir { tir } => return Ok(Some(Way::Tir(*tir))),
        Action::Qp { qp } => return Ok(Some(Way::Qp(*qp))),
        Action::Unknown => return Err(Broken::Action("a meter, a sampler or a mirror")),
    }
    Ok(None)
}
