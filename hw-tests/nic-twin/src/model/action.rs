//! Attributes and actions of a rule, as the guide's "Attributes" and "Actions" sections have them.

/// Number of a DPDK port.
pub type PortId = u16;

/// A rule's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attr {
    /// Group; packets meet group 0 first.
    pub group: u32,
    /// Priority inside the group; 0 is matched first.
    pub priority: u32,
    /// Applies to packets received.
    pub ingress: bool,
    /// Applies to packets that the application sends.
    pub egress: bool,
    /// Applies in the switch, before ports.
    pub transfer: bool,
}

/// An indirect action's handle: an index and a generation, so that a stale one is never another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IndirectId(pub u64);

/// The operation of MODIFY_FIELD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModifyOp {
    /// Replace.
    Set,
    /// Add, modulo the width.
    Add,
    /// Subtract, modulo the width.
    Sub,
}

/// A field that MODIFY_FIELD writes (`enum rte_flow_field_id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldId {
    /// Destination MAC.
    MacDst,
    /// Source MAC.
    MacSrc,
    /// VLAN id of the outer tag.
    VlanId,
    /// EtherType of the Ethernet header.
    MacType,
    /// IPv4 DSCP, 6 bits.
    Ipv4Dscp,
    /// IPv4 ECN, 2 bits.
    Ipv4Ecn,
    /// IPv4 TTL.
    Ipv4Ttl,
    /// IPv4 source.
    Ipv4Src,
    /// IPv4 destination.
    Ipv4Dst,
    /// IPv6 DSCP, 6 bits.
    Ipv6Dscp,
    /// IPv6 ECN, 2 bits.
    Ipv6Ecn,
    /// IPv6 hop limit.
    Ipv6HopLimit,
    /// IPv6 source.
    Ipv6Src,
    /// IPv6 destination.
    Ipv6Dst,
    /// TCP source port.
    TcpSrc,
    /// TCP destination port.
    TcpDst,
    /// UDP source port.
    UdpSrc,
    /// UDP destination port.
    UdpDst,
    /// The mark.
    Mark,
    /// The metadata.
    Meta,
    /// A tag; [`Modify::level`] is its index.
    Tag,
    /// Any other field.
    Other,
}

/// MODIFY_FIELD with an immediate source. `value` is laid out as in the item of the field; `offset` and `width` choose bits of it,
/// counted from the field's first bit on the wire (from the least significant bit for mark, metadata and tags).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modify {
    /// Set, add, subtract.
    pub op: ModifyOp,
    /// What is written.
    pub field: FieldId,
    /// 0 and 1: outermost headers; 2: the inner ones; index of a tag.
    pub level: u32,
    /// Bits to skip from the start of the field.
    pub offset: u32,
    /// Bits to write.
    pub width: u32,
    /// The immediate value; `None` when the source is another field.
    pub value: Option<[u8; 16]>,
}

/// One action of a list. Buffers are borrowed from the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// Ignored.
    Void,
    /// Go on with the next rule that matches.
    PassThru,
    /// Go on in this group.
    Jump(u32),
    /// Attach a number.
    Mark(u32),
    /// Attach the flag alone.
    Flag,
    /// To this receive queue.
    Queue(u16),
    /// Spread over these receive queues.
    Rss(&'a [u16]),
    /// Drop.
    Drop,
    /// Count under this id (unique in the rule).
    Count(u32),
    /// Tell when this many seconds pass without a packet; the context comes back (`None`: the rule's handle).
    Age {
        /// Seconds, 24 bits.
        timeout: u32,
        /// The application's value.
        context: Option<u64>,
    },
    /// Take off headers as long as this template.
    RawDecap(&'a [u8]),
    /// Put these headers before the packet.
    RawEncap(&'a [u8]),
    /// Take off the outer tag.
    PopVlan,
    /// Put on a tag of this TPID.
    PushVlan(u16),
    /// Set the id of the outer tag.
    SetVlanVid(u16),
    /// Set the priority of the outer tag.
    SetVlanPcp(u8),
    /// Source MAC.
    SetMacSrc([u8; 6]),
    /// Destination MAC.
    SetMacDst([u8; 6]),
    /// IPv4 source of the outermost header.
    SetIpv4Src([u8; 4]),
    /// IPv4 destination.
    SetIpv4Dst([u8; 4]),
    /// IPv6 source.
    SetIpv6Src([u8; 16]),
    /// IPv6 destination.
    SetIpv6Dst([u8; 16]),
    /// IPv4 DSCP, low 6 bits.
    SetIpv4Dscp(u8),
    /// IPv6 DSCP, low 6 bits.
    SetIpv6Dscp(u8),
    /// TCP or UDP source port.
    SetTpSrc(u16),
    /// TCP or UDP destination port.
    SetTpDst(u16),
    /// TTL or hop limit.
    SetTtl(u8),
    /// Decrease TTL or hop limit.
    DecTtl,
    /// Set bits of the metadata.
    SetMeta {
        /// Value.
        data: u32,
        /// Bits of it that are written.
        mask: u32,
    },
    /// Set bits of a tag.
    SetTag {
        /// Value.
        data: u32,
        /// Bits of it that are written.
        mask: u32,
        /// Which tag.
        index: u8,
    },
    /// Change a field.
    ModifyField(Modify),
    /// To the wire of this DPDK port (deprecated form).
    PortId(PortId),
    /// To the wire of this ethdev.
    RepresentedPort(PortId),
    /// To the application, by this ethdev.
    PortRepresentor(PortId),
    /// Apply a security session.
    Security(u64),
    /// An action shared among rules.
    Indirect(IndirectId),
    /// An action that the glue could not name.
    Other,
}

/// The type of an action, without its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActionKind {
    /// See [`Action::Void`].
    Void,
    /// See [`Action::PassThru`].
    PassThru,
    /// See [`Action::Jump`].
    Jump,
    /// See [`Action::Mark`].
    Mark,
    /// See [`Action::Flag`].
    Flag,
    /// See [`Action::Queue`].
    Queue,
    /// See [`Action::Rss`].
    Rss,
    /// See [`Action::Drop`].
    Drop,
    /// See [`Action::Count`].
    Count,
    /// See [`Action::Age`].
    Age,
    /// See [`Action::RawDecap`].
    RawDecap,
    /// See [`Action::RawEncap`].
    RawEncap,
    /// See [`Action::PopVlan`].
    PopVlan,
    /// See [`Action::PushVlan`].
    PushVlan,
    /// See [`Action::SetVlanVid`].
    SetVlanVid,
    /// See [`Action::SetVlanPcp`].
    SetVlanPcp,
    /// See [`Action::SetMacSrc`].
    SetMacSrc,
    /// See [`Action::SetMacDst`].
    SetMacDst,
    /// See [`Action::SetIpv4Src`].
    SetIpv4Src,
    /// See [`Action::SetIpv4Dst`].
    SetIpv4Dst,
    /// See [`Action::SetIpv6Src`].
    SetIpv6Src,
    /// See [`Action::SetIpv6Dst`].
    SetIpv6Dst,
    /// See [`Action::SetIpv4Dscp`].
    SetIpv4Dscp,
    /// See [`Action::SetIpv6Dscp`].
    SetIpv6Dscp,
    /// See [`Action::SetTpSrc`].
    SetTpSrc,
    /// See [`Action::SetTpDst`].
    SetTpDst,
    /// See [`Action::SetTtl`].
    SetTtl,
    /// See [`Action::DecTtl`].
    DecTtl,
    /// See [`Action::SetMeta`].
    SetMeta,
    /// See [`Action::SetTag`].
    SetTag,
    /// See [`Action::ModifyField`].
    ModifyField,
    /// See [`Action::PortId`].
    PortId,
    /// See [`Action::RepresentedPort`].
    RepresentedPort,
    /// See [`Action::PortRepresentor`].
    PortRepresentor,
    /// See [`Action::Security`].
    Security,
    /// See [`Action::Indirect`].
    Indirect,
    /// See [`Action::Other`].
    Other,
}

impl Action<'_> {
    /// Its type.
    pub const fn kind(&self) -> ActionKind {
        match self {
            Action::Void => ActionKind::Void,
            Action::PassThru => ActionKind::PassThru,
            Action::Jump(_) => ActionKind::Jump,
            Action::Mark(_) => ActionKind::Mark,
            Action::Flag => ActionKind::Flag,
            Action::Queue(_) => ActionKind::Queue,
            Action::Rss(_) => ActionKind::Rss,
            Action::Drop => ActionKind::Drop,
            Action::Count(_) => ActionKind::Count,
            Action::Age { .. } => ActionKind::Age,
            Action::RawDecap(_) => ActionKind::RawDecap,
            Action::RawEncap(_) => ActionKind::RawEncap,
            Action::PopVlan => ActionKind::PopVlan,
            Action::PushVlan(_) => ActionKind::PushVlan,
            Action::SetVlanVid(_) => ActionKind::SetVlanVid,
            Action::SetVlanPcp(_) => ActionKind::SetVlanPcp,
            Action::SetMacSrc(_) => ActionKind::SetMacSrc,
            Action::SetMacDst(_) => ActionKind::SetMacDst,
            Action::SetIpv4Src(_) => ActionKind::SetIpv4Src,
            Action::SetIpv4Dst(_) => ActionKind::SetIpv4Dst,
            Action::SetIpv6Src(_) => ActionKind::SetIpv6Src,
            Action::SetIpv6Dst(_) => ActionKind::SetIpv6Dst,
            Action::SetIpv4Dscp(_) => ActionKind::SetIpv4Dscp,
            Action::SetIpv6Dscp(_) => ActionKind::SetIpv6Dscp,
            Action::SetTpSrc(_) => ActionKind::SetTpSrc,
            Action::SetTpDst(_) => ActionKind::SetTpDst,
            Action::SetTtl(_) => ActionKind::SetTtl,
            Action::DecTtl => ActionKind::DecTtl,
            Action::SetMeta { .. } => ActionKind::SetMeta,
            Action::SetTag { .. } => ActionKind::SetTag,
            Action::ModifyField(_) => ActionKind::ModifyField,
            Action::PortId(_) => ActionKind::PortId,
            Action::RepresentedPort(_) => ActionKind::RepresentedPort,
            Action::PortRepresentor(_) => ActionKind::PortRepresentor,
            Action::Security(_) => ActionKind::Security,
            Action::Indirect(_) => ActionKind::Indirect,
            Action::Other => ActionKind::Other,
        }
    }
}

impl ActionKind {
    /// Does it decide where the packet goes (an action "of the disposition kind")?
    pub const fn is_fate(self) -> bool {
        matches!(
            self,
            ActionKind::Jump
                | ActionKind::Queue
                | ActionKind::Rss
                | ActionKind::Drop
                | ActionKind::PortId
                | ActionKind::RepresentedPort
                | ActionKind::PortRepresentor
                | ActionKind::PassThru
        )
    }
}
