//! The socket that charon's plugin connects to: root's alone, a line for each question.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use offload_rules::{DropReason, SaId};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::broadcast::error::RecvError,
};

use super::line::{MAX_LINE, Refused, Request};
use crate::node::{runtime::Handle, service};

/// Takes the socket.
///
/// # Errors
/// It is in use, or cannot be made.
pub async fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    let listener = service::listen(path).await?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Packets that an SA had when it was asked about last, and when they had grown.
type Used = Arc<Mutex<HashMap<SaId, (u64, Option<Instant>)>>>;

/// Serves connections for as long as it is polled.
pub async fn serve(listener: UnixListener, node: Handle) {
    let used = Used::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, node.clone(), Arc::clone(&used)));
            }
            Err(error) => {
                tracing::error!(%error, "IKE socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// What has been read and holds no whole line yet. Wiped: lines have keys.
struct Buffer {
    octets: Box<[u8; MAX_LINE]>,
    len: usize,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.octets.fill(0);
        std::hint::black_box(&self.octets);
    }
}

impl Buffer {
    fn new() -> Self {
        Self { octets: Box::new([0; MAX_LINE]), len: 0 }
    }

    /// Reads a request out of the first line, if it is whole.
    fn request(&mut self) -> Option<Result<Request, Refused>> {
        let filled = self.octets.get(..self.len)?;
        let end = filled.iter().position(|octet| *octet == b'\n')?;
        let request = Request::parse(filled.get(..end)?);
        self.octets.copy_within(end + 1..self.len, 0);
        let left = self.len - end - 1;
        if let Some(behind) = self.octets.get_mut(left..self.len) {
            behind.fill(0);
        }
        self.len = left;
        Some(request)
    }

    fn free(&mut self) -> &mut [u8] {
        self.octets.get_mut(self.len..).unwrap_or_default()
    }
}

async fn connection(mut stream: UnixStream, node: Handle, used: Used) {
    let mut buffer = Buffer::new();
    let mut greeted = false;
    loop {
        let Some(request) = buffer.request() else {
            if buffer.free().is_empty() {
                // Where the next line begins cannot be known.
                let _ = stream.write_all(format!("error {}\n", Refused::TooLong).as_bytes()).await;
                return;
            }
            match stream.read(buffer.free()).await {
                Ok(0) | Err(_) => return,
                Ok(read) => buffer.len += read,
            }
            continue;
        };
        let events = match (&request, greeted) {
            (Ok(Request::Hello { events, .. }), false) => Some(*events),
            _ => None,
        };
        // Before the answer: nothing is missed that happens after it.
        let receiver = node.ike_events();
        let answer = match request {
            Ok(request) if greeted != matches!(request, Request::Hello { .. }) => answer(&node, request, &used).await,
            Ok(_) => Err(Refused::Hello),
            Err(refused) => Err(refused),
        };
        greeted |= events.is_some() && answer.is_ok();
        let text = match answer {
            Ok(words) if words.is_empty() => "ok\n".to_owned(),
            Ok(words) => format!("ok {words}\n"),
            Err(refused) => {
                tracing::warn!(%refused, "IKE socket");
                format!("error {refused}\n")
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
        if events == Some(true) && greeted {
            return tell(stream, receiver).await;
        }
    }
}

/// Events until the other side goes, or is too slow: then it begins again and asks.
async fn tell(mut stream: UnixStream, mut events: tokio::sync::broadcast::Receiver<super::Event>) {
    let mut ignored = [0; 64];
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) => {
                    if stream.write_all(event.to_string().as_bytes()).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            },
            read = stream.read(&mut ignored) => {
                if matches!(read, Ok(0) | Err(_)) {
                    return;
                }
            }
        }
    }
}

async fn answer(node: &Handle, request: Request, used: &Used) -> Result<String, Refused> {
    let query = matches!(request, Request::QuerySa { .. });
    let words = node.ike(request).await?;
    if !query {
        return Ok(words);
    }
    let id = words.parse().ok().and_then(|id| SaId::new(id).ok()).ok_or(Refused::Ended)?;
    for worker in 0..node.workers() {
        let found = move |worker: &crate::worker::Worker| worker.sas().into_iter().find(|sa| sa.id == id);
        let Some(sa) = node.look_at(worker, found).await.map_err(|_| Refused::Ended)? else { continue };
        let idle = idle(used, id, sa.packets);
        let state = match (sa.ended, sa.expiring) {
            (Some(DropReason::SaExhausted), _) => "exhausted",
            (Some(_), _) => "hard",
            (None, true) => "soft",
            (None, false) => "good",
        };
        return Ok(format!("bytes={} packets={} idle={idle} state={state}", sa.bytes, sa.packets));
    }
    // No worker has taken it up yet.
    Ok("bytes=0 packets=0 idle=never state=good".to_owned())
}

/// Seconds since the packets of an SA were seen to have grown.
fn idle(used: &Used, id: SaId, packets: u64) -> String {
    let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    // Those that are no longer asked about.
    if used.len() > 65_536 {
        used.clear();
    }
    let entry = used.entry(id).or_insert((0, None));
    if packets != entry.0 {
        *entry = (packets, Some(now));
    }
    entry.1.map_or_else(|| "never".to_owned(), |last| now.duration_since(last).as_secs().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &[u8]) -> Buffer {
        let mut buffer = Buffer::new();
        buffer.free()[..text.len()].copy_from_slice(text);
        buffer.len = text.len();
        buffer
    }

    #[test]
    fn lines_are_taken_one_by_one_and_wiped() {
        let mut buffer = filled(b"get-spi\nflush\nque");
        assert_eq!(buffer.request(), Some(Ok(Request::GetSpi { between: None })));
        assert_eq!(buffer.request(), Some(Ok(Request::Flush)));
        assert_eq!(buffer.request(), None);
        assert_eq!((&buffer.octets[..buffer.len], &buffer.octets[buffer.len..20]), (&b"que"[..], &[0; 17][..]));
    }

    #[test]
    fn a_line_without_an_end_fills_the_buffer_and_no_more() {
        let mut buffer = filled(&[b'x'; MAX_LINE]);
        assert_eq!(buffer.request(), None);
        assert!(buffer.free().is_empty());
    }

    #[test]
    fn a_broken_line_costs_nothing_of_the_next_one() {
        let mut buffer = filled(b"\xff=\nget-spi\n");
        assert!(matches!(buffer.request(), Some(Err(Refused::Bad(_)))));
        assert_eq!(buffer.request(), Some(Ok(Request::GetSpi { between: None })));
    }
}
