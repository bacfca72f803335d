//! A rule's actions: checked, and compiled to what the interpreter runs.

use super::action::{Action, ActionKind, Attr, FieldId, IndirectId, Modify, PortId};
use super::edit::{set, value_layout};
use super::error::{EINVAL, ENOENT, ENOTSUP, ErrorKind, FlowError};
use super::layers::{bit, is_tag};
use super::profile::Profile;
use super::shape::meta::TAG_COUNT;
use super::template::Template;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    PassThru,
    Jump(u32),
    Mark(u32),
    Flag,
    Queue(u16),
    Rss(Box<[u16]>),
    Drop,
    /// `shared`: the indirect action it belongs to.
    Count {
        id: u32,
        counter: u32,
        shared: Option<u32>,
    },
    Age {
        age: u32,
        shared: Option<u32>,
    },
    Decap(usize),
    Encap(Box<[u8]>, Template),
    PopVlan,
    PushVlan(u16),
    SetPriority(u8),
    Modify(Modify),
    SetTtl(u8),
    DecTtl,
    SetPort {
        source: bool,
        port: u16,
    },
    SetMeta {
        data: u32,
        mask: u32,
    },
    SetTag {
        data: u32,
        mask: u32,
        index: u8,
    },
    Wire(PortId),
    Application(PortId),
    Security(u64),
}

impl Op {
    /// Does it change the packet's octets?
    pub(crate) fn edits(&self) -> bool {
        match self {
            Op::Modify(modify) => !matches!(modify.field, FieldId::Mark | FieldId::Meta | FieldId::Tag),
            Op::Decap(_)
            | Op::Encap(..)
            | Op::PopVlan
            | Op::PushVlan(_)
            | Op::SetPriority(_)
            | Op::SetTtl(_)
            | Op::DecTtl
            | Op::SetPort { .. } => true,
            _ => false,
        }
    }
}

/// What a list of actions may refer to.
pub(crate) struct Context<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) attr: &'a Attr,
    /// Headers that the pattern demands.
    pub(crate) required: u32,
    /// Receive queues of the rule's port.
    pub(crate) queues: u16,
    pub(crate) has_port: &'a dyn Fn(PortId) -> bool,
    /// The type of an indirect action of this port.
    pub(crate) indirect: &'a dyn Fn(IndirectId) -> Option<ActionKind>,
    pub(crate) has_session: &'a dyn Fn(u64) -> bool,
}

/// How many of what a list needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    pub(crate) counters: u64,
}

/// Checks a list of actions.
///
/// # Errors
/// EINVAL for what the guide forbids, ENOTSUP for what this NIC does not do.
pub(crate) fn check(actions: &[Action], context: &Context) -> Result<Needs, FlowError> {
    let mut fate: Option<ActionKind> = None;
    let (mut secured, mut ages, mut marks) = (false, 0, 0);
    let mut needs = Needs::default();
    for (index, action) in actions.iter().enumerate() {
        context.profile.check_action(index, action, context.attr)?;
        configuration(index, action, context)?;
        let refuse = |message| Err(FlowError::action(EINVAL, ErrorKind::Action, index, message));
        let mut kind = action.kind();
        if let Action::Indirect(id) = *action {
            match (context.indirect)(id) {
                Some(shared) => kind = shared,
                None => {
                    return Err(FlowError::action(EINVAL, ErrorKind::ActionConf, index, c"no such indirect action"));
                }
            }
        }
        match *action {
            Action::Count(id) => {
                needs.counters += 1;
                let earlier = actions.iter().take(index);
                if earlier.into_iter().any(|other| matches!(other, Action::Count(other) if *other == id)) {
                    return refuse(c"two counters of one id");
                }
            }
            Action::Security(_) => secured = true,
            _ => {}
        }
        ages += u32::from(kind == ActionKind::Age);
        marks += u32::from(matches!(kind, ActionKind::Mark | ActionKind::Flag));
        if ages > 1 || marks > 1 {
            return refuse(c"this action can be given once");
        }
        if kind.is_fate() {
            if fate.is_some() {
                return refuse(c"more than one action decides the fate");
            }
            fate = Some(kind);
        }
    }
    // On the sending side a packet is sent unless a rule says otherwise (mlx5_flow_dv.c, flow_dv_validate: of ingress alone a fate is asked).
    if fate.is_none() && !secured && !context.attr.egress {
        return Err(FlowError::new(EINVAL, ErrorKind::Action, c"no action decides the fate"));
    }
    if fate == Some(ActionKind::Drop) && context.profile.drop_alone {
        let with = [ActionKind::Drop, ActionKind::Count, ActionKind::Age, ActionKind::Void, ActionKind::Indirect];
        if let Some(index) = actions.iter().position(|action| !with.contains(&action.kind())) {
            let message = c"DROP goes with COUNT and AGE only";
            return Err(FlowError::action(EINVAL, ErrorKind::Action, index, message));
        }
    }
    context.profile.check_order(actions)?;
    Ok(needs)
}

/// Checks one action's configuration against the pattern and the NIC.
fn configuration(index: usize, action: &Action, context: &Context) -> Result<(), FlowError> {
    let conf = |message| Err(FlowError::action(EINVAL, ErrorKind::ActionConf, index, message));
    let refuse = |errno, message| Err(FlowError::action(errno, ErrorKind::Action, index, message));
    let any = |bits: u32| context.required & (bits | bits << bit::INNER) != 0;
    let queues = context.queues;
    match *action {
        Action::Jump(group) if group <= context.attr.group => conf(c"a jump leads to a higher group only"),
        Action::Jump(group) if group > context.profile.max_group => {
            Err(FlowError::action(ENOTSUP, ErrorKind::ActionConf, index, c"this NIC has no such group"))
        }
        Action::Queue(_) | Action::Rss(_) if context.attr.egress => refuse(EINVAL, c"receive queues are for ingress"),
        Action::Queue(queue) if queue >= queues => conf(c"no receive queue of this number"),
        Action::Rss([]) => conf(c"no queues to spread over"),
        Action::Rss(list) if list.iter().any(|&queue| queue >= queues) => conf(c"no receive queue of this number"),
        Action::RepresentedPort(_) | Action::PortRepresentor(_) if !context.attr.transfer => {
            refuse(EINVAL, c"this action requires the transfer attribute")
        }
        Action::PortId(port) | Action::RepresentedPort(port) | Action::PortRepresentor(port)
            if !(context.has_port)(port) =>
        {
            conf(c"no such port in this switch")
        }
        Action::Age { timeout, .. } if timeout > 0x00ff_ffff => conf(c"a timeout has 24 bits"),
        Action::RawDecap(octets) | Action::RawEncap(octets) if Template::parse(octets).is_none() => {
            conf(c"the buffer is not whole headers from Ethernet on")
        }
        Action::PopVlan if context.profile.pop_needs_item && !any(bit::VLAN) => {
            refuse(EINVAL, c"cannot pop a tag without a match on it")
        }
        Action::PushVlan(tpid) if !is_tag(tpid) => conf(c"no TPID"),
        Action::SetVlanVid(vid) if vid > 0x0fff => conf(c"a VLAN id has 12 bits"),
        Action::SetVlanPcp(priority) if priority > 7 => conf(c"a VLAN priority has 3 bits"),
        Action::SetMacSrc(_) | Action::SetMacDst(_) if !any(bit::ETH) => refuse(EINVAL, c"needs an ETH item"),
        Action::SetIpv4Src(_) | Action::SetIpv4Dst(_) | Action::SetIpv4Dscp(_) if !any(bit::IPV4) => {
            refuse(EINVAL, c"needs an IPV4 item")
        }
        Action::SetIpv6Src(_) | Action::SetIpv6Dst(_) | Action::SetIpv6Dscp(_) if !any(bit::IPV6) => {
            refuse(EINVAL, c"needs an IPV6 item")
        }
        Action::SetTtl(_) | Action::DecTtl if !any(bit::IPV4 | bit::IPV6) => {
            refuse(EINVAL, c"needs an IPV4 or IPV6 item")
        }
        Action::SetTpSrc(_) | Action::SetTpDst(_) if !any(bit::TCP | bit::UDP) => {
            refuse(EINVAL, c"needs a TCP or UDP item")
        }
        Action::SetTag { index: tag, .. } if usize::from(tag) >= TAG_COUNT => conf(c"no tag of this index"),
        Action::ModifyField(modify) => modification(index, &modify),
        Action::Security(session) if !(context.has_session)(session) => {
            Err(FlowError::action(ENOENT, ErrorKind::ActionConf, index, c"no such session"))
        }
        _ => Ok(()),
    }
}

fn modification(index: usize, modify: &Modify) -> Result<(), FlowError> {
    let conf = |errno, message| Err(FlowError::action(errno, ErrorKind::ActionConf, index, message));
    let (_, width) = value_layout(modify.field);
    if modify.field == FieldId::Other {
        return conf(ENOTSUP, c"this NIC does not modify this field");
    }
    if modify.value.is_none() {
        return conf(ENOTSUP, c"this NIC copies no fields: an immediate value is needed");
    }
    if modify.width == 0 {
        return conf(EINVAL, c"no bits are requested to be modified");
    }
    if modify.offset as usize >= width || modify.width as usize > width - modify.offset as usize {
        return conf(EINVAL, c"cannot modify more bits than the width of a field");
    }
    if modify.field == FieldId::Tag && modify.level as usize >= TAG_COUNT {
        return conf(EINVAL, c"no tag of this index");
    }
    Ok(())
}

/// The op of an action that needs no object of the NIC; `None` for VOID and for COUNT, AGE and INDIRECT.
pub(crate) fn compile(action: &Action) -> Option<Op> {
    Some(match *action {
        Action::PassThru => Op::PassThru,
        Action::Jump(group) => Op::Jump(group),
        Action::Mark(mark) => Op::Mark(mark),
        Action::Flag => Op::Flag,
        Action::Queue(queue) => Op::Queue(queue),
        Action::Rss(queues) => Op::Rss(queues.into()),
        Action::Drop => Op::Drop,
        Action::RawDecap(octets) => Op::Decap(octets.len()),
        Action::RawEncap(octets) => Op::Encap(octets.into(), Template::parse(octets)?),
        Action::PopVlan => Op::PopVlan,
        Action::PushVlan(tpid) => Op::PushVlan(tpid),
        Action::SetVlanVid(vid) => Op::Modify(set(FieldId::VlanId, &vid.to_be_bytes())),
        Action::SetVlanPcp(priority) => Op::SetPriority(priority),
        Action::SetMacSrc(mac) => Op::Modify(set(FieldId::MacSrc, &mac)),
        Action::SetMacDst(mac) => Op::Modify(set(FieldId::MacDst, &mac)),
        Action::SetIpv4Src(address) => Op::Modify(set(FieldId::Ipv4Src, &address)),
        Action::SetIpv4Dst(address) => Op::Modify(set(FieldId::Ipv4Dst, &address)),
        Action::SetIpv6Src(address) => Op::Modify(set(FieldId::Ipv6Src, &address)),
        Action::SetIpv6Dst(address) => Op::Modify(set(FieldId::Ipv6Dst, &address)),
        Action::SetIpv4Dscp(dscp) => Op::Modify(set(FieldId::Ipv4Dscp, &[dscp & 0x3f])),
        Action::SetIpv6Dscp(dscp) => Op::Modify(set(FieldId::Ipv6Dscp, &[dscp & 0x3f])),
        Action::SetTpSrc(port) => Op::SetPort { source: true, port },
        Action::SetTpDst(port) => Op::SetPort { source: false, port },
        Action::SetTtl(ttl) => Op::SetTtl(ttl),
        Action::DecTtl => Op::DecTtl,
        Action::SetMeta { data, mask } => Op::SetMeta { data, mask },
        Action::SetTag { data, mask, index } => Op::SetTag { data, mask, index },
        Action::ModifyField(modify) => Op::Modify(modify),
        Action::PortId(port) | Action::RepresentedPort(port) => Op::Wire(port),
        Action::PortRepresentor(port) => Op::Application(port),
        Action::Security(session) => Op::Security(session),
        Action::Void | Action::Count(_) | Action::Age { .. } | Action::Indirect(_) | Action::Other => return None,
    })
}
