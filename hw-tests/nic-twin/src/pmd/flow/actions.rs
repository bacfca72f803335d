//! Actions: lists of `rte_flow_action`, copied with what they point to.

use std::{ffi::c_void, mem::offset_of};

use crate::{
    model::{Action, EINVAL, FieldId, IndirectId, Modify, ModifyOp},
    pmd::ffi,
};

use super::error::Refusal;

/// Most lists are shorter.
const TYPICAL: usize = 8;
/// Longer lists are no lists.
const MOST: usize = 64;

/// Octets of headers that a list may carry, queues of an RSS.
const MOST_HEADERS: usize = 1024;
const MOST_QUEUES: usize = 1024;

/// One action with its configuration.
#[derive(Debug, Clone)]
pub(super) struct OwnedAction {
    number: ffi::rte_flow_action_type,
    /// The C structure's octets, aligned as the structure may need.
    conf: Option<Box<[u64]>>,
    /// Headers that the structure points to.
    headers: Box<[u8]>,
    /// Queues that it points to.
    queues: Box<[u16]>,
}

/// A list's field of the C structure.
macro_rules! field {
    ($action:expr, $structure:ident . $field:ident) => {{
        let at = offset_of!(ffi::$structure, $field);
        $action.octets().get(at..).and_then(|octets| octets.first_chunk()).copied()
    }};
}

impl OwnedAction {
    /// The octets of the structure.
    fn octets(&self) -> &[u8] {
        let words: &[u64] = self.conf.as_deref().unwrap_or_default();
        // SAFETY: the octets of plain words; any alignment will do for them.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
    }

    fn octets_mut(&mut self) -> &mut [u8] {
        let words: &mut [u64] = self.conf.as_deref_mut().unwrap_or_default();
        // SAFETY: the octets of plain words, any of which are a value.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), size_of_val(words)) }
    }

    /// Copies one action.
    ///
    /// # Safety
    /// A complete action: its structure has the size of its type, and, with `follow`, points to what it says.
    unsafe fn read(action: &ffi::rte_flow_action, follow: bool) -> OwnedAction {
        let size = size(action.type_);
        let mut owned =
            OwnedAction { number: action.type_, conf: None, headers: Box::default(), queues: Box::default() };
        if action.type_ == ffi::RTE_FLOW_ACTION_TYPE_INDIRECT {
            // The configuration is the handle itself.
            owned.conf = Some(Box::new([action.conf.addr() as u64]));
            return owned;
        }
        if action.conf.is_null() || size == 0 {
            return owned;
        }
        owned.conf = Some(vec![0; size.div_ceil(8)].into());
        let into = owned.octets_mut().as_mut_ptr();
        // SAFETY: the structure has `size` octets, and so has the copy.
        unsafe { action.conf.cast::<u8>().copy_to_nonoverlapping(into, size) };
        if follow {
            // SAFETY: passed on.
            unsafe { owned.follow(action.conf) };
        }
        owned
    }

    /// Copies what the structure points to.
    ///
    /// # Safety
    /// `conf` is the complete structure of this action's type.
    unsafe fn follow(&mut self, conf: *const c_void) {
        // SAFETY: in each arm the structure is the type's; pointers in it are null or to what it says.
        unsafe {
            match self.number {
                ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP => {
                    let conf = &*conf.cast::<ffi::rte_flow_action_raw_encap>();
                    self.headers = copy(conf.data, conf.size.min(MOST_HEADERS));
                }
                ffi::RTE_FLOW_ACTION_TYPE_RAW_DECAP => {
                    let conf = &*conf.cast::<ffi::rte_flow_action_raw_decap>();
                    self.headers = copy(conf.data, conf.size.min(MOST_HEADERS));
                }
                ffi::RTE_FLOW_ACTION_TYPE_RSS => {
                    let conf = &*conf.cast::<ffi::rte_flow_action_rss>();
                    self.queues = copy(conf.queue, (conf.queue_num as usize).min(MOST_QUEUES));
                }
                _ => {}
            }
        }
    }

    /// Does the structure point to more of the action?
    fn points(&self) -> bool {
        matches!(
            self.number,
            ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP
                | ffi::RTE_FLOW_ACTION_TYPE_RAW_DECAP
                | ffi::RTE_FLOW_ACTION_TYPE_RSS
                | ffi::RTE_FLOW_ACTION_TYPE_INDIRECT
        )
    }

    /// The action of a rule of a template: where the template's mask has a bit its value holds for all rules, elsewhere the
    /// rule's. What pointers lead to is the template's as a whole or the rule's as a whole.
    fn with_values_of(&self, mask: Option<&OwnedAction>, rule: Option<OwnedAction>) -> OwnedAction {
        let mask = mask.map(OwnedAction::octets).unwrap_or_default();
        let rule = rule.filter(|rule| rule.number == self.number);
        let constant = mask.iter().any(|octet| *octet != 0);
        let Some(rule) = rule else { return self.clone() };
        if self.points() {
            return if constant { self.clone() } else { rule };
        }
        let mut merged = rule;
        if merged.conf.is_none() {
            merged.conf.clone_from(&self.conf);
        }
        for ((octet, template), mask) in merged.octets_mut().iter_mut().zip(self.octets()).zip(mask) {
            *octet = (*octet & !mask) | (template & mask);
        }
        // The operation may wait, but what the application points to is there only now.
        if self.number == ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD
            && let Some(conf) = merged.conf.as_deref_mut()
        {
            // SAFETY: a complete, aligned copy of the structure.
            unsafe { ffi::twin_modify_resolve(conf.as_mut_ptr().cast()) };
        }
        merged
    }

    /// As the NIC takes it. An AGE without a context has `own` for one; `indirect` finds shared actions by handle.
    fn action(
        &self,
        own: Option<u64>,
        indirect: &impl Fn(u64) -> Option<IndirectId>,
    ) -> Result<Action<'_>, &'static std::ffi::CStr> {
        self.plain(own, indirect).ok_or(c"the action's configuration is missing or wrong")
    }

    fn plain(&self, own: Option<u64>, indirect: &impl Fn(u64) -> Option<IndirectId>) -> Option<Action<'_>> {
        let octets = self.octets();
        Some(match self.number {
            ffi::RTE_FLOW_ACTION_TYPE_VOID => Action::Void,
            ffi::RTE_FLOW_ACTION_TYPE_PASSTHRU => Action::PassThru,
            ffi::RTE_FLOW_ACTION_TYPE_DROP => Action::Drop,
            ffi::RTE_FLOW_ACTION_TYPE_FLAG => Action::Flag,
            ffi::RTE_FLOW_ACTION_TYPE_DEC_TTL => Action::DecTtl,
            ffi::RTE_FLOW_ACTION_TYPE_OF_POP_VLAN => Action::PopVlan,
            ffi::RTE_FLOW_ACTION_TYPE_JUMP => {
                Action::Jump(u32::from_ne_bytes(field!(self, rte_flow_action_jump.group)?))
            }
            ffi::RTE_FLOW_ACTION_TYPE_MARK => Action::Mark(u32::from_ne_bytes(field!(self, rte_flow_action_mark.id)?)),
            ffi::RTE_FLOW_ACTION_TYPE_QUEUE => {
                Action::Queue(u16::from_ne_bytes(field!(self, rte_flow_action_queue.index)?))
            }
            ffi::RTE_FLOW_ACTION_TYPE_RSS => {
                self.conf.as_ref()?;
                Action::Rss(&self.queues)
            }
            ffi::RTE_FLOW_ACTION_TYPE_COUNT => {
                Action::Count(field!(self, rte_flow_action_count.id).map_or(0, u32::from_ne_bytes))
            }
            ffi::RTE_FLOW_ACTION_TYPE_AGE => {
                // A bit-field: the lower 24 bits of the first word.
                let word = u32::from_ne_bytes(*octets.first_chunk()?);
                let context = u64::from_ne_bytes(field!(self, rte_flow_action_age.context)?);
                let context = (context != 0).then_some(context).or(own);
                Action::Age { timeout: word & 0x00ff_ffff, context }
            }
            ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP => {
                self.conf.as_ref()?;
                Action::RawEncap(&self.headers)
            }
            ffi::RTE_FLOW_ACTION_TYPE_RAW_DECAP => Action::RawDecap(&self.headers),
            ffi::RTE_FLOW_ACTION_TYPE_OF_PUSH_VLAN => Action::PushVlan(u16::from_be_bytes(*octets.first_chunk()?)),
            ffi::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_VID => Action::SetVlanVid(u16::from_be_bytes(*octets.first_chunk()?)),
            ffi::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_PCP => Action::SetVlanPcp(*octets.first()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_MAC_SRC => Action::SetMacSrc(*octets.first_chunk()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_MAC_DST => Action::SetMacDst(*octets.first_chunk()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_SRC => Action::SetIpv4Src(*octets.first_chunk()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_DST => Action::SetIpv4Dst(*octets.first_chunk()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_SRC => Action::SetIpv6Src(*octets.first_chunk()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_DST => Action::SetIpv6Dst(*octets.first_chunk()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_DSCP => Action::SetIpv4Dscp(*octets.first()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_DSCP => Action::SetIpv6Dscp(*octets.first()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_TP_SRC => Action::SetTpSrc(u16::from_be_bytes(*octets.first_chunk()?)),
            ffi::RTE_FLOW_ACTION_TYPE_SET_TP_DST => Action::SetTpDst(u16::from_be_bytes(*octets.first_chunk()?)),
            ffi::RTE_FLOW_ACTION_TYPE_SET_TTL => Action::SetTtl(*octets.first()?),
            ffi::RTE_FLOW_ACTION_TYPE_SET_META => Action::SetMeta {
                data: u32::from_ne_bytes(field!(self, rte_flow_action_set_meta.data)?),
                mask: u32::from_ne_bytes(field!(self, rte_flow_action_set_meta.mask)?),
            },
            ffi::RTE_FLOW_ACTION_TYPE_SET_TAG => Action::SetTag {
                data: u32::from_ne_bytes(field!(self, rte_flow_action_set_tag.data)?),
                mask: u32::from_ne_bytes(field!(self, rte_flow_action_set_tag.mask)?),
                index: u8::from_ne_bytes(field!(self, rte_flow_action_set_tag.index)?),
            },
            ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD => Action::ModifyField(self.modify()?),
            ffi::RTE_FLOW_ACTION_TYPE_PORT_ID => {
                let port = u32::from_ne_bytes(field!(self, rte_flow_action_port_id.id)?);
                Action::PortId(u16::try_from(port).ok()?)
            }
            ffi::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT => {
                Action::RepresentedPort(u16::from_ne_bytes(field!(self, rte_flow_action_ethdev.port_id)?))
            }
            ffi::RTE_FLOW_ACTION_TYPE_PORT_REPRESENTOR => {
                Action::PortRepresentor(u16::from_ne_bytes(field!(self, rte_flow_action_ethdev.port_id)?))
            }
            ffi::RTE_FLOW_ACTION_TYPE_SECURITY => Action::Security(
                octets.first_chunk().map_or(crate::model::BY_SPI, |session| u64::from_ne_bytes(*session)),
            ),
            ffi::RTE_FLOW_ACTION_TYPE_INDIRECT => {
                Action::Indirect(indirect(u64::from_ne_bytes(*octets.first_chunk()?))?)
            }
            _ => Action::Other,
        })
    }

    fn modify(&self) -> Option<Modify> {
        let conf = self.conf.as_deref()?.as_ptr().cast::<ffi::rte_flow_action_modify_field>();
        // SAFETY: plain data, for which zeros are a value.
        let mut read: ffi::twin_modify = unsafe { std::mem::zeroed() };
        // SAFETY: a complete, aligned copy of the structure; a source by pointer is the application's and it is still there, since
        // this runs in the call that gave it.
        unsafe { ffi::twin_modify_read(conf, &mut read) };
        let field = field_id(read.field);
        Some(Modify {
            op: match read.operation {
                ffi::RTE_FLOW_MODIFY_SET => ModifyOp::Set,
                ffi::RTE_FLOW_MODIFY_ADD => ModifyOp::Add,
                ffi::RTE_FLOW_MODIFY_SUB => ModifyOp::Sub,
                _ => return None,
            },
            level: if field == FieldId::Tag { read.tag } else { read.level },
            field,
            offset: read.offset,
            width: read.width,
            value: (read.source == ffi::RTE_FLOW_FIELD_VALUE).then_some(read.value),
        })
    }
}

/// Copies `count` values.
///
/// # Safety
/// `from` is null or leads to so many.
unsafe fn copy<T: Copy>(from: *const T, count: usize) -> Box<[T]> {
    if from.is_null() {
        return Box::default();
    }
    // SAFETY: see above.
    unsafe { std::slice::from_raw_parts(from, count) }.into()
}

/// Copies a list of actions.
///
/// # Safety
/// `actions` is null, or a list that ends with END, whose actions are complete.
pub(super) unsafe fn read(actions: *const ffi::rte_flow_action) -> Result<Vec<OwnedAction>, Refusal> {
    // SAFETY: passed on.
    unsafe { read_list(actions, true) }
}

/// Copies a list, and what it points to where `follow` says so.
///
/// # Safety
/// As for [`read`].
unsafe fn read_list(actions: *const ffi::rte_flow_action, follow: bool) -> Result<Vec<OwnedAction>, Refusal> {
    if actions.is_null() {
        return Err(Refusal::new(EINVAL, c"no actions"));
    }
    let mut list = Vec::with_capacity(TYPICAL);
    for index in 0..MOST {
        // SAFETY: the END has not come yet.
        let action = unsafe { &*actions.add(index) };
        if action.type_ == ffi::RTE_FLOW_ACTION_TYPE_END {
            return Ok(list);
        }
        // SAFETY: an action of the list.
        list.push(unsafe { OwnedAction::read(action, follow) });
    }
    Err(Refusal::new(EINVAL, c"the list of actions has no end"))
}

/// Copies the masks of an actions template: none of the pointers in them leads anywhere.
///
/// # Safety
/// As for [`read`].
pub(super) unsafe fn read_masks(masks: *const ffi::rte_flow_action) -> Result<Vec<OwnedAction>, Refusal> {
    // SAFETY: passed on; pointers are not followed.
    unsafe { read_list(masks, false) }
}

/// Do a template's actions and masks agree, one by one?
pub(super) fn same_types(actions: &[OwnedAction], masks: &[OwnedAction]) -> bool {
    let numbers = |list: &[OwnedAction]| list.iter().map(|action| action.number).collect::<Vec<_>>();
    numbers(actions) == numbers(masks)
}

/// Are the masks such as mlx5's templates want them? That of MODIFY_FIELD equals the template in operation and fields
/// (mlx5_flow_hw.c, flow_hw_validate_action_modify_field), and RAW_ENCAP's has a size (from 23.11 on).
pub(super) fn check_masks(actions: &[OwnedAction], masks: &[OwnedAction]) -> Result<(), Refusal> {
    for (action, mask) in actions.iter().zip(masks) {
        match action.number {
            ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD => {
                let words = [
                    offset_of!(ffi::rte_flow_action_modify_field, operation),
                    offset_of!(ffi::rte_flow_action_modify_field, dst),
                    offset_of!(ffi::rte_flow_action_modify_field, src),
                ];
                let differs = |at: usize| action.octets().get(at..at + 4) != mask.octets().get(at..at + 4);
                if words.into_iter().any(differs) {
                    return Err(Refusal::action(EINVAL, c"modify_field mask and template are not equal"));
                }
            }
            ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP
                if field!(mask, rte_flow_action_raw_encap.size).map(usize::from_ne_bytes).unwrap_or(0) == 0 =>
            {
                return Err(Refusal::action(EINVAL, c"raw_encap: size must be masked"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Copies one action.
///
/// # Safety
/// `action` is null or a complete action.
pub(super) unsafe fn read_one(action: *const ffi::rte_flow_action) -> Result<OwnedAction, Refusal> {
    // SAFETY: see above.
    let action = unsafe { action.as_ref() }.ok_or(Refusal::action(EINVAL, c"no action"))?;
    // SAFETY: see above.
    Ok(unsafe { OwnedAction::read(action, true) })
}

/// The list as the NIC takes it.
pub(super) fn list<'a>(
    actions: &'a [OwnedAction],
    own: Option<u64>,
    indirect: &impl Fn(u64) -> Option<IndirectId>,
) -> Result<Vec<Action<'a>>, Refusal> {
    let refuse = |message| Refusal::action(EINVAL, message);
    actions.iter().map(|action| action.action(own, indirect).map_err(refuse)).collect()
}

/// The actions of a rule of a template.
pub(super) fn merge(template: &[OwnedAction], masks: &[OwnedAction], rule: Vec<OwnedAction>) -> Vec<OwnedAction> {
    let mut rule = rule.into_iter();
    let each = template.iter().enumerate();
    each.map(|(index, action)| action.with_values_of(masks.get(index), rule.next())).collect()
}

/// Octets of the structure of a type; 0 for types without one, and for those that the twin doesn't know.
fn size(number: ffi::rte_flow_action_type) -> usize {
    match number {
        ffi::RTE_FLOW_ACTION_TYPE_JUMP => size_of::<ffi::rte_flow_action_jump>(),
        ffi::RTE_FLOW_ACTION_TYPE_MARK => size_of::<ffi::rte_flow_action_mark>(),
        ffi::RTE_FLOW_ACTION_TYPE_QUEUE => size_of::<ffi::rte_flow_action_queue>(),
        ffi::RTE_FLOW_ACTION_TYPE_RSS => size_of::<ffi::rte_flow_action_rss>(),
        ffi::RTE_FLOW_ACTION_TYPE_COUNT => size_of::<ffi::rte_flow_action_count>(),
        ffi::RTE_FLOW_ACTION_TYPE_AGE => size_of::<ffi::rte_flow_action_age>(),
        ffi::RTE_FLOW_ACTION_TYPE_RAW_ENCAP => size_of::<ffi::rte_flow_action_raw_encap>(),
        ffi::RTE_FLOW_ACTION_TYPE_RAW_DECAP => size_of::<ffi::rte_flow_action_raw_decap>(),
        ffi::RTE_FLOW_ACTION_TYPE_OF_PUSH_VLAN => size_of::<ffi::rte_flow_action_of_push_vlan>(),
        ffi::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_VID => size_of::<ffi::rte_flow_action_of_set_vlan_vid>(),
        ffi::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_PCP => size_of::<ffi::rte_flow_action_of_set_vlan_pcp>(),
        ffi::RTE_FLOW_ACTION_TYPE_SET_MAC_SRC | ffi::RTE_FLOW_ACTION_TYPE_SET_MAC_DST => {
            size_of::<ffi::rte_flow_action_set_mac>()
        }
        ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_SRC | ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_DST => {
            size_of::<ffi::rte_flow_action_set_ipv4>()
        }
        ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_SRC | ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_DST => {
            size_of::<ffi::rte_flow_action_set_ipv6>()
        }
        ffi::RTE_FLOW_ACTION_TYPE_SET_IPV4_DSCP | ffi::RTE_FLOW_ACTION_TYPE_SET_IPV6_DSCP => {
            size_of::<ffi::rte_flow_action_set_dscp>()
        }
        ffi::RTE_FLOW_ACTION_TYPE_SET_TP_SRC | ffi::RTE_FLOW_ACTION_TYPE_SET_TP_DST => {
            size_of::<ffi::rte_flow_action_set_tp>()
        }
        ffi::RTE_FLOW_ACTION_TYPE_SET_TTL => size_of::<ffi::rte_flow_action_set_ttl>(),
        ffi::RTE_FLOW_ACTION_TYPE_SET_META => size_of::<ffi::rte_flow_action_set_meta>(),
        ffi::RTE_FLOW_ACTION_TYPE_SET_TAG => size_of::<ffi::rte_flow_action_set_tag>(),
        ffi::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD => size_of::<ffi::rte_flow_action_modify_field>(),
        ffi::RTE_FLOW_ACTION_TYPE_PORT_ID => size_of::<ffi::rte_flow_action_port_id>(),
        ffi::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT | ffi::RTE_FLOW_ACTION_TYPE_PORT_REPRESENTOR => {
            size_of::<ffi::rte_flow_action_ethdev>()
        }
        ffi::RTE_FLOW_ACTION_TYPE_SECURITY => size_of::<ffi::rte_flow_action_security>(),
        _ => 0,
    }
}

fn field_id(number: ffi::rte_flow_field_id) -> FieldId {
    match number {
        ffi::RTE_FLOW_FIELD_MAC_DST => FieldId::MacDst,
        ffi::RTE_FLOW_FIELD_MAC_SRC => FieldId::MacSrc,
        ffi::RTE_FLOW_FIELD_VLAN_ID => FieldId::VlanId,
        ffi::RTE_FLOW_FIELD_MAC_TYPE => FieldId::MacType,
        ffi::RTE_FLOW_FIELD_IPV4_DSCP => FieldId::Ipv4Dscp,
        ffi::RTE_FLOW_FIELD_IPV4_ECN => FieldId::Ipv4Ecn,
        ffi::RTE_FLOW_FIELD_IPV4_TTL => FieldId::Ipv4Ttl,
        ffi::RTE_FLOW_FIELD_IPV4_SRC => FieldId::Ipv4Src,
        ffi::RTE_FLOW_FIELD_IPV4_DST => FieldId::Ipv4Dst,
        ffi::RTE_FLOW_FIELD_IPV6_DSCP => FieldId::Ipv6Dscp,
        ffi::RTE_FLOW_FIELD_IPV6_ECN => FieldId::Ipv6Ecn,
        ffi::RTE_FLOW_FIELD_IPV6_HOPLIMIT => FieldId::Ipv6HopLimit,
        ffi::RTE_FLOW_FIELD_IPV6_SRC => FieldId::Ipv6Src,
        ffi::RTE_FLOW_FIELD_IPV6_DST => FieldId::Ipv6Dst,
        ffi::RTE_FLOW_FIELD_TCP_PORT_SRC => FieldId::TcpSrc,
        ffi::RTE_FLOW_FIELD_TCP_PORT_DST => FieldId::TcpDst,
        ffi::RTE_FLOW_FIELD_UDP_PORT_SRC => FieldId::UdpSrc,
        ffi::RTE_FLOW_FIELD_UDP_PORT_DST => FieldId::UdpDst,
        ffi::RTE_FLOW_FIELD_MARK => FieldId::Mark,
        ffi::RTE_FLOW_FIELD_META => FieldId::Meta,
        ffi::RTE_FLOW_FIELD_TAG => FieldId::Tag,
        _ => FieldId::Other,
    }
}
