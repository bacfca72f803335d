//! From typed actions to rte_flow's, in their order.

use std::{hash::Hasher, mem::offset_of};

use dpdk_sys::{rte_flow_action, rte_flow_action_type as kind, rte_flow_field_id as field};
use offload_rules::{
    VifId,
    lower::{Action, Session, Table},
};

use super::{
    name_tables::NameTables,
    stages::Stages,
    storage::Blob,
    style::{FieldStyle, PortStyle, Style, TtlStyle},
    unresolved::Unresolved,
};

/// The priority is the upper three bits of the tag control information, the VLAN id its lower twelve (IEEE 802.1Q §9.6).
const PCP_SHIFT: u32 = 13;
const VID_BITS: u16 = 0x0fff;

/// What an action points to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Conf {
    /// Nothing.
    None,
    /// A structure without pointers. Those of one shape differ in it.
    Own(Blob),
    /// A structure without pointers that all of one shape have in common.
    Common(Blob),
    /// A header to take off.
    Decap(Vec<u8>),
    /// A header to put on.
    Encap(Vec<u8>),
    /// A field and its value.
    Modify { field: field::Type, value: Vec<u8> },
    /// The queues to spread over.
    Rss { queues: Vec<u16> },
}

/// One action with its storage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) kind: kind::Type,
    pub(super) conf: Conf,
}

/// The actions of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Actions(Vec<Entry>);

/// What the rules of one actions template have in common: values that differ are left out, their lengths are not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ActionsShape(Vec<Entry>);

/// The session that a rule with these actions names.
pub(super) fn session(actions: &[Action]) -> Option<Session> {
    actions.iter().find_map(|action| match action {
        Action::Security(session) => Some(*session),
        _ => None,
    })
}

/// The number of the group that is this table.
pub(super) fn group(table: Table) -> u32 {
    match table {
        Table::Steering | Table::Flows => 0,
        Table::Tenant => 1,
        Table::Tunnel => 2,
        Table::Opened => 3,
        Table::Seal => 4,
        Table::Untagged => 5,
        Table::Inner => 6,
        Table::Source6 => 7,
        Table::Transit => 8,
        Table::Software => 9,
        Table::EgressFirst => 0,
        Table::Egress => 1,
    }
}

/// Whether a rule with these actions must be one of its port: queues are the port's, not the switch's.
pub(super) fn to_host(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Queue(_) | Action::Rss | Action::Hairpin(_)))
}

impl Actions {
    /// Translates; `own` is the vif of the port that the rule is on, and how many queues that has.
    ///
    /// # Errors
    ///
    /// [`Unresolved`] when a vif's device is no port, a session is not open, or a stage has no number.
    pub(super) fn new(
        actions: &[Action],
        style: Style,
        own: (Option<VifId>, u16),
        named: NameTables<'_>,
    ) -> Result<Self, Unresolved> {
        let mut list = Self(Vec::with_capacity(actions.len() + 2));
        for action in actions {
            list.translate(action, style, own, named)?;
        }
        let mark = |entry: &Entry| entry.kind == kind::RTE_FLOW_ACTION_TYPE_MARK;
        if let Some(at) = list.0.iter().position(mark).filter(|_| style.mark_last) {
            let mark = list.0.remove(at);
            list.0.push(mark);
        }
        Ok(list)
    }

    fn translate(
        &mut self,
        action: &Action,
        style: Style,
        own: (Option<VifId>, u16),
        named: NameTables<'_>,
    ) -> Result<(), Unresolved> {
        match action {
            Action::Mark(id) => self.own(kind::RTE_FLOW_ACTION_TYPE_MARK, &id.to_ne_bytes()),
            // One behind the other: drivers make one reformat of them.
            Action::Reformat { off, on } => {
                self.push(kind::RTE_FLOW_ACTION_TYPE_RAW_DECAP, Conf::Decap(off.clone()));
                self.push(kind::RTE_FLOW_ACTION_TYPE_RAW_ENCAP, Conf::Encap(on.clone()));
            }
            Action::PopVlan => self.push(kind::RTE_FLOW_ACTION_TYPE_OF_POP_VLAN, Conf::None),
            // A counter of its own: id 0, not shared.
            Action::Count => self.push(kind::RTE_FLOW_ACTION_TYPE_COUNT, Conf::Common(Blob::ZERO)),
            Action::PushVlan { tpid, tci } => {
                self.own(kind::RTE_FLOW_ACTION_TYPE_OF_PUSH_VLAN, &tpid.to_be_bytes());
                self.set_vlan(*tci);
            }
            Action::SetVlan { tci } => self.set_vlan(*tci),
            Action::SetMacs { dst, src } => {
                self.write(style, kind::RTE_FLOW_ACTION_TYPE_SET_MAC_DST, field::RTE_FLOW_FIELD_MAC_DST, &dst.0);
                self.write(style, kind::RTE_FLOW_ACTION_TYPE_SET_MAC_SRC, field::RTE_FLOW_FIELD_MAC_SRC, &src.0);
            }
            // That it is one less than what is matched was checked: see `Translation::new`.
            Action::SetTtl { .. } if style.ttl == TtlStyle::Decrement => {
                self.push(kind::RTE_FLOW_ACTION_TYPE_DEC_TTL, Conf::None);
            }
            // No field operation of this translation takes one off: profiles whose fields are written by MODIFY_FIELD have no such rule.
            Action::DecTtl => self.push(kind::RTE_FLOW_ACTION_TYPE_DEC_TTL, Conf::None),
            Action::SetTtl { version, ttl } => {
                let field =
                    if *version == 6 { field::RTE_FLOW_FIELD_IPV6_HOPLIMIT } else { field::RTE_FLOW_FIELD_IPV4_TTL };
                self.write(style, kind::RTE_FLOW_ACTION_TYPE_SET_TTL, field, &[*ttl]);
            }
            Action::Security(number) => {
                let session = named.sessions.pointer(*number).ok_or(Unresolved::Session(*number))?;
                let offset = offset_of!(dpdk_sys::rte_flow_action_security, security_session);
                // The driver follows the pointer while it makes the rule, and a session that a rule names is not closed.
                let address = session.as_ptr().expose_provenance();
                let conf = Conf::Own(Blob::with(offset, &address.to_ne_bytes()));
                self.push(kind::RTE_FLOW_ACTION_TYPE_SECURITY, conf);
            }
            Action::SetMeta(meta) => self.set_meta(style, meta.bits()),
            Action::SetToSend(stage) => self.set_meta(style, named.stages.number(stage)? | Stages::TO_SEND),
            Action::SetTag(stage) => self.set_tag(style, named.stages.number(stage)?),
            Action::Jump(table) => {
                let conf = Conf::Common(Blob::with(0, &group(*table).to_ne_bytes()));
                self.push(kind::RTE_FLOW_ACTION_TYPE_JUMP, conf);
            }
            Action::Drop => self.push(kind::RTE_FLOW_ACTION_TYPE_DROP, Conf::None),
            Action::Queue(queue) => self.own(kind::RTE_FLOW_ACTION_TYPE_QUEUE, &queue.to_ne_bytes()),
            Action::Rss => {
                let queues = (0..own.1).collect();
                self.push(kind::RTE_FLOW_ACTION_TYPE_RSS, Conf::Rss { queues });
            }
            Action::Hairpin(vif) => {
                let queue = own.0.and_then(|own| named.ports.hairpin(own, *vif)).ok_or(Unresolved::Hairpin(*vif))?;
                self.own(kind::RTE_FLOW_ACTION_TYPE_QUEUE, &queue.to_ne_bytes());
            }
            Action::Port(vif) => {
                let port = named.ports.get(*vif)?.ethdev;
                match style.port_action {
                    PortStyle::Represented => {
                        self.own(kind::RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT, &port.to_ne_bytes());
                    }
                    PortStyle::PortId => {
                        let offset = offset_of!(dpdk_sys::rte_flow_action_port_id, id);
                        let conf = Conf::Own(Blob::with(offset, &u32::from(port).to_ne_bytes()));
                        self.push(kind::RTE_FLOW_ACTION_TYPE_PORT_ID, conf);
                    }
                }
            }
        }
        Ok(())
    }

    fn push(&mut self, kind: kind::Type, conf: Conf) {
        self.0.push(Entry { kind, conf });
    }

    /// An action whose structure begins with its one value.
    fn own(&mut self, kind: kind::Type, value: &[u8]) {
        self.push(kind, Conf::Own(Blob::with(0, value)));
    }

    fn set_vlan(&mut self, tci: u16) {
        self.own(kind::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_VID, &(tci & VID_BITS).to_be_bytes());
        let [_, pcp] = (tci >> PCP_SHIFT).to_be_bytes();
        self.own(kind::RTE_FLOW_ACTION_TYPE_OF_SET_VLAN_PCP, &[pcp]);
    }

    /// So is the TAG register.
    fn set_tag(&mut self, style: Style, value: u32) {
        match style.field {
            FieldStyle::Set => {
                let mut conf = Blob::with(offset_of!(dpdk_sys::rte_flow_action_set_tag, data), &value.to_ne_bytes());
                conf.fill(offset_of!(dpdk_sys::rte_flow_action_set_tag, mask), size_of::<u32>());
                conf.put(offset_of!(dpdk_sys::rte_flow_action_set_tag, index), &[Stages::REGISTER]);
                self.push(kind::RTE_FLOW_ACTION_TYPE_SET_TAG, Conf::Own(conf));
            }
            // The register is number 0: of level or tag_index, by version.
            FieldStyle::Modify => {
                let (field, value) = (field::RTE_FLOW_FIELD_TAG, value.to_ne_bytes().to_vec());
                self.push(kind::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD, Conf::Modify { field, value });
            }
        }
    }

    /// Metadata is in the byte order of the machine.
    fn set_meta(&mut self, style: Style, bits: u32) {
        match style.field {
            FieldStyle::Set => {
                let mut conf = Blob::with(offset_of!(dpdk_sys::rte_flow_action_set_meta, data), &bits.to_ne_bytes());
                conf.fill(offset_of!(dpdk_sys::rte_flow_action_set_meta, mask), size_of::<u32>());
                self.push(kind::RTE_FLOW_ACTION_TYPE_SET_META, Conf::Own(conf));
            }
            FieldStyle::Modify => {
                let (field, value) = (field::RTE_FLOW_FIELD_META, bits.to_ne_bytes().to_vec());
                self.push(kind::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD, Conf::Modify { field, value });
            }
        }
    }

    fn write(&mut self, style: Style, set: kind::Type, field: field::Type, value: &[u8]) {
        match style.field {
            FieldStyle::Set => self.own(set, value),
            FieldStyle::Modify => {
                self.push(kind::RTE_FLOW_ACTION_TYPE_MODIFY_FIELD, Conf::Modify { field, value: value.to_vec() });
            }
        }
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// Whether rules with these actions count.
    pub(super) fn counts(&self) -> bool {
        self.0.iter().any(|entry| entry.kind == kind::RTE_FLOW_ACTION_TYPE_COUNT)
    }

    /// Of this shape?
    pub(super) fn is_of(&self, ActionsShape(shape): &ActionsShape) -> bool {
        self.0.len() == shape.len()
            && self.0.iter().zip(shape).all(|(entry, shape)| {
                entry.kind == shape.kind
                    && match (&entry.conf, &shape.conf) {
                        (Conf::Own(_), Conf::Own(_)) => true,
                        (Conf::Decap(a), Conf::Decap(b)) | (Conf::Encap(a), Conf::Encap(b)) => a.len() == b.len(),
                        (Conf::Modify { field: a, value: x }, Conf::Modify { field: b, value: y }) => {
                            a == b && x.len() == y.len()
                        }
                        (a, b) => a == b,
                    }
            })
    }

    /// The same for all actions of a shape.
    pub(super) fn hash_shape(&self, into: &mut impl Hasher) {
        for entry in &self.0 {
            into.write_u32(entry.kind);
            match &entry.conf {
                Conf::Decap(header) | Conf::Encap(header) => into.write_usize(header.len()),
                Conf::Modify { field, .. } => into.write_u32(*field),
                Conf::None | Conf::Own(_) | Conf::Common(_) | Conf::Rss { .. } => {}
            }
        }
    }

    pub(super) fn shape(&self) -> ActionsShape {
        let blank = |entry: &Entry| {
            let conf = match &entry.conf {
                Conf::Own(_) => Conf::Own(Blob::ZERO),
                Conf::Decap(header) => Conf::Decap(vec![0; header.len()]),
                Conf::Encap(header) => Conf::Encap(vec![0; header.len()]),
                Conf::Modify { field, value } => Conf::Modify { field: *field, value: vec![0; value.len()] },
                same @ (Conf::None | Conf::Common(_) | Conf::Rss { .. }) => same.clone(),
            };
            Entry { kind: entry.kind, conf }
        };
        ActionsShape(self.0.iter().map(blank).collect())
    }

    /// The array that rte_flow takes.
    pub(super) fn raw(&self) -> RawActions<'_> {
        let mut raw = RawActions::default();
        for entry in &self.0 {
            let conf = raw.conf(&entry.conf);
            raw.push(entry.kind, conf);
        }
        raw.push(kind::RTE_FLOW_ACTION_TYPE_END, std::ptr::null());
        raw
    }

    /// The masks for an actions template: what is set there is the same for every rule of it. Headers have their sizes in common (from
    /// 23.11 mlx5 takes no other: "size must be masked").
    pub(super) fn raw_masks(&self) -> RawActions<'_> {
        let mut raw = RawActions::default();
        for entry in &self.0 {
            let conf = match &entry.conf {
                Conf::Common(blob) => raw.mask_of(entry.kind, blob),
                Conf::Rss { .. } => raw.conf(&entry.conf),
                Conf::Modify { field, .. } => raw.modify_mask(*field),
                Conf::Decap(_) => raw.keep(OwnedConf::Decap(Box::new(dpdk_sys::rte_flow_action_raw_decap {
                    data: std::ptr::null_mut(),
                    size: usize::MAX,
                }))),
                Conf::Encap(_) => raw.keep(OwnedConf::Encap(Box::new(dpdk_sys::rte_flow_action_raw_encap {
                    data: std::ptr::null_mut(),
                    preserve: std::ptr::null_mut(),
                    size: usize::MAX,
                }))),
                // No mask: the value comes with each rule.
                Conf::None | Conf::Own(_) => std::ptr::null(),
            };
            raw.push(entry.kind, conf);
        }
        raw.push(kind::RTE_FLOW_ACTION_TYPE_END, std::ptr::null());
        raw
    }
}

/// A structure that holds pointers, or is built for one call; boxed, so that it stays where it is.
enum OwnedConf {
    Decap(Box<dpdk_sys::rte_flow_action_raw_decap>),
    Encap(Box<dpdk_sys::rte_flow_action_raw_encap>),
    Modify(Box<dpdk_sys::rte_flow_action_modify_field>),
    Rss(Box<dpdk_sys::rte_flow_action_rss>),
    Blob(Box<Blob>),
}

impl OwnedConf {
    fn as_ptr(&self) -> *const std::ffi::c_void {
        match self {
            Self::Decap(conf) => std::ptr::from_ref(&**conf).cast(),
            Self::Encap(conf) => std::ptr::from_ref(&**conf).cast(),
            Self::Modify(conf) => std::ptr::from_ref(&**conf).cast(),
            Self::Rss(conf) => std::ptr::from_ref(&**conf).cast(),
            Self::Blob(conf) => conf.as_ptr(),
        }
    }
}

/// An array of actions with END, and what it points to beside the [`Actions`] that it is of.
#[derive(Default)]
pub(super) struct RawActions<'a> {
    array: Vec<rte_flow_action>,
    kept: Vec<OwnedConf>,
    of: std::marker::PhantomData<&'a Actions>,
}

impl<'a> RawActions<'a> {
    pub(super) fn as_ptr(&self) -> *const rte_flow_action {
        self.array.as_ptr()
    }

    #[cfg(test)]
    pub(super) fn array(&self) -> &[rte_flow_action] {
        &self.array
    }

    fn push(&mut self, kind: kind::Type, conf: *const std::ffi::c_void) {
        self.array.push(rte_flow_action { type_: kind, conf });
    }

    fn keep(&mut self, kept: OwnedConf) -> *const std::ffi::c_void {
        let conf = kept.as_ptr();
        self.kept.push(kept);
        conf
    }

    fn conf(&mut self, conf: &'a Conf) -> *const std::ffi::c_void {
        match conf {
            Conf::None => std::ptr::null(),
            Conf::Own(blob) | Conf::Common(blob) => blob.as_ptr(),
            // Drivers read the header: the field is not const in C, but nothing writes to it.
            Conf::Decap(header) => {
                let decap =
                    dpdk_sys::rte_flow_action_raw_decap { data: header.as_ptr().cast_mut(), size: header.len() };
                self.keep(OwnedConf::Decap(Box::new(decap)))
            }
            Conf::Encap(header) => self.keep(OwnedConf::Encap(Box::new(dpdk_sys::rte_flow_action_raw_encap {
                data: header.as_ptr().cast_mut(),
                preserve: std::ptr::null_mut(),
                size: header.len(),
            }))),
            Conf::Modify { field, value } => {
                let mut modify = dpdk_sys::rte_flow_action_modify_field {
                    operation: dpdk_sys::rte_flow_modify_op::RTE_FLOW_MODIFY_SET,
                    width: u32::try_from(value.len() * 8).unwrap_or(0),
                    ..Default::default()
                };
                modify.dst.field = *field;
                modify.src.field = field::RTE_FLOW_FIELD_VALUE;
                let mut immediate = [0; 16];
                immediate.iter_mut().zip(value).for_each(|(slot, octet)| *slot = *octet);
                modify.src.__bindgen_anon_1.value = immediate;
                self.keep(OwnedConf::Modify(Box::new(modify)))
            }
            Conf::Rss { queues } => {
                let rss = dpdk_sys::rte_flow_action_rss {
                    queue_num: u32::try_from(queues.len()).unwrap_or(0),
                    queue: queues.as_ptr(),
                    ..Default::default()
                };
                self.keep(OwnedConf::Rss(Box::new(rss)))
            }
        }
    }

    /// A group to jump to is the template's; a counter has no value to fix.
    fn mask_of(&mut self, kind: kind::Type, blob: &Blob) -> *const std::ffi::c_void {
        if blob.octets().iter().all(|octet| *octet == 0) && kind != kind::RTE_FLOW_ACTION_TYPE_JUMP {
            return std::ptr::null();
        }
        self.keep(OwnedConf::Blob(Box::new(Blob::with(0, &u32::MAX.to_ne_bytes()))))
    }

    /// Everything but the value is the template's. mlx5 wants the mask to equal the template in operation and fields
    /// (flow_hw_validate_action_modify_field).
    fn modify_mask(&mut self, field: field::Type) -> *const std::ffi::c_void {
        let mut mask = dpdk_sys::rte_flow_action_modify_field {
            operation: dpdk_sys::rte_flow_modify_op::RTE_FLOW_MODIFY_SET,
            width: u32::MAX,
            ..Default::default()
        };
        mask.dst.field = field;
        mask.src.field = field::RTE_FLOW_FIELD_VALUE;
        // Level and offset of the destination.
        mask.dst.__bindgen_anon_1.value = [0xff; 16];
        self.keep(OwnedConf::Modify(Box::new(mask)))
    }
}
