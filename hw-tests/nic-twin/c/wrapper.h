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
#include <rte_security.h>
#include <rte_security_driver.h>

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

/* What was received is described for the host: a session has opened it, with the application's value where there is one, or
 * has refused it. */
void twin_mbuf_secured(struct rte_mbuf *packet, const uint64_t *userdata, int refused);
/* 1: the host wants it sealed, with this session (0: it named none), behind so many octets of Ethernet. */
int twin_mbuf_tx_session(const struct rte_mbuf *packet, uint64_t *session, uint32_t *link);

void twin_mbuf_set_session(struct rte_mbuf *packet, uint64_t session);

/* rte_security, flat. Addresses and salt as on the wire. */
struct twin_session {
	uint64_t first;
	uint64_t packets_soft;
	uint64_t bytes_soft;
	uint64_t packets_hard;
	uint64_t bytes_hard;
	uint64_t userdata;
	const uint8_t *key;
	uint32_t key_length;
	uint32_t spi;
	uint32_t window;
	uint8_t salt[4];
	uint8_t source[4];
	uint8_t destination[4];
	uint8_t source6[16];
	uint8_t destination6[16];
	uint32_t label;
	uint8_t v6;
	uint16_t udp_source;
	uint16_t udp_destination;
	uint8_t protocol;
	uint8_t egress;
	uint8_t esn;
	uint8_t ecn;
	uint8_t udp;
	uint8_t copy_dscp;
	uint8_t copy_df;
	uint8_t dscp;
	uint8_t df;
	uint8_t ttl;
	/* The IV is not the NIC's to make. */
	uint8_t iv_given;
};
/* 0, or -EINVAL, -ENOTSUP: not ESP in tunnel mode with AES-GCM, or UDP over IPv6, or an option that this NIC does not do. */
int twin_session_read(const struct rte_security_session_conf *conf, struct twin_session *out);
/* Kinds: 1 inline crypto, 2 inline protocol. An array that ends with an element without action. */
const struct rte_security_capability *twin_capabilities(uint32_t kinds, int esn, uint32_t window, uint32_t key);
void twin_stats_write(struct rte_security_stats *stats, int egress, uint64_t packets, uint64_t bytes, uint64_t errors,
	uint64_t replays);
/* Tells the application of a limit that was met: 0 and 1 soft, 2 and 3 hard, of packets and octets; 4: no number is left. */
void twin_expired(uint16_t port, uint64_t userdata, uint32_t which);
/* The context of a port; NULL: no memory. */
void *twin_security_open(void *device);
void twin_security_close(void *context);

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
static const uint64_t TWIN_RX_CHECKSUM = RTE_ETH_RX_OFFLOAD_CHECKSUM;
static const uint64_t TWIN_TX_FAST_FREE = RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
static const uint64_t TWIN_RX_SECURITY = RTE_ETH_RX_OFFLOAD_SECURITY;
static const uint64_t TWIN_TX_SEALED = RTE_MBUF_F_TX_SEC_OFFLOAD;
static const uint64_t TWIN_TX_SECURITY = RTE_ETH_TX_OFFLOAD_SECURITY;
static const uint32_t TWIN_FLOW_THREAD_SAFE = RTE_ETH_DEV_FLOW_OPS_THREAD_SAFE;
static const uint32_t TWIN_DPDK_YEAR = RTE_VER_YEAR;
static const uint32_t TWIN_DPDK_MONTH = RTE_VER_MONTH;
static const uint32_t TWIN_REPRESENTOR = RTE_ETH_DEV_REPRESENTOR;
