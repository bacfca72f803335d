//! The configuration of a device.

use dpdk_sys as sys;

/// Descriptors of a queue, if the device has no wish of its own.
const DESCRIPTORS: u16 = 512;
/// Octets of an Ethernet header and its check sequence.
const ETHERNET: u32 = 18;

pub(super) fn wish(ring_size: u16) -> u16 {
    if ring_size == 0 { DESCRIPTORS } else { ring_size }
}

/// Receive and transmit queues: one of each for each worker, as far as the device has them.
pub(super) fn queues(info: &sys::rte_eth_dev_info, workers: usize) -> (u16, u16) {
    let workers = u16::try_from(workers).unwrap_or(u16::MAX).max(1);
    (workers.min(info.max_rx_queues).max(1), workers.min(info.max_tx_queues).max(1))
}

/// The largest MTU that the device can be configured with: it has a bound of its own, and one by the length of frames.
pub(super) fn most(info: &sys::rte_eth_dev_info) -> u16 {
    let by_mtu = if info.max_mtu == 0 { u16::MAX } else { info.max_mtu };
    // As ethdev reckons: what is in front of and behind a packet is the difference, where the driver tells both.
    let told = by_mtu != u16::MAX && info.max_rx_pktlen > u32::from(by_mtu);
    let around = if told { info.max_rx_pktlen - u32::from(by_mtu) } else { ETHERNET };
    match info.max_rx_pktlen.checked_sub(around) {
        Some(by_frame) if by_frame > 0 => by_mtu.min(u16::try_from(by_frame).unwrap_or(u16::MAX)),
        _ => by_mtu,
    }
}

pub(super) fn configuration(info: &sys::rte_eth_dev_info, rx_queues: u16, mtu: u16) -> sys::rte_eth_conf {
    let mut config = sys::rte_eth_conf::default();
    config.rxmode.mtu = u32::from(mtu.min(most(info)).max(info.min_mtu));
    let spread = info.flow_type_rss_offloads & (sys::RTE_ETH_RSS_IP | sys::RTE_ETH_RSS_TCP | sys::RTE_ETH_RSS_UDP);
    // A device that cannot spread by flow gets to the right worker by the rings between them.
    if rx_queues > 1 && spread != 0 {
        config.rxmode.mq_mode = sys::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_RSS;
        config.rx_adv_conf.rss_conf.rss_hf = spread;
    }
    config
}

/// Enables IPsec offloads of a device, as far as it has any.
pub(super) fn offer_security(info: &sys::rte_eth_dev_info, config: &mut sys::rte_eth_conf) {
    config.rxmode.offloads |= info.rx_offload_capa & sys::RTE_ETH_RX_OFFLOAD_SECURITY;
    config.txmode.offloads |= info.tx_offload_capa & sys::RTE_ETH_TX_OFFLOAD_SECURITY;
}

/// Asks to be told when the device is gone, as far as its driver tells (`flags`: `rte_eth_dev_info.dev_flags`). mlx5 tells nobody who has
/// not asked (mlx5_ethdev_os.c, `mlx5_dev_interrupt_device_fatal`); ethdev refuses who asks a driver that cannot.
pub(super) fn enable_removal_events(flags: u32, config: &mut sys::rte_eth_conf) {
    config.intr_conf.set_rmv(u32::from(u64::from(flags) & sys::RTE_ETH_DEV_INTR_RMV != 0));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(rx: u16, tx: u16) -> sys::rte_eth_dev_info {
        sys::rte_eth_dev_info { max_rx_queues: rx, max_tx_queues: tx, max_mtu: 9000, min_mtu: 68, ..Default::default() }
    }

    #[test]
    fn workers_get_a_queue_each_as_far_as_there_are_any() {
        assert_eq!(queues(&device(8, 8), 4), (4, 4));
        assert_eq!(queues(&device(1, 2), 4), (1, 2));
        assert_eq!(queues(&device(1, 1), 0), (1, 1));
    }

    #[test]
    fn flows_are_spread_only_where_the_device_can_and_queues_are_several() {
        let mut info = device(8, 8);
        assert_eq!(configuration(&info, 2, 1500).rxmode.mq_mode, 0);
        info.flow_type_rss_offloads = sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP;
        let config = configuration(&info, 2, 1500);
        assert_eq!(config.rxmode.mq_mode, sys::rte_eth_rx_mq_mode::RTE_ETH_MQ_RX_RSS);
        assert_eq!(config.rx_adv_conf.rss_conf.rss_hf, sys::RTE_ETH_RSS_NONFRAG_IPV4_TCP);
        assert_eq!(configuration(&info, 1, 1500).rxmode.mq_mode, 0);
    }

    #[test]
    fn an_mtu_outside_the_devices_bounds_is_brought_inside() {
        assert_eq!(configuration(&device(1, 1), 1, 9216).rxmode.mtu, 9000);
        assert_eq!(configuration(&device(1, 1), 1, 0).rxmode.mtu, 68);
        assert_eq!(configuration(&device(1, 1), 1, 1500).rxmode.mtu, 1500);
    }

    #[test]
    fn an_mtu_is_brought_inside_what_a_device_says_of_frames() {
        // As net_af_packet: any MTU, and frames of 1518 octets.
        let info = sys::rte_eth_dev_info { max_rx_pktlen: 1518, max_mtu: u16::MAX, ..device(1, 1) };
        assert_eq!(configuration(&info, 1, 1532).rxmode.mtu, 1500);
        let info = sys::rte_eth_dev_info { max_rx_pktlen: 9022, max_mtu: 9000, ..device(1, 1) };
        assert_eq!(configuration(&info, 1, 9216).rxmode.mtu, 9000);
    }

    #[test]
    fn removal_is_asked_about_where_the_driver_tells() {
        for (flags, rmv) in [(0, 0), (sys::RTE_ETH_DEV_INTR_RMV, 1), (!sys::RTE_ETH_DEV_INTR_RMV, 0), (u64::MAX, 1)] {
            let mut config = sys::rte_eth_conf::default();
            enable_removal_events(flags as u32, &mut config);
            assert_eq!(config.intr_conf.rmv(), rmv, "{flags:#x}");
        }
    }

    #[test]
    fn ipsec_is_asked_for_where_the_device_has_it() {
        let mut info = device(1, 1);
        let mut config = configuration(&info, 1, 1500);
        offer_security(&info, &mut config);
        assert_eq!((config.rxmode.offloads, config.txmode.offloads), (0, 0));
        info.rx_offload_capa = sys::RTE_ETH_RX_OFFLOAD_SECURITY | sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP;
        offer_security(&info, &mut config);
        assert_eq!((config.rxmode.offloads, config.txmode.offloads), (sys::RTE_ETH_RX_OFFLOAD_SECURITY, 0));
        info.tx_offload_capa = sys::RTE_ETH_TX_OFFLOAD_SECURITY;
        offer_security(&info, &mut config);
        assert_eq!(config.txmode.offloads, sys::RTE_ETH_TX_OFFLOAD_SECURITY);
    }
}
