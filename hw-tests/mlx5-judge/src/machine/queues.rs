//! Where a TIR leads: a receive queue, and the send queue that it may be bound to (hairpin).

use super::{broken::Broken, params::bits};
use crate::record::{Command, Id, Record};

/// Opcodes of the PRM.
const CREATE_TIR: u16 = 0x900;
const CREATE_SQ: u16 = 0x904;
const CREATE_RQ: u16 = 0x908;
const MODIFY_RQ: u16 = 0x909;
const CREATE_RQT: u16 = 0x916;
/// Bits before the context in the input of these commands.
const CONTEXT: usize = 256;

fn made(record: &Record, id: Id, opcode: u16) -> Result<&Command, Broken> {
    record.commands(id).iter().find(|command| command.opcode == opcode).ok_or(Broken::Missing("a queue's object"))
}

fn field(command: &Command, at: usize, width: usize) -> Result<u32, Broken> {
    let value = bits(&command.input.0, CONTEXT + at, width).ok_or(Broken::Missing("a queue's context"))?;
    u32::try_from(value).map_err(|_| Broken::Missing("a queue's context"))
}

/// The receive queue of a TIR, the first one if it spreads.
pub(super) fn receive_queue(record: &Record, tir: Id) -> Result<u32, Broken> {
    let tir = made(record, tir, CREATE_TIR)?;
    // tirc: disp_type, inline_rqn, indirect_table.
    if field(tir, 0x20, 4)? == 0 {
        return field(tir, 0xe8, 24);
    }
    let table = made(record, field(tir, 0x108, 24)?, CREATE_RQT)?;
    // rqtc: the first rq_num, behind 0xf0 bits of it and 0x6a0 reserved ones.
    field(table, 0x788, 24)
}

/// The other end of a hairpin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hairpin {
    pub(super) sqn: u32,
    pub(super) pf: i32,
}

/// Where a receive queue leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// To software.
    Ordinary,
    /// To a send queue.
    Hairpin(Hairpin),
    /// Nowhere: a hairpin that is in reset.
    Unbound,
}

/// rqc: state RDY.
const READY: u32 = 1;

/// Where a receive queue leads now: a hairpin is bound when it is made ready, and unbound when it is reset (DPDK, mlx5_trigger.c,
/// `mlx5_hairpin_queue_peer_bind` and `mlx5_hairpin_queue_peer_unbind`).
pub(super) fn queue(record: &Record, rq: u32) -> Result<Queue, Broken> {
    // rqc: hairpin.
    if field(made(record, rq, CREATE_RQ)?, 0xe, 1)? == 0 {
        return Ok(Queue::Ordinary);
    }
    let Some(last) = record.commands(rq).iter().rev().find(|command| command.opcode == MODIFY_RQ) else {
        return Ok(Queue::Unbound);
    };
    // rqc: state, hairpin_peer_sq.
    let (state, sqn) = (field(last, 8, 4)?, field(last, 0xa8, 24)?);
    if state != READY || sqn == 0 {
        return Ok(Queue::Unbound);
    }
    Ok(Queue::Hairpin(Hairpin { sqn, pf: made(record, sqn, CREATE_SQ)?.pf }))
}
