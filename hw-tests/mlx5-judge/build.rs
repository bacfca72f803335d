//! Compiles what stands below the driver: a shared library of its own, which the crate embeds.

use std::{env, error::Error, fs, path::PathBuf, process::Command};

/// From libibverbs-dev: the functions that the library stands in for, as the driver sees them.
const HEADERS: &str = "#include <infiniband/verbs.h>\n#include <infiniband/mlx5dv.h>\n";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let compiler = cc::Build::new().try_get_compiler()?;
    let probe = out.join("headers.c");
    fs::write(&probe, HEADERS)?;
    if !compiler.to_command().arg("-fsyntax-only").arg(&probe).status()?.success() {
        println!("cargo::error=the mlx5 judge needs the headers of libibverbs (libibverbs-dev): run make setup");
        std::process::exit(1);
    }
    println!("cargo::rerun-if-changed=below");
    let mut sources = Vec::new();
    for entry in fs::read_dir("below")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            sources.push(path);
        }
    }
    sources.sort();
    let mut command: Command = compiler.to_command();
    command.args(["-std=gnu11", "-O1", "-g", "-fPIC", "-Wall", "-Wextra", "-Wno-unused-parameter", "-shared", "-o"]);
    command.arg(out.join("libbelow.so")).args(&sources).args(["-ldl", "-lpthread"]);
    if !command.status()?.success() {
        return Err("what stands below the driver does not compile".into());
    }
    Ok(())
}
