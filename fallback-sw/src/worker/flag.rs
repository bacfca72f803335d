//! Bits of [`Record::flags`](crate::flow_table::Record::flags).

/// This direction made the pair.
pub(crate) const INITIATOR: u8 = 0x01;
/// Counted as half-open for the tenant that began it.
pub(crate) const HALF_OPEN: u8 = 0x02;
/// The policy denies the flow: there is no other direction.
pub(crate) const DENIED: u8 = 0x04;
/// The client was answered with a SYN cookie: its numbers of the server differ by [`Binding::sequence_shift`].
///
/// [`Binding::sequence_shift`]: crate::flow_table::Binding::sequence_shift
pub(crate) const SPLICED: u8 = 0x08;
/// Spliced, but the server has not answered yet.
pub(crate) const OPENING: u8 = 0x10;
/// Its next ordinary packet shows how packets of the flow arrive, for offloading it.
pub(crate) const SAMPLE: u8 = 0x20;
/// There is an entry on offloading the flow, whose number is [`Binding::offload`].
///
/// [`Binding::offload`]: crate::flow_table::Binding::offload
pub(crate) const OFFLOAD: u8 = 0x40;
/// The route to one of its ends has changed since its program was derived.
pub(crate) const STALE: u8 = 0x80;
