//! Is the processor one that the programs were built for?

/// What x86-64-v2 adds to the first x86-64, as `/proc/cpuinfo` calls it (System V ABI, AMD64 supplement, §3.1.1).
const X86_64_V2: [&str; 7] = ["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"];

/// Says what the processor lacks, before an instruction that it lacks ends the program without a word.
///
/// # Errors
/// What is missing, and what to do.
pub(crate) fn check() -> anyhow::Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(());
    }
    // Without /proc nothing can be said, and nothing is refused.
    let missing = std::fs::read_to_string("/proc/cpuinfo").map(|text| missing(&text)).unwrap_or_default();
    anyhow::ensure!(
        missing.is_empty(),
        "this program is built for x86-64-v2, and the processor (or the virtual machine's model of one) lacks {}: choose a CPU model that \
         has it (QEMU: -cpu max or host), or build with another target-cpu in .cargo/config.toml",
        missing.join(", ")
    );
    Ok(())
}

fn missing(cpuinfo: &str) -> Vec<&'static str> {
    let Some(line) = cpuinfo.lines().find(|line| line.starts_with("flags")) else { return Vec::new() };
    let flags: Vec<&str> = line.split_whitespace().collect();
    X86_64_V2.into_iter().filter(|wanted| !flags.contains(wanted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_popcnt_is_named_and_one_of_another_kind_passes() {
        let flags = "flags\t\t: fpu cx16 lahf_lm pni ssse3 sse4_1 sse4_2 popcnt avx";
        assert!(missing(flags).is_empty());
        assert_eq!(missing(&flags.replace(" popcnt", "").replace("ssse3", "ssse3x")), ["popcnt", "ssse3"]);
        assert!(missing("Features\t: fp asimd").is_empty());
        check().unwrap();
    }
}
