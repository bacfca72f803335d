//! Many flows between two hosts: one source port each, a datagram now and then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek},
    net::UdpSocket,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};
use proto::v1;

use super::{Host, LabError, NodeClient, wait};

/// Source port of the first flow, and the port that all of them go to.
const FIRST_PORT: u16 = 20_000;
const PORT: u16 = 7009;
/// Nothing has arrived for so long: nothing more will.
const QUIET: Duration = Duration::from_millis(400);
/// Of the namespace of the thread that opens it.
const SOCKETS: &str = "/proc/thread-self/net/udp";
/// Octets that the receiver's socket holds. The kernel charges some 768 for the smallest datagram, and doubles this.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Sockets of both ends.
#[derive(Debug)]
pub struct Fan {
    near: Vec<(u16, UdpSocket)>,
    far: UdpSocket,
    /// The UDP sockets of the receiver's namespace, with what each had no room for.
    sockets: File,
    destination: String,
    round: u64,
}

/// What became of the datagrams of one round.
#[derive(Debug, Clone)]
pub struct Round {
    /// Datagrams sent, one of each flow.
    pub sent: usize,
    /// Source ports of those that the receiver has read.
    pub arrived: BTreeSet<u16>,
    /// Datagrams that reached the receiver's host and found its socket full.
    pub overflowed: u64,
}

impl Round {
    /// Datagrams that neither arrived nor found the socket full.
    #[must_use]
    pub fn missing(&self) -> u64 {
        (self.sent as u64).saturating_sub(self.arrived.len() as u64 + self.overflowed)
    }
}

impl Fan {
    /// Opens `flows` sockets on a host, and one at an address of another.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn open(near: &Host, far: (&Host, &str), flows: u16) -> Result<Self, LabError> {
        Self::with_receive_buffer(near, far, flows, RECEIVE_BUFFER)
    }

    /// As [`Fan::open`], with a receiver that holds so many octets; the kernel has a least.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn with_receive_buffer(near: &Host, far: (&Host, &str), flows: u16, octets: usize) -> Result<Self, LabError> {
        let bind = |host: &Host, address: String| {
            host.namespace().inside(|| UdpSocket::bind(&address).map_err(LabError::io(format!("bind {address}"))))
        };
        let destination = format!("{}:{PORT}", far.1);
        let receiver = bind(far.0, destination.clone())?;
        setsockopt(&receiver, sockopt::RcvBufForce, &octets).map_err(LabError::os("size the receive buffer"))?;
        let sockets =
            far.0.namespace().inside(|| File::open(SOCKETS).map_err(LabError::io(format!("open {SOCKETS}"))))?;
        receiver.set_read_timeout(Some(Duration::from_millis(20))).map_err(LabError::io("set a timeout"))?;
        let ports = FIRST_PORT..FIRST_PORT + flows;
        let near =
            ports.map(|port| Ok((port, bind(near, format!("0.0.0.0:{port}"))?))).collect::<Result<_, LabError>>()?;
        Ok(Self { near, far: receiver, sockets, destination, round: 0 })
    }

    /// Sends a datagram of each flow, then reads what arrives until nothing has for a while.
    ///
    /// # Errors
    /// A socket fails.
    pub fn send(&mut self) -> Result<Round, LabError> {
        self.round += 1;
        let overflowed_before = self.overflowed()?;
        for (_, socket) in &self.near {
            let sent = socket.send_to(&self.round.to_be_bytes(), &self.destination);
            sent.map_err(LabError::io(format!("send to {}", self.destination)))?;
        }
        let (mut arrived, mut since) = (BTreeSet::new(), Instant::now());
        let mut datagram = [0; 8];
        while arrived.len() < self.near.len() && since.elapsed() < QUIET {
            let Ok((_, from)) = self.far.recv_from(&mut datagram) else { continue };
            // A datagram of an earlier round that comes late is none of this one.
            if u64::from_be_bytes(datagram) == self.round {
                arrived.insert(from.port());
                since = Instant::now();
            }
        }
        let overflowed = self.overflowed()?.saturating_sub(overflowed_before);
        Ok(Round { sent: self.near.len(), arrived, overflowed })
    }

    /// Datagrams that the receiver's socket had no room for, ever.
    fn overflowed(&self) -> Result<u64, LabError> {
        let mut table = String::new();
        let mut sockets = &self.sockets;
        let read = sockets.rewind().and_then(|()| sockets.read_to_string(&mut table));
        read.map_err(LabError::io(format!("read {SOCKETS}")))?;
        // "1234: 6401A8C0:1B61 00000000:0000 07 ... DROPS", addresses and ports in hexadecimal.
        let of_port = |line: &&str| {
            let local = line.split_whitespace().nth(1).and_then(|local| local.rsplit(':').next());
            local.and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(PORT)
        };
        let drops =
            table.lines().filter(of_port).filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok());
        Ok(drops.sum())
    }

    /// Sends until a datagram of every flow has arrived in one round.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn until_all_arrive(&mut self, limit: Duration) -> Result<(), LabError> {
        let flows = self.near.len();
        wait::until(&format!("all of {flows} flows to arrive"), limit, || {
            Ok((self.send()?.arrived.len() == flows).then_some(()))
        })
    }

    /// Which member of the composite each flow takes at a node, by source port.
    ///
    /// # Errors
    /// [`LabError::Api`].
    pub fn paths(&self, node: &NodeClient) -> Result<BTreeMap<u16, i32>, LabError> {
        let request = v1::ListFlowsRequest { destination_port: Some(PORT.into()), ..Default::default() };
        let member = |flow: v1::Flow| {
            Some((u16::try_from(flow.source_port).ok()?, flow.ecmp_index.first().copied().unwrap_or(-1)))
        };
        Ok(node.flows(request)?.into_iter().filter_map(member).collect())
    }
}
