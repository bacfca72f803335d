//! The NIC twin's driver. `NIC_TWIN` names it; without it, it is built.

use std::{path::PathBuf, process::Command};

/// Where the driver is.
pub(crate) fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("NIC_TWIN") {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "nic-twin", "--target-dir"]).arg(profile.parent().unwrap());
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the NIC twin does not build");
    profile.join("libnic_twin.so")
}
