//! Finds DPDK with pkg-config, compiles the shim and makes the bindings.

use std::{env, path::PathBuf, process::Command};

use bindgen::callbacks::{ItemInfo, ParseCallbacks};

/// The first and the first unsupported version (DPDK's are year.month): from one that is built and tested to the other, 24.11.
const VERSIONS: std::ops::Range<&str> = "22.11".."25";

/// Versions at which the bound API changed in ways that Rust code sees; each becomes a `cfg` here, and `DEP_DPDK_VERSION` in
/// crates that depend on this one.
const MILESTONES: [(u32, u32); 2] = [(23, 11), (24, 11)];

/// Types with bit-fields or packing that Rust has no layout for; nobody here looks into them. bindgen would put the bit-field of
/// `rte_flow_item_eth` at octet 16, where C has it at 14, right behind the header.
const OPAQUE: &str =
    "rte_flow_item_eth|rte_arp_hdr|rte_arp_ipv4|rte_gtp_psc_generic_hdr|rte_l2tpv2_combined_msg_hdr|rte_ecpri.*";

/// Prefix of what the shim defines in place of a static inline function or a macro.
const PREFIX: &str = "sys_";

#[derive(Debug)]
struct DropPrefix;

impl ParseCallbacks for DropPrefix {
    fn item_name(&self, item: ItemInfo<'_>) -> Option<String> {
        item.name.strip_prefix(PREFIX).map(str::to_owned)
    }
}

fn fail(what: &str) -> ! {
    println!(
        "cargo::error=DPDK not found: run make setup (packages libdpdk-dev, libclang1 and libclang-common-dev of one version)"
    );
    for line in what.lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::error={line}");
    }
    std::process::exit(1)
}

/// bindgen loads libclang, and panics when there is none: whether it does is seen before, and said in other words.
fn has_libclang() -> bool {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let loaded = std::panic::catch_unwind(bindgen::clang_version).is_ok();
    std::panic::set_hook(told);
    loaded
}

/// Flags that pkg-config knows and its crate doesn't tell: the instruction set that DPDK's headers were configured for.
fn machine() -> Vec<String> {
    let flags = Command::new(env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()))
        .args(["--cflags-only-other", "libdpdk"])
        .output();
    let text = flags.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.split_whitespace().filter(|flag| flag.starts_with("-m")).map(str::to_owned).collect()
}

fn main() {
    for file in ["build.rs", "c/wrapper.h", "c/shim.c"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for (year, month) in MILESTONES {
        println!("cargo::rustc-check-cfg=cfg(dpdk_{year}_{month})");
    }
    let dpdk = match pkg_config::Config::new().range_version(VERSIONS).probe("libdpdk") {
        Ok(dpdk) => dpdk,
        Err(error) => fail(&error.to_string()),
    };
    if !has_libclang() {
        fail("libclang is missing: bindings are made from DPDK's headers with it");
    }
    // Drivers are plug-ins that EAL loads; these two also have functions for applications. Linked only where they are called.
    for driver in ["rte_net_ring", "rte_bus_vdev"] {
        println!("cargo::rustc-link-lib={driver}");
    }
    println!("cargo::metadata=VERSION={}", dpdk.version);
    let mut parts = dpdk.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    for milestone in MILESTONES.into_iter().filter(|milestone| version >= *milestone) {
        println!("cargo::rustc-cfg=dpdk_{}_{}", milestone.0, milestone.1);
    }

    let mut flags: Vec<String> = ["-include", "rte_config.h", "-DALLOW_EXPERIMENTAL_API"].map(str::to_owned).to_vec();
    flags.extend(machine());
    let mut shim = cc::Build::new();
    shim.file("c/shim.c").includes(&dpdk.include_paths).warnings(false).opt_level(2);
    for flag in &flags {
        shim.flag(flag);
    }
    if let Err(error) = shim.try_compile("sluicegate_dpdk_shim") {
        fail(&error.to_string());
    }

    let bindings = bindgen::Builder::default()
        .header("c/wrapper.h")
        .clang_args(dpdk.include_paths.iter().map(|path| format!("-I{}", path.display())))
        .clang_args(&flags)
        .parse_callbacks(Box::new(DropPrefix))
        .allowlist_function("(sys_)?rte_(eal|eth|dev|flow|security|mbuf|pktmbuf|mempool|ring|lcore|thread|log|openlog|errno|strerror|vdev|version|socket|gettid|flow_dynf|get|mp|exit|delay|driver|bus)(_.*)?")
        .allowlist_function("rte_(version|strerror|exit|socket_id|socket_count|log|vlog)")
        .allowlist_type("rte_(eth|flow|security|mbuf|pktmbuf|mempool|ring|lcore|thread|log|ether|ipv4|ipv6|tcp|udp|sctp|mpls|vlan|dev|eal|proc).*")
        .allowlist_var("(sys_)?(RTE_(ETH|ETHER|FLOW|MBUF|PKTMBUF|PTYPE|MEMPOOL|LOG|LCORE|MAX|VER|SECURITY|LOGTYPE|RING)_.*|rte_flow_dynf_.*|rte_security_dynfield_offset)")
        .allowlist_var("RTE_(PKTMBUF_HEADROOM|MAX_ETHPORTS|MAX_LCORE|CACHE_LINE_SIZE)|per_lcore__.*|LCORE_ID_ANY|SOCKET_ID_ANY|RING_F_.*")
        .opaque_type(OPAQUE)
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .derive_default(true)
        .layout_tests(false)
        .generate_comments(false)
        .merge_extern_blocks(true)
        .use_core()
        .formatter(bindgen::Formatter::None)
        .generate();
    let bindings = match bindings {
        Ok(bindings) => bindings,
        Err(error) => fail(&error.to_string()),
    };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("bindings.rs");
    if let Err(error) = bindings.write_to_file(&out) {
        fail(&format!("{}: {error}", out.display()));
    }
}
