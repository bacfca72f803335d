# Makes the ethdev_driver.h of 22.11 that of 24.11, as far as a driver and librte_ethdev have to agree: what stands where in the two
# structures of a port that grew in between. Of functions that a driver may leave out only the place is kept; the rest is as it was.
s/^#include <dev_driver\.h>$/#include <pthread.h>\n\n&/
/^struct rte_eth_dev {/,/^}/ {
	# Before it from 24.03; behind it from 23.11.
	s/^\teth_tx_descriptor_status_t tx_descriptor_status;.*/\teth_tx_queue_count_t tx_queue_count;\n&\n\teth_recycle_tx_mbufs_reuse_t recycle_tx_mbufs_reuse;\n\teth_recycle_rx_descriptors_refill_t recycle_rx_descriptors_refill;/
	# From 24.03.
	s/^\tconst struct eth_dev_ops \*dev_ops;.*/&\n\tconst struct rte_flow_fp_ops *flow_fp_ops;/
}
/^struct eth_dev_ops {/,/^}/ {
	# speed_lanes_get, speed_lanes_set, speed_lanes_get_capa (24.11)
	s/^\teth_link_update_t .*/&\n\tvoid (*speed_lanes[3])(void);/
	# recycle_rxq_info_get (23.11)
	s/^\teth_txq_info_get_t .*/&\n\tvoid (*recycle_rxq_info_get)(void);/
	# timesync_adjust_freq (24.11)
	s/^\teth_timesync_adjust_time .*/&\n\tvoid (*timesync_adjust_freq)(void);/
	# count_aggr_ports, map_aggr_tx_affinity (23.03); get_restore_flags (24.11)
	s/^}/\tvoid (*aggregated[2])(void);\n\tvoid (*get_restore_flags)(void);\n&/
}
