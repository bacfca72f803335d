/* SPDX-License-Identifier: Apache-2.0
 *
 * What dpdk-sys binds: DPDK's public headers, and the functions of shim.c.
 */
#ifndef SLUICEGATE_DPDK_WRAPPER_H
#define SLUICEGATE_DPDK_WRAPPER_H

#include <rte_version.h>

#include <rte_bus_vdev.h>
#include <rte_cryptodev.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_security.h>
#include <rte_thread.h>

/* DPDK's static inline functions have no symbol. shim.c gives each that Rust calls one, named sys_ and the function; the
 * bindings drop the prefix. */

int sys_rte_errno_get(void);
void sys_rte_errno_set(int value);

uint16_t sys_rte_eth_rx_burst(uint16_t port_id, uint16_t queue_id, struct rte_mbuf **rx_pkts, uint16_t nb_pkts);
uint16_t sys_rte_eth_tx_burst(uint16_t port_id, uint16_t queue_id, struct rte_mbuf **tx_pkts, uint16_t nb_pkts);
uint16_t sys_rte_eth_tx_prepare(uint16_t port_id, uint16_t queue_id, struct rte_mbuf **tx_pkts, uint16_t nb_pkts);
int sys_rte_eth_rx_queue_count(uint16_t port_id, uint16_t queue_id);

struct rte_mbuf *sys_rte_pktmbuf_alloc(struct rte_mempool *mp);
int sys_rte_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count);
void sys_rte_pktmbuf_free(struct rte_mbuf *m);
void sys_rte_pktmbuf_reset(struct rte_mbuf *m);
void *sys_rte_pktmbuf_mtod(struct rte_mbuf *m);
uint16_t sys_rte_pktmbuf_data_len(const struct rte_mbuf *m);
uint16_t sys_rte_pktmbuf_headroom(const struct rte_mbuf *m);
uint16_t sys_rte_pktmbuf_tailroom(const struct rte_mbuf *m);
char *sys_rte_pktmbuf_append(struct rte_mbuf *m, uint16_t len);
char *sys_rte_pktmbuf_prepend(struct rte_mbuf *m, uint16_t len);
char *sys_rte_pktmbuf_adj(struct rte_mbuf *m, uint16_t len);
int sys_rte_pktmbuf_trim(struct rte_mbuf *m, uint16_t len);
int sys_rte_pktmbuf_linearize(struct rte_mbuf *m);
uint16_t sys_rte_mbuf_refcnt_read(const struct rte_mbuf *m);
void sys_rte_mbuf_refcnt_set(struct rte_mbuf *m, uint16_t value);
uint16_t sys_rte_mbuf_refcnt_update(struct rte_mbuf *m, int16_t value);

/* Fields of rte_mbuf by name: where they are in the structure changed with 24.07. */
struct rte_mbuf_view {
	void *buf_addr;
	uint64_t ol_flags;
	/* hash.fdir.hi: the mark of a flow rule, if ol_flags has RTE_MBUF_F_RX_FDIR_ID. */
	uint32_t mark;
	uint32_t pkt_len;
	uint16_t buf_len;
	uint16_t data_off;
	uint16_t data_len;
	uint16_t nb_segs;
	uint16_t vlan_tci;
	/* Somebody else holds the mbuf or its memory as well. */
	uint16_t shared;
	/* Metadata that a flow rule has written; 0: none has. */
	uint32_t meta;
	/* Lower half of the user data of the session that has opened or deciphered it; 0: none has, or the driver doesn't tell. */
	uint32_t told;
};
void sys_rte_mbuf_view_get(const struct rte_mbuf *m, struct rte_mbuf_view *view);
/* Makes it one segment with the frame at this place, without any flag. */
void sys_rte_mbuf_view_set(struct rte_mbuf *m, uint16_t data_off, uint16_t data_len);

/* What a driver writes when it receives; tests do too. */
void sys_rte_mbuf_mark_set(struct rte_mbuf *m, uint32_t mark);
void sys_rte_mbuf_vlan_tci_set(struct rte_mbuf *m, uint16_t tci);
int sys_rte_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);

unsigned int sys_rte_ring_enqueue_burst(struct rte_ring *r, void *const *objs, unsigned int n, unsigned int *free_space);
unsigned int sys_rte_ring_dequeue_burst(struct rte_ring *r, void **objs, unsigned int n, unsigned int *available);
unsigned int sys_rte_ring_count(const struct rte_ring *r);

uint32_t sys_rte_flow_dynf_metadata_get(struct rte_mbuf *m);
void sys_rte_flow_dynf_metadata_set(struct rte_mbuf *m, uint32_t value);
int sys_rte_flow_dynf_metadata_avail(void);

/* Bit-fields of items, as the compiler of C lays them out. */
int sys_rte_flow_item_eth_has_vlan(const struct rte_flow_item_eth *item);
int sys_rte_flow_item_vlan_has_more(const struct rte_flow_item_vlan *item);

/* Tells the driver that all packets of a transfer table come from the wire, or that none does. Nothing before 23.03. */
void sys_rte_flow_table_specialize(struct rte_flow_template_table_attr *attr, int wire);

/* The context is opaque: its type went from struct rte_security_ctx to void with 23.11. */
int sys_rte_security_set_pkt_metadata(void *ctx, void *session, struct rte_mbuf *m, void *params);
/* Asks for the session to be applied to a frame on its way out, whose Ethernet header and tags have l2_len octets and whose IP
 * header has l3_len; ip is RTE_MBUF_F_TX_IPV4 or RTE_MBUF_F_TX_IPV6. Returns what rte_security_set_pkt_metadata does. */
int sys_rte_mbuf_tx_security(struct rte_mbuf *m, void *ctx, void *session, uint16_t l2_len, uint16_t l3_len, uint64_t ip);
int sys_rte_security_dynfield_is_registered(void);
uint64_t sys_rte_security_dynfield_get(struct rte_mbuf *m);

/* Macros that bindgen cannot evaluate, because they call other macros. */
#define SYS_CONST(name) static const uint64_t sys_##name = name

SYS_CONST(RTE_ETH_DEV_INTR_RMV);
SYS_CONST(RTE_ETH_RX_OFFLOAD_VLAN_STRIP);
SYS_CONST(RTE_ETH_RX_OFFLOAD_IPV4_CKSUM);
SYS_CONST(RTE_ETH_RX_OFFLOAD_UDP_CKSUM);
SYS_CONST(RTE_ETH_RX_OFFLOAD_TCP_CKSUM);
SYS_CONST(RTE_ETH_RX_OFFLOAD_QINQ_STRIP);
SYS_CONST(RTE_ETH_RX_OFFLOAD_SCATTER);
SYS_CONST(RTE_ETH_RX_OFFLOAD_TIMESTAMP);
SYS_CONST(RTE_ETH_RX_OFFLOAD_SECURITY);
SYS_CONST(RTE_ETH_RX_OFFLOAD_KEEP_CRC);
SYS_CONST(RTE_ETH_RX_OFFLOAD_SCTP_CKSUM);
SYS_CONST(RTE_ETH_RX_OFFLOAD_RSS_HASH);
SYS_CONST(RTE_ETH_TX_OFFLOAD_VLAN_INSERT);
SYS_CONST(RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
SYS_CONST(RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
SYS_CONST(RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
SYS_CONST(RTE_ETH_TX_OFFLOAD_SCTP_CKSUM);
SYS_CONST(RTE_ETH_TX_OFFLOAD_TCP_TSO);
SYS_CONST(RTE_ETH_TX_OFFLOAD_MT_LOCKFREE);
SYS_CONST(RTE_ETH_TX_OFFLOAD_MULTI_SEGS);
SYS_CONST(RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE);
SYS_CONST(RTE_ETH_TX_OFFLOAD_SECURITY);
SYS_CONST(RTE_ETH_RSS_IPV4);
SYS_CONST(RTE_ETH_RSS_FRAG_IPV4);
SYS_CONST(RTE_ETH_RSS_NONFRAG_IPV4_TCP);
SYS_CONST(RTE_ETH_RSS_NONFRAG_IPV4_UDP);
SYS_CONST(RTE_ETH_RSS_NONFRAG_IPV4_SCTP);
SYS_CONST(RTE_ETH_RSS_NONFRAG_IPV4_OTHER);
SYS_CONST(RTE_ETH_RSS_IPV6);
SYS_CONST(RTE_ETH_RSS_FRAG_IPV6);
SYS_CONST(RTE_ETH_RSS_NONFRAG_IPV6_TCP);
SYS_CONST(RTE_ETH_RSS_NONFRAG_IPV6_UDP);
SYS_CONST(RTE_ETH_RSS_NONFRAG_IPV6_SCTP);
SYS_CONST(RTE_ETH_RSS_NONFRAG_IPV6_OTHER);
SYS_CONST(RTE_ETH_RSS_IP);
SYS_CONST(RTE_ETH_RSS_UDP);
SYS_CONST(RTE_ETH_RSS_TCP);
SYS_CONST(RTE_ETH_RSS_SCTP);
SYS_CONST(RTE_ETH_DEV_CAPA_RUNTIME_RX_QUEUE_SETUP);
SYS_CONST(RTE_ETH_DEV_CAPA_RUNTIME_TX_QUEUE_SETUP);
SYS_CONST(RTE_ETH_DEV_CAPA_RXQ_SHARE);
SYS_CONST(RTE_ETH_DEV_CAPA_FLOW_RULE_KEEP);
SYS_CONST(RTE_ETH_DEV_CAPA_FLOW_SHARED_OBJECT_KEEP);
SYS_CONST(RTE_ETH_DEV_REPRESENTOR);
SYS_CONST(RTE_MBUF_F_RX_FDIR);
SYS_CONST(RTE_MBUF_F_RX_FDIR_ID);
SYS_CONST(RTE_MBUF_F_RX_IP_CKSUM_MASK);
SYS_CONST(RTE_MBUF_F_RX_IP_CKSUM_GOOD);
SYS_CONST(RTE_MBUF_F_RX_IP_CKSUM_BAD);
SYS_CONST(RTE_MBUF_F_RX_L4_CKSUM_MASK);
SYS_CONST(RTE_MBUF_F_RX_L4_CKSUM_GOOD);
SYS_CONST(RTE_MBUF_F_RX_L4_CKSUM_BAD);
SYS_CONST(RTE_MBUF_F_RX_VLAN);
SYS_CONST(RTE_MBUF_F_RX_VLAN_STRIPPED);
SYS_CONST(RTE_MBUF_F_RX_QINQ);
SYS_CONST(RTE_MBUF_F_RX_QINQ_STRIPPED);
SYS_CONST(RTE_MBUF_F_RX_RSS_HASH);
SYS_CONST(RTE_MBUF_F_RX_SEC_OFFLOAD);
SYS_CONST(RTE_MBUF_F_RX_SEC_OFFLOAD_FAILED);
SYS_CONST(RTE_MBUF_F_TX_IP_CKSUM);
SYS_CONST(RTE_MBUF_F_TX_IPV4);
SYS_CONST(RTE_MBUF_F_TX_IPV6);
SYS_CONST(RTE_MBUF_F_TX_TCP_CKSUM);
SYS_CONST(RTE_MBUF_F_TX_UDP_CKSUM);
SYS_CONST(RTE_MBUF_F_TX_SCTP_CKSUM);
SYS_CONST(RTE_MBUF_F_TX_SEC_OFFLOAD);

#endif
