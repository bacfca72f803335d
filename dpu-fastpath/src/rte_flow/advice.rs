//! Advice for operators about error messages of drivers.

/// Error messages of drivers, and the remedy. All are the mlx5 driver's, of 22.11 and 24.11.
const REMEDIES: [(&str, &str); 6] = [
    (
        // mlx5_flow_validate_item_mpls.
        "MPLS not supported or disabled in firmware",
        "have the firmware parse MPLS in UDP: mlxconfig -d ADDRESS set FLEX_PARSER_PROFILE_ENABLE=1, then mlxfwreset -d ADDRESS reset",
    ),
    (
        // mlx5_flow_info_get.
        "incorrect steering mode",
        "start the driver with hardware steering (--pci ADDRESS,dv_flow_en=2), or name --nic mlx5-sws",
    ),
    (
        // mlx5_flow_pick_transfer_proxy.
        "unable to provide a proxy port",
        "the NIC is not in switchdev mode: devlink dev eswitch set pci/ADDRESS mode switchdev",
    ),
    (
        // flow_dv_validate_item_meta, flow_dv_validate_item_mark.
        "extended metadata feature",
        "let the driver use metadata: --pci ADDRESS,dv_xmeta_en=1",
    ),
    (
        // mlx5_flow_dv_validate_item_ipv4.
        "IPV4 ihl offload not supported",
        "the firmware does not let the driver match the length of IPv4 headers: update it (mlxfwmanager -d ADDRESS -u)",
    ),
    (
        // flow_dv_validate_item_integrity; guides/nics/mlx5.rst.
        "packet integrity integrity_item not supported",
        "the NIC does not match the checks of its parser: that takes a ConnectX-6 Dx or later",
    ),
];

/// The remedy for a driver's error message, where one is known.
pub(super) fn advice(words: &str) -> Option<&'static str> {
    REMEDIES.iter().find(|(known, _)| words.contains(known)).map(|(_, remedy)| *remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_a_setting_ends_come_with_the_command() {
        // mlx5_flow.c, 22.11 and 24.11.
        let mpls = advice("MPLS not supported or disabled in firmware configuration.").unwrap();
        assert!(mpls.contains("FLEX_PARSER_PROFILE_ENABLE=1"), "{mpls}");
        let switch = "unable to provide a proxy port for port which is not a master or a representor port";
        assert!(advice(switch).unwrap().contains("mode switchdev"));
        assert!(advice("info get with incorrect steering mode").unwrap().contains("dv_flow_en=2"));
        assert_eq!(advice("cannot allocate memory"), None);
    }
}
