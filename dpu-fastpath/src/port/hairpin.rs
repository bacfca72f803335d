//! Hairpin queues (ethdev guide, "Hairpin queue"): a rule leads packets from the receive queue of one port to the transmit queue of another, or
//! of the same, without software and without a switch.
//!
//! Every port of a group has one receive and one transmit queue for each port of the group, itself included, behind the ordinary
//! queues. Transmit is explicit: rules of egress are the application's, so that the half that puts headers on can be there first and
//! leave last. Queues are bound by hand once both ports have started, and unbound before one of them stops: between two ports mlx5 has it no
//! other way (mlx5_rxq.c, mlx5_rx_hairpin_queue_setup), and those of one port would lead on while its driver stops it and takes away rules
//! in an order of its own (mlx5_trigger.c, mlx5_dev_stop; mlx5_flow.c, mlx5_flow_list_flush).

use std::{
    collections::BTreeMap,
    ffi::c_int,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dpdk_sys as sys;

/// Descriptors of a hairpin queue, if the device has as many: packets between its two halves.
const DESCRIPTORS: u16 = 1024;

/// Ordinary queues of a port; those of hairpins come after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OrdinaryQueues {
    pub(super) rx: u16,
    pub(super) tx: u16,
}

/// What a port's hairpin queue is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Connection {
    rx_queue: u16,
    tx_queue: u16,
    peer: u16,
    /// Transmit queue of the peer that the receive queue leads to.
    peer_tx: u16,
    /// Receive queue of the peer that leads to the transmit queue.
    peer_rx: u16,
}

/// The hairpins of a group of ports. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Hairpins {
    /// Ascending.
    group: Arc<[u16]>,
    /// Receive queues by the ports that they lead from and to; those that are bound.
    bound: Arc<Mutex<Bound>>,
}

#[derive(Debug, Default)]
struct Bound {
    /// Ports that are started, with the first of their hairpin receive queues.
    started: BTreeMap<u16, u16>,
    queues: BTreeMap<(u16, u16), u16>,
}

impl Hairpins {
    /// Among these ports. None: no hairpin queues.
    #[must_use]
    pub fn among(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut group: Vec<u16> = ports.into_iter().collect();
        group.sort_unstable();
        group.dedup();
        Self { group: group.into(), bound: Arc::default() }
    }

    /// The receive queue of a port that leads to another, or to itself; `None`: they are not bound.
    #[must_use]
    pub fn queue(&self, from: u16, to: u16) -> Option<u16> {
        self.lock().queues.get(&(from, to)).copied()
    }

    /// As if these were bound.
    #[cfg(test)]
    pub(crate) fn pretend(queues: impl IntoIterator<Item = ((u16, u16), u16)>) -> Self {
        let hairpins = Self::default();
        hairpins.lock().queues = queues.into_iter().collect();
        hairpins
    }

    fn lock(&self) -> MutexGuard<'_, Bound> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn position(&self, port: u16) -> Option<u16> {
        let at = self.group.iter().position(|member| *member == port)?;
        u16::try_from(at).ok()
    }

    /// Receive queues, and as many transmit queues, that a port has beside its ordinary ones.
    pub(super) fn queues_of(&self, port: u16) -> u16 {
        let all = u16::try_from(self.group.len()).unwrap_or(0);
        self.position(port).map_or(0, |_| all)
    }

    /// The connections of a port. `ordinary` tells how many queues a port of the group has for software.
    fn connections(&self, port: u16, ordinary: impl Fn(u16) -> OrdinaryQueues) -> Vec<Connection> {
        let Some(own) = self.position(port) else { return Vec::new() };
        let OrdinaryQueues { rx, tx } = ordinary(port);
        (0..)
            .zip(self.group.iter().copied())
            .map(|(at, peer)| {
                let there = ordinary(peer);
                Connection {
                    rx_queue: rx.saturating_add(at),
                    tx_queue: tx.saturating_add(at),
                    peer,
                    peer_tx: there.tx.saturating_add(own),
                    peer_rx: there.rx.saturating_add(own),
                }
            })
            .collect()
    }

    /// Sets the hairpin queues of a port up that is configured and stopped.
    ///
    /// # Errors
    /// What the driver answers: a negative errno.
    pub(super) fn set_up(&self, port: u16, ordinary: impl Fn(u16) -> OrdinaryQueues) -> Result<(), c_int> {
        let connections = self.connections(port, ordinary);
        if connections.is_empty() {
            return Ok(());
        }
        let mut able = sys::rte_eth_hairpin_cap::default();
        // SAFETY: a place for the answer.
        check(unsafe { sys::rte_eth_dev_hairpin_capability_get(port, &raw mut able) })?;
        let descriptors = DESCRIPTORS.min(able.max_nb_desc);
        for connection in connections {
            let to = conf(connection.peer, connection.peer_tx);
            // SAFETY: a configured, stopped port; the configuration is copied.
            check(unsafe {
                sys::rte_eth_rx_hairpin_queue_setup(port, connection.rx_queue, descriptors, &raw const to)
            })?;
            let from = conf(connection.peer, connection.peer_rx);
            // SAFETY: as above.
            check(unsafe {
                sys::rte_eth_tx_hairpin_queue_setup(port, connection.tx_queue, descriptors, &raw const from)
            })?;
        }
        Ok(())
    }

    /// A port of the group has started: its queues are bound with those of the others that have.
    pub(super) fn started(&self, port: u16, first: u16) {
        if self.position(port).is_none() {
            return;
        }
        let mut bound = self.lock();
        bound.started.insert(port, first);
        let started: Vec<(u16, u16)> = bound.started.iter().map(|(port, first)| (*port, *first)).collect();
        let back = started.iter().filter(|(peer, _)| *peer != port).map(|peer| (*peer, port));
        let ways = started.iter().map(|(peer, _)| ((port, first), *peer)).chain(back);
        for ((from, first), to) in ways {
            if bind(from, to) {
                self.enter(&mut bound, (from, first), to);
            }
        }
    }

    /// Does something while nothing leads anywhere: packets that rules lead to hairpin queues meanwhile are lost.
    pub(crate) fn parted<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut bound = self.lock();
        for (from, to) in bound.queues.keys() {
            // SAFETY: two started ports, or one.
            unsafe { sys::rte_eth_hairpin_unbind(*to, *from) };
        }
        let done = work();
        bound.queues.retain(|(from, to), _| bind(*from, *to));
        done
    }

    fn enter(&self, bound: &mut Bound, (from, first): (u16, u16), to: u16) {
        if let Some(at) = self.position(to) {
            bound.queues.insert((from, to), first.saturating_add(at));
        }
    }

    /// A port of the group is about to stop: nothing leads to it or from it any more.
    pub(super) fn stopping(&self, port: u16) {
        let mut bound = self.lock();
        if bound.started.remove(&port).is_none() {
            return;
        }
        let pairs: Vec<(u16, u16)> =
            bound.queues.keys().filter(|(from, to)| *from == port || *to == port).copied().collect();
        for (from, to) in pairs {
            bound.queues.remove(&(from, to));
            // SAFETY: two started ports, or one. What cannot be unbound goes with the queues.
            unsafe { sys::rte_eth_hairpin_unbind(to, from) };
        }
    }
}

/// Binds the receive queue of a port with the transmit queue of another, or of its own: both have started.
fn bind(from: u16, to: u16) -> bool {
    // SAFETY: ports by their numbers.
    let failure = unsafe { sys::rte_eth_hairpin_bind(to, from) };
    if failure != 0 {
        let error = std::io::Error::from_raw_os_error(failure.saturating_abs());
        tracing::warn!(from, to, %error, "hairpin queues cannot be bound: flows between these ports stay in software");
    }
    failure == 0
}

/// Has the device hairpin queues?
pub(super) fn capable(port: u16) -> bool {
    let mut able = sys::rte_eth_hairpin_cap::default();
    // SAFETY: a place for the answer.
    unsafe { sys::rte_eth_dev_hairpin_capability_get(port, &raw mut able) == 0 }
}

fn check(answer: c_int) -> Result<(), c_int> {
    if answer < 0 { Err(answer) } else { Ok(()) }
}

fn conf(peer: u16, queue: u16) -> sys::rte_eth_hairpin_conf {
    let mut conf = sys::rte_eth_hairpin_conf::default();
    conf.set_peer_count(1);
    conf.set_tx_explicit(1);
    conf.set_manual_bind(1);
    if let Some(first) = conf.peers.first_mut() {
        *first = sys::rte_eth_hairpin_peer { port: peer, queue };
    }
    conf
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Port 4 has two queues for software, port 7 three to receive and one to send.
    fn ordinary(port: u16) -> OrdinaryQueues {
        if port == 4 { OrdinaryQueues { rx: 2, tx: 2 } } else { OrdinaryQueues { rx: 3, tx: 1 } }
    }

    #[test]
    fn each_queue_names_the_one_that_names_it() {
        let hairpins = Hairpins::among([7, 4, 7]);
        let all: BTreeMap<u16, Vec<Connection>> =
            [4, 7].map(|port| (port, hairpins.connections(port, ordinary))).into();
        for (port, connections) in &all {
            assert_eq!(connections.len(), 2, "one for each port of the group");
            for connection in connections {
                let there = &all[&connection.peer];
                // What is received here leaves by the peer's queue, which says that it is filled from here.
                let tx = there.iter().find(|other| other.tx_queue == connection.peer_tx).unwrap();
                assert_eq!((tx.peer, tx.peer_rx), (*port, connection.rx_queue));
                let rx = there.iter().find(|other| other.rx_queue == connection.peer_rx).unwrap();
                assert_eq!((rx.peer, rx.peer_tx), (*port, connection.tx_queue));
            }
        }
    }

    #[test]
    fn hairpin_queues_are_behind_those_of_software_and_no_two_are_the_same() {
        let hairpins = Hairpins::among([4, 7]);
        let connections = hairpins.connections(7, ordinary);
        let queues: Vec<(u16, u16)> = connections.iter().map(|all| (all.rx_queue, all.tx_queue)).collect();
        assert_eq!(queues, [(3, 1), (4, 2)]);
        assert_eq!((hairpins.queues_of(7), hairpins.queues_of(9)), (2, 0), "port 9 is not of the group");
        assert!(hairpins.connections(9, ordinary).is_empty());
    }

    #[test]
    fn queues_are_bound_by_hand_and_transmit_is_explicit() {
        let conf = conf(7, 2);
        assert_eq!((conf.manual_bind(), conf.tx_explicit(), conf.peer_count()), (1, 1, 1));
        assert_eq!((conf.peers[0].port, conf.peers[0].queue), (7, 2));
    }

    #[test]
    fn what_is_not_bound_leads_nowhere() {
        let hairpins = Hairpins::among([4, 7]);
        assert_eq!(hairpins.queue(4, 7), None);
        // There are no such ports here to bind.
        hairpins.started(4, 2);
        assert_eq!((hairpins.queue(4, 4), hairpins.queue(4, 7)), (None, None));
        hairpins.stopping(4);
        assert!(hairpins.lock().started.is_empty());
    }
}
