//! The frame of an end-to-end scenario: its name, its result, and what it needs.

use std::{
    io::Write,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::LabError;

/// One scenario at a time: each has the machine for itself.
static TURN: Mutex<()> = Mutex::new(());

/// Lines of a failure's reason that are printed at once, beside its verdict; the harness prints all of it at its end.
const REASON_LINES: usize = 12;

/// Runs a scenario and reports `e2e: NAME ... ok`, `FAILED` or `SKIPPED` on standard error, past the test harness's capture,
/// so that a summary can name what ran.
///
/// # Errors
/// What the scenario fails with; a lab that this machine or user cannot make is no failure but a skip.
pub fn scenario(name: &str, body: impl FnOnce() -> Result<(), LabError>) -> Result<(), String> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let begun = Instant::now();
    // A handle instead of `eprintln!`: the harness captures only the macros.
    let report = |verdict: &str| {
        let _ = writeln!(std::io::stderr(), "e2e: {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f64());
    };
    struct Panicked<'a>(&'a dyn Fn(&str));
    impl Drop for Panicked<'_> {
        fn drop(&mut self) {
            (self.0)("FAILED");
        }
    }
    let guard = Panicked(&report);
    let result = body();
    std::mem::forget(guard);
    match result {
        Ok(()) => {
            report("ok");
            Ok(())
        }
        Err(LabError::Unavailable { what, remedy }) => {
            report(&format!("SKIPPED: {what}: {remedy}"));
            Ok(())
        }
        Err(error) => {
            report("FAILED");
            let why = error.to_string();
            for line in why.lines().take(REASON_LINES) {
                let _ = writeln!(std::io::stderr(), "    {line}");
            }
            Err(format!("{name}: {why}"))
        }
    }
}
