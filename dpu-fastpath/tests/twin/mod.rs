//! Libraries that stand for a NIC: the twin's driver, and the judge below DPDK's mlx5 driver. `NIC_TWIN` and `MLX5_JUDGE` name them; without
//! that they are built.

use std::{path::PathBuf, process::Command};

/// The twin's driver.
pub(crate) fn library() -> PathBuf {
    built("NIC_TWIN", "nic-twin", "libnic_twin.so")
}

/// What judges, and executes, what the mlx5 driver makes of rules.
#[allow(dead_code, reason = "not every test has both")]
pub(crate) fn judge() -> PathBuf {
    built("MLX5_JUDGE", "mlx5-judge", "libmlx5_judge.so")
}

fn built(variable: &str, package: &str, library: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", package, "--target-dir"]).arg(profile.parent().unwrap());
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "{package} does not build");
    profile.join(library)
}
