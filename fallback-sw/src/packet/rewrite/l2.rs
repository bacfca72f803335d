//! Ethernet headers.

use offload_rules::DropReason;

/// Writes a prebuilt header of 14, 18 or 22 octets into `out` (as long as the header, fresh from `Packet::prepend`), with
/// the ethertype of the packet that follows and the priority that it came in with.
///
/// `pcp` is the 802.1p priority (0..=7) for the outermost tag; `None` leaves the one in the header.
///
/// # Errors
/// [`DropReason::NoHeadroom`] when `out` is not as long as the header, [`DropReason::InvalidNh`] for a header of no other length.
#[inline]
pub fn write_l2(out: &mut [u8], header: &[u8], ethertype: u16, pcp: Option<u8>) -> Result<(), DropReason> {
    // One copy of constant size each: a length known at run time would be a call of memcpy.
    match header.len() {
        14 => {
            let (Some(out), Some(header)) = (exactly::<14>(out), header.first_chunk::<14>()) else {
                return Err(DropReason::NoHeadroom);
            };
            *out = *header;
            [out[12], out[13]] = ethertype.to_be_bytes();
        }
        18 => {
            let (Some(out), Some(header)) = (exactly::<18>(out), header.first_chunk::<18>()) else {
                return Err(DropReason::NoHeadroom);
            };
            *out = *header;
            if let Some(pcp) = pcp {
                out[14] = out[14] & 0x1f | pcp << 5;
            }
            [out[16], out[17]] = ethertype.to_be_bytes();
        }
        22 => {
            let (Some(out), Some(header)) = (exactly::<22>(out), header.first_chunk::<22>()) else {
                return Err(DropReason::NoHeadroom);
            };
            *out = *header;
            if let Some(pcp) = pcp {
                out[14] = out[14] & 0x1f | pcp << 5;
            }
            [out[20], out[21]] = ethertype.to_be_bytes();
        }
        _ => return Err(DropReason::InvalidNh),
    }
    Ok(())
}

#[inline(always)]
fn exactly<const N: usize>(out: &mut [u8]) -> Option<&mut [u8; N]> {
    out.try_into().ok()
}
