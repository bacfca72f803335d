/* What the bindings are made from. */
#pragma once
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_flow_driver.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <bus_vdev_driver.h>
#include <ethdev_driver.h>
#include <ethdev_vdev.h>

/* rte_errno is a macro over a variable of the thread. */
int twin_errno(void);

/* The ethdev of a virtual device, with name, device and NUMA node set; NULL: no port or no memory left. */
struct rte_eth_dev *twin_ethdev_allocate(struct rte_vdev_device *vdev);
const char *twin_vdev_name(const struct rte_vdev_device *vdev);
const char *twin_vdev_args(const struct rte_vdev_device *vdev);

/* The functions below are static inline in DPDK. */
uint16_t twin_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
uint16_t twin_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count);
void twin_mbuf_free(struct rte_mbuf *packet);

/* The whole frame in one segment; NULL: it cannot be. */
uint8_t *twin_mbuf_data(struct rte_mbuf *packet, uint32_t *length);
/* The same packet with these octets, where the buffer is this packet's alone and large enough: 0. Else -1, and nothing is changed. */
int twin_mbuf_replace(struct rte_mbuf *packet, const uint8_t *frame, uint32_t length);
/* A packet of the same pool with these octets, received on the same port; NULL: none left, or too long. */
struct rte_mbuf *twin_mbuf_like(struct rte_mbuf *packet, const uint8_t *frame, uint32_t length);
uint32_t twin_mbuf_length(const struct rte_mbuf *packet);
/* What was received is described for the host: port, checksums and queue; marks of a former user are gone. */
void twin_mbuf_received(struct rte_mbuf *packet, uint16_t port);
void twin_mbuf_hash(struct rte_mbuf *packet, uint32_t hash);
void twin_mbuf_flag(struct rte_mbuf *packet);
void twin_mbuf_mark(struct rte_mbuf *packet, uint32_t id);
/* Only after rte_flow_dynf_metadata_register: else it does nothing. */
void twin_mbuf_meta(struct rte_mbuf *packet, uint32_t value);
/* 1: the application set metadata for the NIC's egress rules. */
int twin_mbuf_get_meta(const struct rte_mbuf *packet, uint32_t *value);

/* MODIFY_FIELD, whose layout moved between releases. */
struct twin_modify {
	uint32_t operation;
	uint32_t field;
	uint32_t level;
	uint32_t tag;
	uint32_t offset;
	uint32_t width;
	uint32_t source;
	uint8_t value[16];
};
/* A source by pointer becomes an immediate one. */
void twin_modify_resolve(struct rte_flow_action_modify_field *conf);
void twin_modify_read(const struct rte_flow_action_modify_field *conf, struct twin_modify *out);

/* Text to a stream of the application. */
void twin_write(FILE *stream, const char *text);
/* One line of the log, of a driver's level (RTE_LOG_*). */
void twin_log(uint32_t level, const char *text);

static const uint64_t TWIN_RSS_TYPES = RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP;
static const uint64_t TWIN_RX_HIDDEN = RTE_ETH_RX_OFFLOAD_VLAN_STRIP | RTE_ETH_RX_OFFLOAD_QINQ_STRIP |
	RTE_ETH_RX_OFFLOAD_TCP_LRO;
static const uint64_t TWIN_RX_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t TWIN_TX_HIDDEN = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
static const uint32_t TWIN_FLOW_THREAD_SAFE = RTE_ETH_DEV_FLOW_OPS_THREAD_SAFE;
