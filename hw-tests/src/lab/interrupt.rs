//! Ctrl-C and SIGTERM end a lab in order: waits fail with [`LabError::Interrupted`], and the values that own namespaces and
//! processes are dropped on the way out.

use std::{
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

use super::LabError;

/// Exit code of a program that was interrupted (128 + SIGINT).
pub const INTERRUPTED_EXIT_CODE: u8 = 130;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static WATCH: Once = Once::new();

/// Has the user asked to stop?
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Fails once the user has asked to stop.
pub(crate) fn check() -> Result<(), LabError> {
    if interrupted() { Err(LabError::Interrupted) } else { Ok(()) }
}

/// Turns Ctrl-C, SIGTERM and SIGHUP into [`interrupted`] from now on.
pub(crate) fn watch() {
    WATCH.call_once(|| {
        let (ready, armed) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            runtime.block_on(async {
                let (Ok(mut int), Ok(mut term), Ok(mut hup)) =
                    (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
                else {
                    return;
                };
                let _ = ready.send(());
                loop {
                    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {}, _ = hup.recv() => {} }
                    INTERRUPTED.store(true, Ordering::Relaxed);
                    eprintln!("interrupted: taking the lab down");
                }
            });
        });
        // An error here means that the handlers could not be set: the default action, which ends the program, stays.
        let _ = armed.recv();
    });
}
