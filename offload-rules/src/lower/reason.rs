//! Why a flow is not in hardware.

/// Lowering is not possible. Each is a fact about the program, the packets or the profile; none goes away by trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Unsupported {
    /// ICMP is matched and answered in software alone: echo identifiers and quoted packets.
    #[error("ICMP is answered and matched in software")]
    Icmp,
    /// Punted to the host or an agent.
    #[error("packets go to the host")]
    Punt,
    /// Packets are opened or sealed with ESP, and not by the NIC.
    #[error("packets go through an IPsec tunnel whose ESP the NIC does not do on the way")]
    Ipsec,
    /// A protocol whose flow cannot be told from others by the NIC.
    #[error("the NIC does not match this IP protocol")]
    Protocol,
    /// The flow is spliced behind a SYN cookie.
    #[error("sequence numbers are shifted behind a SYN cookie")]
    SequenceShift,
    /// The vif has no Ethernet header.
    #[error("the vif carries packets without an Ethernet header")]
    RawIp,
    /// Packets can arrive that are larger than the way on takes, and the NIC cannot match the length.
    #[error(
        "packets larger than the path MTU can arrive, and the NIC cannot match the length: raise the egress MTU, or lower the ingress MTU"
    )]
    Oversize,
    /// The NIC does not take MPLS over UDP off.
    #[error("the NIC does not decapsulate MPLS over UDP")]
    Decap,
    /// The NIC takes tunnels off what comes from the wire alone.
    #[error("the NIC takes tunnels off what comes from the wire, not off what a virtual function sends")]
    DecapFromFunction,
    /// The NIC does not put MPLS over UDP on.
    #[error("the NIC does not encapsulate MPLS over UDP")]
    Encap,
    /// The NIC does not rewrite Ethernet headers or tags.
    #[error("the NIC does not rewrite Ethernet headers")]
    RewriteL2,
    /// The NIC does not push, pop or change VLAN tags, or not as many.
    #[error("the NIC does not change these VLAN tags")]
    Vlan,
    /// The NIC does not write TTL or hop limit.
    #[error("the NIC does not write TTL or hop limit")]
    Ttl,
    /// The NIC does not match a field that the decision was made on.
    #[error("the NIC does not match a field that the decision depends on")]
    Match,
    /// The NIC does not tell such a tag from others.
    #[error("the NIC does not tell tags of this type (TPID) from others")]
    TagType,
    /// The NIC's parser does not look for a label behind this UDP port.
    #[error("the NIC looks for MPLS over UDP on port 6635 only (RFC 7510)")]
    TunnelPort,
    /// The NIC does not change one tunnel for another in one rule.
    #[error("the NIC does not take one tunnel off and put another on in one rule")]
    TunnelToTunnel,
    /// The NIC would forward packets with a wrong header checksum or length.
    #[error("the NIC does not check IP headers of these packets, and --strict-offload asks for it")]
    HeaderCheck,
    /// The NIC does not match IPv6 flows.
    #[error("the NIC does not match IPv6 flows")]
    Family6,
    /// The NIC does not forward from one port to another.
    #[error("the NIC does not forward between ports")]
    PortToPort,
    /// The NIC has no drop action for the flow.
    #[error("the NIC does not drop by rule")]
    Drop,
    /// The NIC does not mark packets, or not with a number this large, or does not choose their queue.
    #[error("the NIC does not mark packets for their queue")]
    Mark,
    /// The NIC refused the start-up canary of this shape.
    #[error("the NIC refused the canary of this shape at start")]
    Probe,
    /// In on one physical port and out on one, by the NIC's switch, which does not do that (or takes the rule and drops).
    #[error(
        "the NIC's switch does not forward from wire to wire: put one side on a VF (--port with a representor), or take the NIC out of \
         switchdev mode for hairpin queues"
    )]
    WireToWire,
    /// The two ports belong to two switches.
    #[error(
        "the way in and the way out are ports of two switches: use ports of one NIC port and its VFs, or hairpin queues"
    )]
    OtherSwitch,
    /// The ingress or egress device is not a port of the NIC.
    #[error("a device on the way is not a port of the NIC")]
    ForeignPort,
}

/// Classes of failures that a NIC reports. Whatever the class, the flow stays in software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum FailureClass {
    /// ENOTSUP, EINVAL, ENOSYS: this shape never.
    #[error("the NIC refuses rules of this shape")]
    Shape,
    /// ENOSPC, ENOMEM, ENOENT: no room.
    #[error("the NIC has no room")]
    Capacity,
    /// EAGAIN, EBUSY: later.
    #[error("the NIC is busy")]
    Busy,
    /// EEXIST: a rule with this match is there.
    #[error("the NIC has a rule with this match already")]
    Duplicate,
    /// No completion in time.
    #[error("the NIC did not answer in time")]
    Timeout,
    /// Anything else, EIO and ENODEV among them.
    #[error("the NIC failed")]
    Device,
}

/// Why a flow is in software, as operators read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum NotOffloaded {
    /// This node drives no NIC.
    #[error("no hardware: this node forwards in software")]
    NoHardware,
    /// `host-ctl offload off`.
    #[error("offload is switched off")]
    Off,
    /// No packet of one of the directions has been seen yet.
    #[error("one direction has not been seen yet")]
    OneSided,
    /// The TCP connection is not established, or is closing.
    #[error("the TCP connection is being opened or closed")]
    NotEstablished,
    /// Asked for, not answered yet.
    #[error("waiting for the NIC")]
    Pending,
    /// The queue to the engine was full; asked again later.
    #[error("the request queue is full, asked again later")]
    QueueFull,
    /// The table is full of flows that carry more.
    #[error("the table is full of flows that carry more")]
    Placement,
    /// Lowering is not possible.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// The NIC said no; asked again later unless the class is [`FailureClass::Shape`].
    #[error(transparent)]
    Failed(#[from] FailureClass),
    /// The NIC took the rule, but software still sees what it should take.
    #[error("the NIC accepted the rule and does not honour it")]
    NotHonoured,
    /// The forwarding state has changed; being derived anew.
    #[error("being derived anew after a change")]
    Changing,
}
