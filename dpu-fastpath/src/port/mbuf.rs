//! An mbuf as a packet, and back.

use std::{ffi::c_void, ptr::NonNull};

use dpdk_sys as sys;
use fallback_sw::packet::{Foreign, NicNote, Owner, Packet};
use offload_rules::lower::Meta;

use super::pool::Pool;

/// The owner of received packets' memory.
pub(super) static DPDK: Owner = Owner { release };

/// Gives an mbuf back to its pool.
///
/// # Safety
/// The handle must be an mbuf that nobody uses any more.
unsafe fn release(handle: NonNull<()>) {
    // SAFETY: by the contract of this function; pools are for all threads.
    unsafe { sys::rte_pktmbuf_free(handle.cast::<sys::rte_mbuf>().as_ptr()) };
}

/// An mbuf that nobody else has; freed when it is dropped.
#[derive(Debug)]
pub(super) struct Mbuf(NonNull<sys::rte_mbuf>);

/// A session of IPsec that the NIC applies to a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seal {
    /// rte_security's, of the port.
    pub(super) context: NonNull<c_void>,
    pub(super) session: NonNull<c_void>,
    pub(super) headers: Headers,
}

/// Where headers are, as drivers want to know it of what they seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    /// Octets of Ethernet and its tags.
    l2: u16,
    /// Octets of IP.
    l3: u16,
    /// The flag of the IP version.
    ip: u64,
}

impl Headers {
    /// Of a frame; `None`: it holds no IP packet.
    pub(super) fn of(frame: &[u8]) -> Option<Self> {
        let mut l2 = ADDRESSES as u16;
        let mut rest = frame.get(ADDRESSES..)?;
        loop {
            let (ethertype, behind) = rest.split_first_chunk::<2>()?;
            l2 += 2;
            match u16::from_be_bytes(*ethertype) {
                0x8100 | 0x88a8 => {
                    rest = behind.get(2..)?;
                    l2 = l2.checked_add(2)?;
                }
                0x0800 => {
                    let words = behind.first().filter(|octet| *octet >> 4 == 4)? & 0x0f;
                    return Some(Self { l2, l3: u16::from(words) * 4, ip: sys::RTE_MBUF_F_TX_IPV4 });
                }
                0x86dd => return Some(Self { l2, l3: 40, ip: sys::RTE_MBUF_F_TX_IPV6 }),
                _ => return None,
            }
        }
    }
}

/// What the NIC has done about IPsec.
#[inline]
fn note(view: &sys::rte_mbuf_view) -> NicNote {
    let has = |flag: u64| view.ol_flags & flag != 0;
    if has(u64::from(sys::RTE_MBUF_F_RX_SEC_OFFLOAD_FAILED)) {
        return NicNote::Refused;
    }
    // A rule's metadata takes precedence over the session's: it is written later.
    match Meta::of(view.meta).or_else(|| Meta::of(view.told)) {
        Some(Meta::Opened(vif)) => NicNote::Opened(vif),
        Some(Meta::ToSeal(vif)) => NicNote::ToSeal(vif),
        None if has(u64::from(sys::RTE_MBUF_F_RX_SEC_OFFLOAD)) => NicNote::Deciphered,
        None => NicNote::None,
    }
}

/// Octets of the MAC addresses, behind which a VLAN tag goes.
const ADDRESSES: usize = 12;

impl Mbuf {
    /// # Safety
    /// The caller has the mbuf, with all its segments, and gives it away.
    pub(super) const unsafe fn new(mbuf: NonNull<sys::rte_mbuf>) -> Self {
        Self(mbuf)
    }

    /// An empty one.
    pub(super) fn allocate(pool: &Pool) -> Option<Self> {
        // SAFETY: a pool that is never freed.
        NonNull::new(unsafe { sys::rte_pktmbuf_alloc(pool.as_ptr()) }).map(Self)
    }

    /// Gives it away.
    pub(super) fn into_raw(self) -> *mut sys::rte_mbuf {
        let mbuf = self.0.as_ptr();
        std::mem::forget(self);
        mbuf
    }

    fn view(&self) -> sys::rte_mbuf_view {
        let mut view = sys::rte_mbuf_view::default();
        // SAFETY: a live mbuf and a place for the answer.
        unsafe { sys::rte_mbuf_view_get(self.0.as_ptr(), &raw mut view) };
        view
    }

    /// The frame as the NIC has left it, with the NIC's mark and note; without a copy unless somebody shares the memory. `None`: it
    /// cannot be made one piece.
    pub(super) fn into_packet(self, copy: bool) -> Option<Packet> {
        let mut view = self.view();
        if view.nb_segs > 1 {
            // SAFETY: a live mbuf that nobody else has.
            if view.shared != 0 || unsafe { sys::rte_pktmbuf_linearize(self.0.as_ptr()) } != 0 {
                return None;
            }
            view = self.view();
        }
        let mark = (view.ol_flags & u64::from(sys::RTE_MBUF_F_RX_FDIR_ID) != 0).then_some(view.mark);
        let stripped = (view.ol_flags & u64::from(sys::RTE_MBUF_F_RX_VLAN_STRIPPED) != 0).then_some(view.vlan_tci);
        let memory = NonNull::new(view.buf_addr.cast::<u8>())?;
        let mut packet = if copy || view.shared != 0 {
            if u32::from(view.data_off) + u32::from(view.data_len) > u32::from(view.buf_len) {
                return None;
            }
            // SAFETY: the driver has put `data_len` octets there, inside the buffer; the mbuf is freed behind the copy.
            let frame = unsafe {
                std::slice::from_raw_parts(memory.as_ptr().add(usize::from(view.data_off)), usize::from(view.data_len))
            };
            Packet::from_frame(frame)
        } else {
            let handle = self.0.cast();
            std::mem::forget(self);
            // SAFETY: the mbuf's buffer is `buf_len` octets of memory that DPDK has mapped and nobody else uses; it is in the
            // packet's hands until `release`.
            unsafe {
                let (head, len) = (u32::from(view.data_off), u32::from(view.data_len));
                Packet::from_foreign(memory, u32::from(view.buf_len), head, len, handle, &DPDK)
            }
        };
        if let Some(tci) = stripped {
            put_tag_back(&mut packet, tci)?;
        }
        packet.set_mark(mark);
        packet.set_note(note(&view));
        Some(packet)
    }

    /// The very mbuf that the packet was received in, with the frame as it is now.
    ///
    /// # Errors
    /// The packet, which borrows the mbuf's memory.
    pub(super) fn from_packet(packet: Packet) -> Result<Self, Packet> {
        let Foreign { handle, head, len } = packet.into_foreign(&DPDK)?;
        let mbuf = Self(handle.cast());
        // An mbuf's buffer has at most 65535 octets, and so have head and length.
        let (head, len) = (u16::try_from(head).unwrap_or(0), u16::try_from(len).unwrap_or(0));
        // SAFETY: a live mbuf that nobody else has; the frame is inside its buffer.
        unsafe { sys::rte_mbuf_view_set(mbuf.0.as_ptr(), head, len) };
        Ok(mbuf)
    }

    /// A copy of a frame. `None`: the pool is empty or its buffers are too small.
    pub(super) fn copy_of(frame: &[u8], pool: &Pool) -> Option<Self> {
        let mbuf = Self::allocate(pool)?;
        let len = u16::try_from(frame.len()).ok()?;
        // SAFETY: a live mbuf that nobody else has.
        let room = unsafe { sys::rte_pktmbuf_append(mbuf.0.as_ptr(), len) };
        let room = NonNull::new(room)?.cast::<u8>();
        // SAFETY: `append` has checked that there are as many octets behind `room`; they are not the frame's.
        unsafe { std::ptr::copy_nonoverlapping(frame.as_ptr(), room.as_ptr(), frame.len()) };
        Some(mbuf)
    }

    /// Has the NIC apply a session when the frame is sent. False: it does not, and the frame must not be sent.
    #[must_use]
    pub(super) fn seal(&mut self, seal: &Seal) -> bool {
        let Seal { context, session, headers } = seal;
        // SAFETY: a live mbuf that nobody else has; the context is of the port that it is sent on, and the session is open.
        let code = unsafe {
            sys::rte_mbuf_tx_security(
                self.0.as_ptr(),
                context.as_ptr(),
                session.as_ptr(),
                headers.l2,
                headers.l3,
                headers.ip,
            )
        };
        code == 0
    }
}

impl Drop for Mbuf {
    fn drop(&mut self) {
        // SAFETY: nobody else has it.
        unsafe { sys::rte_pktmbuf_free(self.0.as_ptr()) };
    }
}

/// Puts back a tag that the driver took out of the frame.
fn put_tag_back(packet: &mut Packet, tci: u16) -> Option<()> {
    if packet.len() < ADDRESSES {
        return None;
    }
    packet.prepend(4).ok()?;
    let frame = packet.data_mut();
    frame.copy_within(4..ADDRESSES + 4, 0);
    let [high, low] = tci.to_be_bytes();
    frame.get_mut(ADDRESSES..ADDRESSES + 4)?.copy_from_slice(&[0x81, 0, high, low]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_was_taken_out_is_put_behind_the_addresses() {
        let mut packet = Packet::from_frame(b"destinsource\x08\x00rest");
        put_tag_back(&mut packet, 0x6064).unwrap();
        assert_eq!(packet.data(), b"destinsource\x81\x00\x60\x64\x08\x00rest");
        assert!(put_tag_back(&mut Packet::from_frame(b"short"), 1).is_none());
    }
    #[test]
    fn headers_are_found_behind_tags_and_only_ip_has_any() {
        let addresses = [2_u8; ADDRESSES];
        let frame = |rest: &[u8]| [&addresses[..], rest].concat();
        let v4 = |l2, l3| Some(Headers { l2, l3, ip: sys::RTE_MBUF_F_TX_IPV4 });
        assert_eq!(Headers::of(&frame(&[0x08, 0, 0x45])), v4(14, 20));
        assert_eq!(Headers::of(&frame(&[0x81, 0, 0, 7, 0x08, 0, 0x46])), v4(18, 24));
        assert_eq!(Headers::of(&frame(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 0x08, 0, 0x45])), v4(22, 20));
        let v6 = Some(Headers { l2: 14, l3: 40, ip: sys::RTE_MBUF_F_TX_IPV6 });
        assert_eq!(Headers::of(&frame(&[0x86, 0xdd])), v6);
        for rest in [&[0x08, 0x06][..], &[0x08, 0], &[0x08, 0, 0x65], &[0x81, 0, 0], &[8], &[]] {
            assert_eq!(Headers::of(&frame(rest)), None, "{rest:x?}");
        }
        assert_eq!(Headers::of(&[]), None);
    }

    #[test]
    fn a_note_repeats_rule_or_session_and_a_refusal_precedes_both() {
        let vif = |number| offload_rules::VifId::new(number).unwrap();
        let opened = Meta::Opened(vif(4111)).bits();
        let to_seal = Meta::ToSeal(vif(7)).bits();
        let security = u64::from(sys::RTE_MBUF_F_RX_SEC_OFFLOAD);
        let failed = u64::from(sys::RTE_MBUF_F_RX_SEC_OFFLOAD_FAILED);
        for (ol_flags, meta, told, expected) in [
            (0, 0, 0, NicNote::None),
            (0, 77, 0, NicNote::None),
            (0, to_seal, 0, NicNote::ToSeal(vif(7))),
            (security, opened, 0, NicNote::Opened(vif(4111))),
            (security, 0, opened, NicNote::Opened(vif(4111))),
            (security, to_seal, opened, NicNote::ToSeal(vif(7))),
            (security, 0, 0, NicNote::Deciphered),
            (security, 77, 78, NicNote::Deciphered),
            (security | failed, 0, opened, NicNote::Refused),
            (failed, opened, 0, NicNote::Refused),
        ] {
            let view = sys::rte_mbuf_view { ol_flags, meta, told, ..Default::default() };
            assert_eq!(note(&view), expected, "{ol_flags:#x} {meta:#x} {told:#x}");
        }
    }
}
