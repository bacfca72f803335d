//! A packet of DPDK that is owned: it is handed on, or freed.

use std::ptr::NonNull;

use super::ffi;
use crate::model::NO_SESSION;

/// See [`Packet::session`].
///
/// # Safety
/// `raw` is a valid mbuf.
pub(super) unsafe fn session_of(raw: *const ffi::rte_mbuf) -> Option<(u64, usize)> {
    let (mut session, mut link) = (NO_SESSION, 0);
    // SAFETY: by the contract of this function; places for the answer.
    let sealed = unsafe { ffi::twin_mbuf_tx_session(raw, &mut session, &mut link) };
    (sealed != 0).then_some((session, link as usize))
}

/// An mbuf that belongs to the holder.
#[derive(Debug)]
pub(super) struct Packet(NonNull<ffi::rte_mbuf>);

// SAFETY: an mbuf may be used and freed on any thread; pools are thread-safe for that.
unsafe impl Send for Packet {}

impl Packet {
    /// Takes over an mbuf.
    ///
    /// # Safety
    /// `raw` is null or a valid mbuf that nobody else frees.
    pub(super) unsafe fn from_raw(raw: *mut ffi::rte_mbuf) -> Option<Packet> {
        NonNull::new(raw).map(Packet)
    }

    /// Gives the mbuf away.
    pub(super) fn into_raw(self) -> *mut ffi::rte_mbuf {
        let raw = self.0.as_ptr();
        std::mem::forget(self);
        raw
    }

    /// Octets of the frame.
    pub(super) fn len(&self) -> u32 {
        // SAFETY: a valid mbuf.
        unsafe { ffi::twin_mbuf_length(self.0.as_ptr()) }
    }

    /// The whole frame; `None` when it lies in pieces that don't fit one segment.
    pub(super) fn bytes(&mut self) -> Option<&[u8]> {
        let mut length = 0;
        // SAFETY: a valid mbuf that is ours.
        let data = NonNull::new(unsafe { ffi::twin_mbuf_data(self.0.as_ptr(), &mut length) })?;
        // SAFETY: the segment holds `length` octets from there, and stays while the packet is borrowed.
        Some(unsafe { std::slice::from_raw_parts(data.as_ptr(), usize::try_from(length).ok()?) })
    }

    /// The packet with other octets: in its own buffer, or in another of the same pool. `None`: too long, or no buffer is left.
    pub(super) fn with(self, frame: &[u8]) -> Option<Packet> {
        let length = u32::try_from(frame.len()).ok()?;
        // SAFETY: a valid mbuf that is ours; the frame is another allocation.
        if unsafe { ffi::twin_mbuf_replace(self.0.as_ptr(), frame.as_ptr(), length) } == 0 {
            return Some(self);
        }
        self.copy_of(frame)
    }

    /// A new packet of the same pool with these octets.
    pub(super) fn copy_of(&self, frame: &[u8]) -> Option<Packet> {
        let length = u32::try_from(frame.len()).ok()?;
        // SAFETY: a valid mbuf; what comes back is null or a new mbuf of its pool.
        unsafe { Packet::from_raw(ffi::twin_mbuf_like(self.0.as_ptr(), frame.as_ptr(), length)) }
    }

    /// Was received on `port`, with nothing known about it yet.
    pub(super) fn received_on(&mut self, port: u16) {
        // SAFETY: a valid mbuf that is ours.
        unsafe { ffi::twin_mbuf_received(self.0.as_ptr(), port) }
    }

    /// Carries this RSS hash.
    pub(super) fn set_hash(&mut self, hash: u32) {
        // SAFETY: a valid mbuf that is ours.
        unsafe { ffi::twin_mbuf_hash(self.0.as_ptr(), hash) }
    }

    /// Was flagged by a rule.
    pub(super) fn set_flag(&mut self) {
        // SAFETY: a valid mbuf that is ours.
        unsafe { ffi::twin_mbuf_flag(self.0.as_ptr()) }
    }

    /// Was marked by a rule.
    pub(super) fn set_mark(&mut self, id: u32) {
        // SAFETY: a valid mbuf that is ours.
        unsafe { ffi::twin_mbuf_mark(self.0.as_ptr(), id) }
    }

    /// Carries metadata of a rule, where the application has registered its place.
    pub(super) fn set_meta(&mut self, value: u32) {
        // SAFETY: a valid mbuf that is ours.
        unsafe { ffi::twin_mbuf_meta(self.0.as_ptr(), value) }
    }

    /// A session has opened it, or refused it.
    pub(super) fn set_secured(&mut self, userdata: Option<u64>, done: bool) {
        let userdata = userdata.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: a valid mbuf that is ours; null, or a value that lives until after the call.
        unsafe { ffi::twin_mbuf_secured(self.0.as_ptr(), userdata, i32::from(!done)) }
    }

    /// What the application wants it sealed with, and the octets of Ethernet before what is sealed. It may have named no session; that is
    /// no packet to be sent in the clear.
    pub(super) fn session(&self) -> Option<(u64, usize)> {
        // SAFETY: a valid mbuf that is ours.
        unsafe { session_of(self.0.as_ptr()) }
    }

    /// Metadata that the application gave with it.
    pub(super) fn meta(&self) -> Option<u32> {
        let mut value = 0;
        // SAFETY: a valid mbuf that is ours.
        (unsafe { ffi::twin_mbuf_get_meta(self.0.as_ptr(), &mut value) } == 1).then_some(value)
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: a valid mbuf that is ours alone to free.
        unsafe { ffi::twin_mbuf_free(self.0.as_ptr()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_to_be_sealed_without_a_session_is_no_packet_in_the_clear() {
        // SAFETY: plain data, for which zeros are a value.
        let mut raw: ffi::rte_mbuf = unsafe { std::mem::zeroed() };
        // SAFETY: an mbuf that outlives each call.
        let session = |raw: &ffi::rte_mbuf| unsafe { session_of(raw) };
        assert_eq!(session(&raw), None);
        raw.ol_flags = ffi::TWIN_TX_SEALED;
        assert_eq!(session(&raw), Some((NO_SESSION, 0)));
    }
}
