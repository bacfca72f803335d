//! Bindings to DPDK's driver side and the shim for what exists in its headers only.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The first and the first unsupported version (DPDK's are year.month).
const VERSIONS: std::ops::Range<&str> = "22.11".."25";

/// What a driver needs and the -dev package leaves out.
const HEADERS: [&str; 5] = ["ethdev_driver.h", "ethdev_vdev.h", "bus_vdev_driver.h", "dev_driver.h", "bus_driver.h"];

/// Types that Rust has no layout for; the driver doesn't look into them.
const OPAQUE: &str =
    "_IO_FILE|rte_arp_hdr|rte_arp_ipv4|rte_gtp_psc_generic_hdr|rte_l2tpv2_combined_msg_hdr|rte_ecpri.*";

const FUNCTIONS: &str = "twin_.*|rte_eth_(dev_.*|macaddr_get|rx_queue_setup|tx_queue_setup|stats_.*|link_get_nowait|\
    promiscuous_.*|allmulticast_.*|linkstatus_.*|random_addr)|rte_flow_error_set|rte_flow_dynf_.*|rte_vdev_register|rte_zmalloc|rte_free|\
    rte_eal_hotplug_(add|remove)|rte_strerror|rte_log|rte_log_register_type_and_pick_level|rte_pktmbuf_free_bulk|\
    rte_eal_process_type|rte_security_dynfield_.*";

const TYPES: &str = "rte_eth_dev|eth_dev_ops|rte_flow_ops|rte_flow_fp_ops|rte_vdev_driver|rte_vdev_device|\
    rte_flow_(item|action|query|op|indirect|indir|port|queue|error|template|pattern|actions|attr).*|\
    rte_security_ops|twin_session";

const VALUES: &str = "TWIN_.*|RTE_ETH_(DEV_FLOW_OPS_THREAD_SAFE|DEV_AUTOFILL_QUEUE_XSTATS|LINK_.*|RX_OFFLOAD_.*|TX_OFFLOAD_.*|\
    RSS_.*|XSTATS_NAME_SIZE|QUEUE_STATE_.*|NAME_MAX_LEN)|RTE_PKTMBUF_HEADROOM|RTE_MAX_ETHPORTS|RTE_FLOW_.*|rte_flow_item_.*_mask|RTE_LOG_.*";

fn fail(what: &str) -> ! {
    println!("cargo::error=the NIC twin is a DPDK driver, and what it is built from is missing: run make setup");
    for line in what.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::error={line}");
    }
    std::process::exit(1)
}

/// `DPDK_DRIVER_INCLUDE`, or where `make setup` puts the headers of this version.
fn driver_headers(version: &str) -> PathBuf {
    println!("cargo::rerun-if-env-changed=DPDK_DRIVER_INCLUDE");
    let folder = env::var_os("DPDK_DRIVER_INCLUDE")
        .map_or_else(|| PathBuf::from(format!("/usr/local/include/dpdk-driver-{version}")), PathBuf::from);
    // Cargo looks again once they are there.
    println!("cargo::rerun-if-changed={}", folder.display());
    for header in HEADERS {
        if !folder.join(header).is_file() {
            fail(&format!("{} is not there (DPDK {version})", folder.join(header).display()));
        }
    }
    folder
}

/// bindgen loads libclang, and panics when there is none: whether it does is seen before, and said in other words.
fn has_libclang() -> bool {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let loaded = std::panic::catch_unwind(bindgen::clang_version).is_ok();
    std::panic::set_hook(told);
    loaded
}

fn bind(includes: &[PathBuf], flags: &[String], out: &Path) -> Result<(), String> {
    let bindings = bindgen::Builder::default()
        .header("c/wrapper.h")
        .clang_args(includes.iter().map(|path| format!("-I{}", path.display())))
        .clang_args(flags)
        .allowlist_function(FUNCTIONS)
        .allowlist_type(TYPES)
        .allowlist_var(VALUES)
        .opaque_type(OPAQUE)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(false)
        .layout_tests(false)
        .generate_comments(false)
        .merge_extern_blocks(true)
        .formatter(bindgen::Formatter::None)
        .generate()
        .map_err(|error| error.to_string())?;
    bindings.write_to_file(out).map_err(|error| format!("{}: {error}", out.display()))
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=c");
    println!("cargo::rustc-check-cfg=cfg(flow_fp_ops)");
    if env::var_os("CARGO_FEATURE_PMD").is_none() {
        return;
    }
    let dpdk = match pkg_config::Config::new().range_version(VERSIONS).probe("libdpdk") {
        Ok(dpdk) => dpdk,
        Err(error) => fail(&error.to_string()),
    };
    if !has_libclang() {
        fail("libclang is missing: bindings are made from DPDK's headers with it");
    }
    println!("cargo::rustc-link-lib=rte_bus_vdev");
    println!("cargo::rustc-link-lib=rte_security");
    let mut parts = dpdk.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    // From 24.03 the asynchronous operations have a table of their own.
    if version >= (24, 3) {
        println!("cargo::rustc-cfg=flow_fp_ops");
    }

    let mut includes = dpdk.include_paths.clone();
    includes.push(driver_headers(&dpdk.version));
    let mut flags: Vec<String> =
        ["-include", "rte_config.h", "-DALLOW_EXPERIMENTAL_API", "-DALLOW_INTERNAL_API"].map(str::to_owned).to_vec();
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        flags.push("-march=corei7".to_owned());
    }
    let mut shim = cc::Build::new();
    shim.file("c/shim.c").file("c/security.c").includes(&includes).warnings(false).opt_level(2);
    for flag in &flags {
        shim.flag(flag);
    }
    if let Err(error) = shim.try_compile("nic_twin_shim") {
        fail(&error.to_string());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("bindings.rs");
    if let Err(error) = bind(&includes, &flags, &out) {
        fail(&error);
    }
}
