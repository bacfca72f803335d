//! The way to the node: gRPC over its unix socket.

use std::{io, os::unix::fs::FileTypeExt as _, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use proto::v1::{node_client::NodeClient, offload_client::OffloadClient};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{Error, error::root_cause};

/// The services of one node, over one connection.
pub struct Client {
    /// What every node has.
    pub node: NodeClient<Channel>,
    /// What only nodes have that drive a NIC.
    pub offload: OffloadClient<Channel>,
}

/// Connects to the node that listens on `socket`. A call that is not answered within `timeout` fails.
///
/// # Errors
/// What is wrong with the socket: not there, no listener, not allowed, not a socket.
pub async fn connect(socket: &Path, timeout: Duration) -> Result<Client, Error> {
    let stream = match tokio::time::timeout(timeout, UnixStream::connect(socket)).await {
        Ok(connected) => connected.map_err(|error| unreachable(socket, error))?,
        Err(_) => return Err(unreachable(socket, io::ErrorKind::TimedOut.into())),
    };
    let mut stream = Some(TokioIo::new(stream));
    // HTTP/2 wants an authority; none of its names is looked up.
    let channel = Endpoint::from_static("http://localhost")
        .timeout(timeout)
        .connect_with_connector(service_fn(move |_| {
            let stream = stream.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        }))
        .await
        .map_err(|error| Error::Protocol { path: socket.to_owned(), problem: root_cause(&error) })?;
    // A table of a million routes is one message.
    let node = NodeClient::new(channel.clone());
    let offload = OffloadClient::new(channel);
    Ok(Client {
        node: node.max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX),
        offload: offload.max_decoding_message_size(usize::MAX),
    })
}

fn unreachable(socket: &Path, error: io::Error) -> Error {
    let path = socket.to_owned();
    let is_socket = socket.metadata().map(|meta| meta.file_type().is_socket());
    match (error.kind(), is_socket) {
        (io::ErrorKind::NotFound, _) => Error::NoSocket(path),
        (io::ErrorKind::PermissionDenied, _) => Error::Permission(path),
        (io::ErrorKind::ConnectionRefused, Ok(false)) => Error::NotASocket(path),
        (io::ErrorKind::ConnectionRefused, _) => Error::NobodyListens(path),
        _ => Error::Connect { path, source: error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_to_connect_says_what_to_do() {
        let node = Path::new("/run/sluicegate/node.sock");
        for (kind, advice) in [
            (io::ErrorKind::NotFound, "there is no such socket; start the node"),
            (io::ErrorKind::PermissionDenied, "permission denied; run as root"),
            (io::ErrorKind::ConnectionRefused, "nobody listens on this socket"),
        ] {
            let text = unreachable(node, kind.into()).to_string();
            assert!(text.starts_with("/run/sluicegate/node.sock: ") && text.contains(advice), "{text}");
        }
    }
}
