//! The frame of an end-to-end scenario: its name, its result, and what it needs.

use std::{io::Write, time::Instant};

use super::LabError;

/// Runs a scenario and reports `e2e: NAME ... ok`, `FAILED` or `SKIPPED` on standard error, past the test harness's capture,
/// so that a summary can name what ran.
///
/// # Errors
/// What the scenario fails with; a lab that this machine or user cannot make is no failure but a skip.
pub fn scenario(name: &str, body: impl FnOnce() -> Result<(), LabError>) -> Result<(), String> {
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
            Err(format!("{name}: {error}"))
        }
    }
}
