//! What signals mean to a daemon: some end it in order, the others only say that there is nothing to do.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a daemon may be sent. From [`Self::new`] on none of them ends the process by itself.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

/// Ignored: a log rotation, `systemctl reload` and a closed terminal send SIGHUP; the others have their own senders.
const IGNORED: [(&str, SignalKind); 5] = [
    ("SIGHUP", SignalKind::hangup()),
    ("SIGUSR1", SignalKind::user_defined1()),
    ("SIGUSR2", SignalKind::user_defined2()),
    ("SIGALRM", SignalKind::alarm()),
    ("SIGIO", SignalKind::io()),
];

impl Signals {
    /// Handles them all. SIGPIPE is ignored by the standard library.
    ///
    /// # Errors
    /// The operating system takes no handler.
    pub(super) fn new() -> io::Result<Self> {
        for (name, kind) in IGNORED {
            let mut received = signal(kind)?;
            tokio::spawn(async move {
                while received.recv().await.is_some() {
                    tracing::info!(
                        "{name}: ignored, there is nothing to reload; host-ctl state changes the state, SIGTERM ends the node"
                    );
                }
            });
        }
        // A file at its size limit is an error of the write then (EFBIG), not the end of the process.
        let mut too_large = signal(SignalKind::from_raw(libc::SIGXFSZ))?;
        tokio::spawn(async move { while too_large.recv().await.is_some() {} });
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// Waits until the daemon is told to end; the name of the signal that says so.
    pub(super) async fn end(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
