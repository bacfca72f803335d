//! Where the product's programs are.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use super::{LabError, process};

/// Directory with the product's programs: a different build can be put under test with it.
const DIRECTORY_VARIABLE: &str = "SLUICEGATE_BIN_DIR";

/// Paths of the product's programs.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The software node.
    pub fallback_sw: PathBuf,
    /// The node that drives a NIC.
    pub dpu_fastpath: PathBuf,
    /// The command line.
    pub host_ctl: PathBuf,
}

impl Programs {
    /// Those in `SLUICEGATE_BIN_DIR`, else those beside the running program, which cargo is asked to bring up to date when it
    /// runs the tests.
    ///
    /// # Errors
    /// [`LabError::NotBuilt`] when they are not there, [`LabError::Command`] when they do not build.
    pub fn find() -> Result<Self, LabError> {
        static FOUND: OnceLock<Programs> = OnceLock::new();
        if let Some(programs) = FOUND.get() {
            return Ok(programs.clone());
        }
        let directory = match std::env::var_os(DIRECTORY_VARIABLE) {
            Some(directory) => PathBuf::from(directory),
            None => {
                let directory = beside()?;
                if let Some(cargo) = std::env::var_os("CARGO") {
                    build(&cargo, &directory)?;
                }
                directory
            }
        };
        let program = |name: &str| {
            let path = directory.join(name);
            if path.is_file() {
                return Ok(path);
            }
            Err(LabError::NotBuilt(path))
        };
        let programs = Self {
            fallback_sw: program("fallback-sw")?,
            dpu_fastpath: program("dpu-fastpath")?,
            host_ctl: program("host-ctl")?,
        };
        Ok(FOUND.get_or_init(|| programs).clone())
    }

    /// The driver of the NIC twin, beside the programs.
    ///
    /// # Errors
    /// [`LabError::NotBuilt`].
    pub fn nic_twin(&self) -> Result<PathBuf, LabError> {
        let library = self.dpu_fastpath.with_file_name("libnic_twin.so");
        if library.is_file() { Ok(library) } else { Err(LabError::NotBuilt(library)) }
    }
}

/// Directory of the running program; tests run from `deps` below it.
fn beside() -> Result<PathBuf, LabError> {
    let own = std::env::current_exe().map_err(LabError::io("find the running program"))?;
    let directory = own.parent().unwrap_or(Path::new("."));
    let above = directory.parent().unwrap_or(directory);
    Ok(if directory.ends_with("deps") { above.to_owned() } else { directory.to_owned() })
}

fn build(cargo: &OsString, directory: &Path) -> Result<(), LabError> {
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bins", "--lib"]);
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if directory.ends_with("release") {
        command.arg("--release");
    }
    process::run(command, Duration::from_secs(1800))?.success().map(drop)
}

/// Full path of a program in `PATH`.
#[must_use]
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|candidate| candidate.is_file())
}
