//! A frame's way: the switch, the receive side, queues, the send side.

use super::{
    action::{Destination, act},
    broken::Broken,
    packet::{Counted, Packet, Registers},
    queues::{Queue, queue, receive_queue},
};
use crate::record::{Action, DomainKind, Id, Place, Record, ReformatKind};

/// Number of the wire among the ports of a switch.
pub const UPLINK: u16 = 0xffff;
/// Tables that a packet may go through: more than any chain of ours.
const MOST_TABLES: usize = 64;

/// A port of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The physical function.
    pub pf: i32,
    /// [`UPLINK`], or the number of a function.
    pub vport: u16,
}

/// A table that a packet has been in, and the rule that it met there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The table.
    pub place: Place,
    /// `None`: no rule matched.
    pub rule: Option<Id>,
}

/// A frame that the device drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// A rule says so.
    Drop,
    /// From the wire to the wire: rdma-core drops it and tells nobody (`dr_action.c`, `dr_action_create_vport` of the uplink).
    WireToWire,
    /// No rule of the receive side gives it to a queue of the program.
    Unreceived,
    /// Its queue is a hairpin that is bound to no other.
    Unbound,
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Software gets it, as it is then.
    Software(Vec<u8>),
    /// It leaves by a port.
    Sent(Port, Vec<u8>),
    /// It has no receiver.
    Lost(Lost),
    /// A rule that can't be done.
    Broken(Broken),
}

/// A frame's way through the device.
#[derive(Debug, Clone)]
pub struct Passage {
    /// What became of it.
    pub outcome: Outcome,
    /// The mark, for software.
    pub tag: Option<u32>,
    /// Registers at the end.
    pub registers: Registers,
    /// What has counted it.
    pub counted: Vec<Counted>,
    /// The tables on its way.
    pub steps: Vec<Step>,
}

/// How a domain ends for a packet.
enum End {
    Drop,
    Miss,
    Vport(u32),
    Tir(Id),
    Qp,
}

/// Where a packet goes next.
enum Next {
    Over(Outcome),
    Software,
}

/// A frame comes by a port: from the wire, or from the function behind a representor.
#[must_use]
pub fn receive(record: &Record, port: Port, frame: &[u8]) -> Passage {
    let mut packet = Packet::new(frame, port.vport);
    let mut steps = Vec::new();
    let outcome = received(record, port, &mut packet, &mut steps).unwrap_or_else(Outcome::Broken);
    passage(outcome, packet, steps)
}

/// Software sends a frame by a port. What a representor sends goes to its function, whatever the rules of the switch: those name the
/// port that packets come by. Without a switch it meets the rules of the send side.
#[must_use]
pub fn transmit(record: &Record, port: Port, frame: &[u8]) -> Passage {
    let mut packet = Packet::new(frame, port.vport);
    let mut steps = Vec::new();
    let outcome = if record.has_switch(port.pf) {
        Outcome::Sent(port, frame.to_vec())
    } else {
        sent(record, port.pf, &mut packet, &mut steps).unwrap_or_else(Outcome::Broken)
    };
    passage(outcome, packet, steps)
}

fn passage(outcome: Outcome, packet: Packet, steps: Vec<Step>) -> Passage {
    Passage { outcome, tag: packet.tag, registers: packet.registers, counted: packet.counted, steps }
}

fn received(record: &Record, port: Port, packet: &mut Packet, steps: &mut Vec<Step>) -> Result<Outcome, Broken> {
    if record.has_switch(port.pf)
        && let Next::Over(outcome) = switched(record, port, packet, steps)?
    {
        return Ok(outcome);
    }
    let Some(root) = record.root(port.pf, DomainKind::Rx) else { return Ok(Outcome::Lost(Lost::Unreceived)) };
    match run(record, packet, root, steps)? {
        End::Drop => Ok(Outcome::Lost(Lost::Drop)),
        End::Miss => Ok(Outcome::Lost(Lost::Unreceived)),
        End::Vport(_) => Err(Broken::Action("a port of the switch as the end of the receive side")),
        End::Qp => Ok(Outcome::Software(packet.data().to_vec())),
        End::Tir(tir) => match queue(record, receive_queue(record, tir)?)? {
            Queue::Ordinary => Ok(Outcome::Software(packet.data().to_vec())),
            Queue::Unbound => Ok(Outcome::Lost(Lost::Unbound)),
            Queue::Hairpin(to) => {
                // Of the registers B alone gets to the other side, as A.
                packet.registers = Registers { a: packet.registers.b, ..Registers::default() };
                (packet.sqn, packet.vport) = (to.sqn, 0);
                sent(record, to.pf, packet, steps)
            }
        },
    }
}

/// The switch. Port 1 of it is the wire, function N port N + 1; its number is in C0, by which rules know where packets come from.
fn switched(record: &Record, port: Port, packet: &mut Packet, steps: &mut Vec<Step>) -> Result<Next, Broken> {
    let Some(root) = record.root(port.pf, DomainKind::Fdb) else { return Ok(Next::Software) };
    let number = if port.vport == UPLINK { 1 } else { u32::from(port.vport) + 1 };
    packet.registers.c[0] = (port.pf.unsigned_abs() << 12 | number) << 16;
    Ok(match run(record, packet, root, steps)? {
        End::Miss => Next::Software,
        End::Drop => Next::Over(Outcome::Lost(Lost::Drop)),
        End::Tir(_) | End::Qp => return Err(Broken::Action("a queue as the end of the switch")),
        End::Vport(to) => {
            let vport = u16::try_from(to).map_err(|_| Broken::Missing("a port of the switch"))?;
            Next::Over(if vport == UPLINK && port.vport == UPLINK {
                Outcome::Lost(Lost::WireToWire)
            } else {
                Outcome::Sent(Port { pf: port.pf, vport }, packet.data().to_vec())
            })
        }
    })
}

/// The send side of a function without a switch: what no rule decides leaves by the wire.
fn sent(record: &Record, pf: i32, packet: &mut Packet, steps: &mut Vec<Step>) -> Result<Outcome, Broken> {
    let end = match record.root(pf, DomainKind::Tx) {
        Some(root) => run(record, packet, root, steps)?,
        None => End::Miss,
    };
    match end {
        End::Miss => Ok(Outcome::Sent(Port { pf, vport: UPLINK }, packet.data().to_vec())),
        End::Drop => Ok(Outcome::Lost(Lost::Drop)),
        End::Vport(_) | End::Tir(_) | End::Qp => Err(Broken::Action("a queue or a port as the end of the send side")),
    }
}

/// The tables of a domain, from its root.
fn run(record: &Record, packet: &mut Packet, root: Place, steps: &mut Vec<Step>) -> Result<End, Broken> {
    let mut place = root;
    for _ in 0..MOST_TABLES {
        let rule = matching(record, packet, place);
        steps.push(Step { place, rule });
        let Some(rule) = rule.and_then(|rule| record.rule(rule)) else { return Ok(End::Miss) };
        let way = perform(record, packet, &rule.actions)?;
        match way {
            None | Some(Destination::Miss) => return Ok(End::Miss),
            Some(Destination::Drop) => return Ok(End::Drop),
            Some(Destination::Vport(vport)) => return Ok(End::Vport(vport)),
            Some(Destination::Tir(tir)) => return Ok(End::Tir(tir)),
            Some(Destination::Qp(_)) => return Ok(End::Qp),
            Some(Destination::Table(table)) => place = record.table(table).ok_or(Broken::Missing("a table"))?,
        }
    }
    Err(Broken::Endless)
}

/// The actions of a rule. A counter is behind what takes headers off and before what puts them on, wherever the list has it
/// (`dr_ste_v1_set_actions_rx`: "after decap and before insert_hdr to exclude decaped / encaped header").
fn perform(record: &Record, packet: &mut Packet, actions: &[Id]) -> Result<Option<Destination>, Broken> {
    let named = |id: &Id| record.action(*id).ok_or(Broken::Missing("an action"));
    let actions = actions.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    let (counters, others): (Vec<_>, Vec<_>) =
        actions.into_iter().partition(|action| matches!(action, Action::Count { .. }));
    let behind = others.iter().rposition(|action| takes_off(action)).map_or(0, |last| last + 1);
    let (before, after) = others.split_at(behind);
    let mut way = None;
    for action in before.iter().chain(&counters).chain(after) {
        way = act(action, packet)?.or(way);
    }
    Ok(way)
}

const fn takes_off(action: &Action) -> bool {
    match action {
        Action::Pop => true,
        Action::Reformat { reformat, .. } => {
            matches!(*reformat, ReformatKind::L2TunnelToL2 | ReformatKind::L3TunnelToL2)
        }
        _ => false,
    }
}

/// The rule that a packet meets in a table.
fn matching(record: &Record, packet: &mut Packet, place: Place) -> Option<Id> {
    let rules = record.rules_at(place)?;
    let fields = packet.params();
    rules.matchers().find_map(|id| rules.find(id, &record.matcher(id)?.key(fields.octets())))
}
