//! Waiting for a condition.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{LabError, interrupt};

/// Pause between two looks at a condition.
const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until `condition` yields a value, and returns it.
///
/// # Errors
/// [`LabError::Timeout`] when `limit` has passed, [`LabError::Interrupted`], and what `condition` itself fails with.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>, LabError>,
) -> Result<T, LabError> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        interrupt::check()?;
        if Instant::now() >= deadline {
            return Err(LabError::Timeout { what: what.to_owned(), waited: limit, detail: String::new() });
        }
        thread::sleep(INTERVAL);
    }
}
