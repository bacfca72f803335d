//! Many flows between two hosts: one source port each, a datagram now and then.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::UdpSocket,
    time::{Duration, Instant},
};

use proto::v1;

use super::{Host, LabError, NodeClient, wait};

/// Source port of the first flow, and the port that all of them go to.
const FIRST_PORT: u16 = 20_000;
const PORT: u16 = 7009;
/// Nothing has arrived for so long: nothing more will.
const QUIET: Duration = Duration::from_millis(400);

/// Sockets of both ends.
#[derive(Debug)]
pub struct Fan {
    near: Vec<(u16, UdpSocket)>,
    far: UdpSocket,
    destination: String,
    round: u64,
}

impl Fan {
    /// Opens `flows` sockets on a host, and one at an address of another.
    ///
    /// # Errors
    /// The sockets cannot be made.
    pub fn open(near: &Host, far: (&Host, &str), flows: u16) -> Result<Self, LabError> {
        let bind = |host: &Host, address: String| {
            host.namespace().inside(|| UdpSocket::bind(&address).map_err(LabError::io(format!("bind {address}"))))
        };
        let destination = format!("{}:{PORT}", far.1);
        let receiver = bind(far.0, destination.clone())?;
        receiver.set_read_timeout(Some(Duration::from_millis(20))).map_err(LabError::io("set a timeout"))?;
        let ports = FIRST_PORT..FIRST_PORT + flows;
        let near =
            ports.map(|port| Ok((port, bind(near, format!("0.0.0.0:{port}"))?))).collect::<Result<_, LabError>>()?;
        Ok(Self { near, far: receiver, destination, round: 0 })
    }

    /// Sends a datagram of each flow; the source ports of those that arrived.
    ///
    /// # Errors
    /// A socket fails.
    pub fn send(&mut self) -> Result<BTreeSet<u16>, LabError> {
        self.round += 1;
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
        Ok(arrived)
    }

    /// Sends until a datagram of every flow has arrived in one round.
    ///
    /// # Errors
    /// [`LabError::Timeout`].
    pub fn until_all_arrive(&mut self, limit: Duration) -> Result<(), LabError> {
        let flows = self.near.len();
        wait::until(&format!("all of {flows} flows to arrive"), limit, || {
            Ok((self.send()?.len() == flows).then_some(()))
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
