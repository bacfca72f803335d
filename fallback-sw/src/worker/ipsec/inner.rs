//! What ESP reads of the packet inside.

/// The don't-fragment bit, and the type of service, of an IP packet.
pub(super) fn df_and_tos(l3: &[u8]) -> (bool, u8) {
    match l3 {
        [first, second, ..] if first >> 4 == 6 => (true, first << 4 | second >> 4),
        [_, tos, _, _, _, _, flags, ..] => (flags & 0x40 != 0, *tos),
        _ => (false, 0),
    }
}
