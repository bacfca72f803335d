//! The sessions of a process's NICs, by number.

use std::{
    collections::BTreeMap,
    ffi::c_void,
    ptr::NonNull,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, AtomicU32, Ordering},
    },
};

use dpdk_sys::{rte_security_session_protocol as protocol, rte_security_stats};
use offload_engine::{Failure, SessionCounts, SessionKind, SessionSpec};
use offload_rules::{
    forwarding::{Sa, SaDirection, SaKey},
    lower::Session,
};

use super::{
    capability::Capability,
    conf::{Conf, WrongKey},
    constants::KINDS,
    pool,
};

/// Slots: sessions that there can be at a time. The slot of a session is in the lower bits of its number.
const SLOTS: usize = 1 << 16;

/// The sessions of a process's NICs. Clones are the same.
///
/// The engine's thread opens and closes them; workers look them up for each packet that they send with one, without a lock. A number
/// that is not there, or is of another port, is found to be so: the packet must not be sent.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    slots: Box<[Slot]>,
    /// Of whoever opens and closes, by slot; workers never come here.
    books: Mutex<SessionTable>,
}

#[derive(Debug, Default)]
struct SessionTable(BTreeMap<usize, Open>);

/// What a worker looks at. The session is written last and cleared first.
#[derive(Debug, Default)]
struct Slot {
    session: AtomicPtr<c_void>,
    number: AtomicU32,
    port: AtomicU32,
}

#[derive(Debug)]
struct Open {
    number: Session,
    session: NonNull<c_void>,
    /// Octets of its memory.
    size: u32,
    port: u16,
    direction: SaDirection,
    /// Rules in the NIC that name it.
    rules: usize,
    /// Key and salt: a driver may have kept a pointer to them. ixgbe's and txgbe's read the key when the rule of an inbound session is
    /// made (ixgbe_ipsec.c, `ixgbe_crypto_create_session` and `ixgbe_crypto_add_sa`).
    #[expect(dead_code, reason = "holds memory that the driver points to")]
    key: SaKey,
}

// SAFETY: a session is given back to the driver only, under the lock of the books.
unsafe impl Send for Open {}

impl SessionTable {
    fn get(&self, number: Session) -> Result<&Open, Failure> {
        self.0.get(&slot_of(number.0)).filter(|open| open.number == number).ok_or_else(|| missing(number))
    }

    fn get_mut(&mut self, number: Session) -> Option<&mut Open> {
        self.0.get_mut(&slot_of(number.0)).filter(|open| open.number == number)
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| Slot::default()).collect();
        Self(Arc::new(Inner { slots, books: Mutex::default() }))
    }
}

#[inline]
const fn slot_of(number: u32) -> usize {
    number as usize % SLOTS
}

fn context(port: u16) -> Option<NonNull<c_void>> {
    // SAFETY: any number may be asked for.
    NonNull::new(unsafe { dpdk_sys::rte_eth_dev_get_sec_ctx(port) })
}

fn capability(context: NonNull<c_void>, kind: SessionKind, sa: &Sa) -> Option<Capability> {
    // SAFETY: the context of a port that is there; the list is the driver's, as rte_security wants it.
    unsafe { Capability::find(dpdk_sys::rte_security_capabilities_get(context.as_ptr().cast()), kind, sa) }
}

fn missing(session: Session) -> Failure {
    Failure::from_errno(libc::ENOENT, format!("there is no session {}", session.0))
}

impl Sessions {
    /// The port's context for sending with sessions; `None`: it has no IPsec.
    pub(crate) fn context(port: u16) -> Option<NonNull<c_void>> {
        context(port)
    }

    /// A session to send with on a port.
    #[inline]
    pub(crate) fn of_port(&self, number: u32, port: u16) -> Option<NonNull<c_void>> {
        let slot = self.slot(number)?;
        let session = NonNull::new(slot.session.load(Ordering::Acquire))?;
        let right =
            slot.number.load(Ordering::Relaxed) == number && slot.port.load(Ordering::Relaxed) == u32::from(port);
        right.then_some(session)
    }

    #[inline]
    fn slot(&self, number: u32) -> Option<&Slot> {
        self.0.slots.get(slot_of(number))
    }

    fn books(&self) -> MutexGuard<'_, SessionTable> {
        self.0.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kinds of sessions that a port offers for such an SA.
    pub(crate) fn kinds(port: u16, sa: &Sa) -> Vec<SessionKind> {
        let Some(context) = context(port) else { return Vec::new() };
        KINDS.into_iter().filter(|kind| capability(context, *kind, sa).is_some()).collect()
    }

    /// Creates a session on a port.
    pub(crate) fn open(&self, number: Session, port: u16, spec: &SessionSpec) -> Result<(), Failure> {
        let refused = |why: &str| Failure::from_errno(libc::ENOTSUP, why);
        self.check_free(number)?;
        let context = context(port).ok_or_else(|| refused("the port has no IPsec of its own"))?;
        let capability = capability(context, spec.kind, &spec.sa)
            .ok_or_else(|| refused("the NIC has no session for such an SA: cipher, key, ESN or window"))?;
        if let Some(lack) = capability.lacks(spec) {
            return Err(refused(lack));
        }
        let mut conf = Conf::new(spec, &capability)
            .map_err(|WrongKey| Failure::from_errno(libc::EINVAL, "the key is none of AES-GCM with a salt"))?;
        // SAFETY: the context of a port that is there.
        let size = unsafe { dpdk_sys::rte_security_session_get_size(context.as_ptr().cast()) };
        if size == 0 {
            return Err(refused("the driver has no sessions"));
        }
        let create = |conf: &mut Conf<'_>| {
            pool::take(port, size, |pool| {
                // SAFETY: a complete configuration, which the driver copies from, and a pool with elements of the size that it wants.
                let session = unsafe {
                    dpdk_sys::rte_errno_set(0);
                    dpdk_sys::rte_security_session_create(context.as_ptr().cast(), conf.raw(), pool)
                };
                NonNull::new(session.cast::<c_void>())
            })
            .ok_or_else(|| Failure::from_errno(libc::ENOSPC, "there is no memory for another session"))
        };
        let mut session = create(&mut conf)?;
        if session.is_none() && conf.without_bytes() {
            session = create(&mut conf)?;
        }
        let session = session.ok_or_else(no_reason)?;
        let (direction, key) = (spec.sa.direction, spec.sa.key.clone());
        self.enter(Open { number, session, size, port, direction, rules: 0, key });
        Ok(())
    }

    /// Destroys a session.
    pub(crate) fn close(&self, number: Session) -> Result<(), Failure> {
        let mut books = self.books();
        let open = books.get(number)?;
        if open.rules > 0 {
            let message = format!("{} rules use session {}", open.rules, number.0);
            return Err(Failure::from_errno(libc::EBUSY, message));
        }
        self.hide(number);
        destroy(open)?;
        books.0.remove(&slot_of(number.0));
        Ok(())
    }

    /// Destroys all sessions: their rules are gone. What cannot be destroyed is forgotten all the same.
    pub(crate) fn close_all(&self) -> Result<(), Failure> {
        let SessionTable(ended) = std::mem::take(&mut *self.books());
        ended.values().for_each(|open| self.hide(open.number));
        let mut result = Ok(());
        for open in ended.values() {
            match destroy(open) {
                // Gone already, in a reset or with the port.
                Err(failure) if [libc::ENOENT, libc::ENODEV].contains(&failure.errno) => {}
                done => result = result.and(done),
            }
        }
        result
    }

    /// Nobody finds a session to send with from now on; rules may be left that use them.
    pub(crate) fn hide_all(&self) {
        self.books().0.values().for_each(|open| self.hide(open.number));
    }

    /// What a session has done.
    pub(crate) fn counts(&self, number: Session) -> Result<SessionCounts, Failure> {
        let books = self.books();
        let open = books.get(number)?;
        let context = context(open.port).ok_or_else(|| missing(number))?;
        let mut stats = rte_security_stats::default();
        // SAFETY: a session of this port, and a place for the answer.
        let code = unsafe {
            dpdk_sys::rte_security_session_stats_get(
                context.as_ptr().cast(),
                open.session.as_ptr().cast(),
                &raw mut stats,
            )
        };
        if code != 0 {
            return Err(Failure::from_errno(code, "the driver does not count what the session does"));
        }
        if stats.protocol != protocol::RTE_SECURITY_PROTOCOL_IPSEC {
            return Err(Failure::from_errno(libc::ENOTSUP, "the driver has counted something else than IPsec"));
        }
        // SAFETY: the protocol says which member of the union it is.
        let ipsec = unsafe { stats.__bindgen_anon_1.ipsec };
        Ok(match open.direction {
            SaDirection::Outbound => {
                SessionCounts { packets: ipsec.opackets, bytes: ipsec.obytes, refused: ipsec.oerrors }
            }
            SaDirection::Inbound => {
                SessionCounts { packets: ipsec.ipackets, bytes: ipsec.ibytes, refused: ipsec.ierrors }
            }
        })
    }

    /// The driver's session, for a rule.
    pub(crate) fn pointer(&self, number: Session) -> Option<NonNull<c_void>> {
        self.books().get(number).ok().map(|open| open.session)
    }

    /// A rule that names this session is in the NIC, or on the way there.
    pub(crate) fn hold(&self, number: Session) {
        if let Some(open) = self.books().get_mut(number) {
            open.rules += 1;
        }
    }

    /// The rule is gone.
    pub(crate) fn release(&self, number: Session) {
        if let Some(open) = self.books().get_mut(number) {
            open.rules = open.rules.saturating_sub(1);
        }
    }

    fn check_free(&self, number: Session) -> Result<(), Failure> {
        match self.books().0.get(&slot_of(number.0)) {
            None => Ok(()),
            Some(open) => {
                let message = format!("session {} has the slot of session {}, which is open", number.0, open.number.0);
                Err(Failure::from_errno(libc::EEXIST, message))
            }
        }
    }

    fn enter(&self, open: Open) {
        let number = open.number.0;
        // Every number has a slot.
        let Some(slot) = self.slot(number) else { return };
        slot.number.store(number, Ordering::Relaxed);
        slot.port.store(open.port.into(), Ordering::Relaxed);
        // Nobody sends with a session for receiving.
        if open.direction == SaDirection::Outbound {
            slot.session.store(open.session.as_ptr(), Ordering::Release);
        }
        self.books().0.insert(slot_of(number), open);
    }

    fn hide(&self, number: Session) {
        if let Some(slot) = self.slot(number.0) {
            slot.session.store(std::ptr::null_mut(), Ordering::Release);
        }
    }

    /// A session that no driver knows, for tests of what names sessions.
    #[cfg(test)]
    pub(crate) fn pretend(&self, number: Session, port: u16, session: NonNull<c_void>) {
        self.pretend_with(number, port, session, SaKey::new(Box::default()));
    }

    /// The same, of an SA with this key.
    #[cfg(test)]
    pub(crate) fn pretend_with(&self, number: Session, port: u16, session: NonNull<c_void>, key: SaKey) {
        self.enter(Open { number, session, size: 0, port, direction: SaDirection::Outbound, rules: 0, key });
    }
}

/// Why a driver has made no session, as far as it says.
fn no_reason() -> Failure {
    // SAFETY: reads a variable of this thread.
    let errno = unsafe { dpdk_sys::rte_errno_get() };
    if errno == 0 {
        return Failure::from_errno(libc::EIO, "the driver refused the session without a reason");
    }
    let words = std::io::Error::from_raw_os_error(errno.saturating_abs());
    Failure::from_errno(errno, format!("the driver refused the session: {words}"))
}

fn destroy(open: &Open) -> Result<(), Failure> {
    let context = context(open.port)
        .ok_or_else(|| Failure::from_errno(libc::ENODEV, format!("port {} of the session is gone", open.port)))?;
    let code = pool::give_back(open.session, open.size, || {
        // SAFETY: a session of this port that has not been destroyed; no rule names it, and nobody finds it to send with.
        unsafe { dpdk_sys::rte_security_session_destroy(context.as_ptr().cast(), open.session.as_ptr().cast()) }
    });
    if code == 0 {
        return Ok(());
    }
    Err(Failure::from_errno(code, format!("the driver keeps the session of port {}", open.port)))
}
