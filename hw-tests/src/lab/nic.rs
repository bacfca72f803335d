//! The NIC that a node drives: the twin, above the devices of its namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{LabError, Programs, wait};

/// Memory of a node's DPDK in MiB: without huge pages, so that a lab needs none.
const MEMORY_MIB: u32 = 256;

/// A twin for a node of the lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The profile of twin and lowering: `twin`, `mlx5-hws`, ...
    pub profile: String,
    /// Faults from the start, as the twin's device arguments: `fail_every=2`.
    pub faults: Vec<String>,
}

impl Default for Nic {
    fn default() -> Self {
        Self { profile: "twin".to_owned(), faults: Vec::new() }
    }
}

impl Nic {
    /// Like the profile's, without faults.
    #[must_use]
    pub fn of(profile: &str) -> Self {
        Self { profile: profile.to_owned(), ..Self::default() }
    }

    /// With a fault from the start.
    #[must_use]
    pub fn fault(mut self, fault: &str) -> Self {
        self.faults.push(fault.to_owned());
        self
    }

    /// Adds what `dpu-fastpath run` needs to have these devices on the twin; `control` is the twin's file of faults.
    pub(crate) fn arguments(
        &self,
        command: &mut Command,
        programs: &Programs,
        devices: &[String],
        control: &Path,
    ) -> Result<(), LabError> {
        fs::write(control, "").map_err(LabError::io(format!("write {}", control.display())))?;
        command.arg("--driver").arg(programs.nic_twin()?);
        command.args(["--nic", &self.profile, "--no-huge", &MEMORY_MIB.to_string()]);
        for (index, device) in devices.iter().enumerate() {
            let mut vdev =
                format!("net_twin{index},iface={device},profile={},control={}", self.profile, control.display());
            for fault in &self.faults {
                vdev.push(',');
                vdev.push_str(fault);
            }
            command.args(["--vdev", &vdev, "--port", &format!("{device}=net_twin{index}")]);
        }
        Ok(())
    }
}

/// The twin of a running node, to break it.
#[derive(Debug)]
pub struct TwinControl {
    file: PathBuf,
}

impl TwinControl {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    /// Tells the twin a fault: one of its control lines (`full_at=100`, `reset`, `clear`). It is in force when this returns.
    ///
    /// # Errors
    /// The file cannot be written; [`LabError::Timeout`] when the twin does not follow it.
    pub fn tell(&self, line: &str) -> Result<(), LabError> {
        let written = || -> std::io::Result<()> {
            use std::io::Write as _;
            let mut file = fs::OpenOptions::new().append(true).open(&self.file)?;
            writeln!(file, "{line}")
        };
        written().map_err(LabError::io(format!("write {}", self.file.display())))?;
        let wanted = fs::metadata(&self.file).map_or(0, |file| file.len());
        let seen = self.file.with_extension("twin.seen");
        wait::until("the twin to follow its control file", Duration::from_secs(5), || {
            let told = fs::read_to_string(&seen).unwrap_or_default();
            Ok(told.parse().is_ok_and(|told: u64| told >= wanted).then_some(()))
        })
    }
}
