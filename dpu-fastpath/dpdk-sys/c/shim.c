/* SPDX-License-Identifier: Apache-2.0
 *
 * One symbol for each of DPDK's static inline functions that Rust calls.
 */
#include "wrapper.h"

int sys_rte_errno_get(void) { return rte_errno; }

void sys_rte_errno_set(int value) { rte_errno = value; }

uint16_t sys_rte_eth_rx_burst(uint16_t port_id, uint16_t queue_id, struct rte_mbuf **rx_pkts, uint16_t nb_pkts)
{
	return rte_eth_rx_burst(port_id, queue_id, rx_pkts, nb_pkts);
}

uint16_t sys_rte_eth_tx_burst(uint16_t port_id, uint16_t queue_id, struct rte_mbuf **tx_pkts, uint16_t nb_pkts)
{
	return rte_eth_tx_burst(port_id, queue_id, tx_pkts, nb_pkts);
}

uint16_t sys_rte_eth_tx_prepare(uint16_t port_id, uint16_t queue_id, struct rte_mbuf **tx_pkts, uint16_t nb_pkts)
{
	return rte_eth_tx_prepare(port_id, queue_id, tx_pkts, nb_pkts);
}

int sys_rte_eth_rx_queue_count(uint16_t port_id, uint16_t queue_id) { return rte_eth_rx_queue_count(port_id, queue_id); }

struct rte_mbuf *sys_rte_pktmbuf_alloc(struct rte_mempool *mp) { return rte_pktmbuf_alloc(mp); }

int sys_rte_pktmbuf_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **mbufs, unsigned int count)
{
	return rte_pktmbuf_alloc_bulk(pool, mbufs, count);
}

void sys_rte_pktmbuf_free(struct rte_mbuf *m) { rte_pktmbuf_free(m); }

void sys_rte_pktmbuf_reset(struct rte_mbuf *m) { rte_pktmbuf_reset(m); }

void *sys_rte_pktmbuf_mtod(struct rte_mbuf *m) { return rte_pktmbuf_mtod(m, void *); }

uint16_t sys_rte_pktmbuf_data_len(const struct rte_mbuf *m) { return rte_pktmbuf_data_len(m); }

uint16_t sys_rte_pktmbuf_headroom(const struct rte_mbuf *m) { return rte_pktmbuf_headroom(m); }

uint16_t sys_rte_pktmbuf_tailroom(const struct rte_mbuf *m) { return rte_pktmbuf_tailroom(m); }

char *sys_rte_pktmbuf_append(struct rte_mbuf *m, uint16_t len) { return rte_pktmbuf_append(m, len); }

char *sys_rte_pktmbuf_prepend(struct rte_mbuf *m, uint16_t len) { return rte_pktmbuf_prepend(m, len); }

char *sys_rte_pktmbuf_adj(struct rte_mbuf *m, uint16_t len) { return rte_pktmbuf_adj(m, len); }

int sys_rte_pktmbuf_trim(struct rte_mbuf *m, uint16_t len) { return rte_pktmbuf_trim(m, len); }

int sys_rte_pktmbuf_linearize(struct rte_mbuf *m) { return rte_pktmbuf_linearize(m); }

uint16_t sys_rte_mbuf_refcnt_read(const struct rte_mbuf *m) { return rte_mbuf_refcnt_read(m); }

void sys_rte_mbuf_refcnt_set(struct rte_mbuf *m, uint16_t value) { rte_mbuf_refcnt_set(m, value); }

uint16_t sys_rte_mbuf_refcnt_update(struct rte_mbuf *m, int16_t value) { return rte_mbuf_refcnt_update(m, value); }

void sys_rte_mbuf_view_get(const struct rte_mbuf *m, struct rte_mbuf_view *view)
{
	view->buf_addr = m->buf_addr;
	view->ol_flags = m->ol_flags;
	view->mark = m->hash.fdir.hi;
	view->pkt_len = m->pkt_len;
	view->buf_len = m->buf_len;
	view->data_off = m->data_off;
	view->data_len = m->data_len;
	view->nb_segs = m->nb_segs;
	view->vlan_tci = m->vlan_tci;
	view->shared = rte_mbuf_refcnt_read(m) > 1 || RTE_MBUF_CLONED(m);
	view->meta = 0;
	view->told = 0;
	if (m->ol_flags & (rte_flow_dynf_metadata_mask | RTE_MBUF_F_RX_SEC_OFFLOAD)) {
		/* The functions that read these fields take no const, and change nothing. */
		struct rte_mbuf *noted = (struct rte_mbuf *)(uintptr_t)m;

		if (m->ol_flags & rte_flow_dynf_metadata_mask)
			view->meta = rte_flow_dynf_metadata_get(noted);
		if ((m->ol_flags & RTE_MBUF_F_RX_SEC_OFFLOAD) && rte_security_dynfield_is_registered())
			view->told = (uint32_t)*rte_security_dynfield(noted);
	}
}

void sys_rte_mbuf_view_set(struct rte_mbuf *m, uint16_t data_off, uint16_t data_len)
{
	m->data_off = data_off;
	m->data_len = data_len;
	m->pkt_len = data_len;
	m->nb_segs = 1;
	m->next = NULL;
	/* Who owns the memory stays true. */
	m->ol_flags &= RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT;
	m->tx_offload = 0;
}

void sys_rte_mbuf_mark_set(struct rte_mbuf *m, uint32_t mark) { m->hash.fdir.hi = mark; }

void sys_rte_mbuf_vlan_tci_set(struct rte_mbuf *m, uint16_t tci) { m->vlan_tci = tci; }

int sys_rte_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail) { return rte_pktmbuf_chain(head, tail); }

unsigned int sys_rte_ring_enqueue_burst(struct rte_ring *r, void *const *objs, unsigned int n, unsigned int *free_space)
{
	return rte_ring_enqueue_burst(r, objs, n, free_space);
}

unsigned int sys_rte_ring_dequeue_burst(struct rte_ring *r, void **objs, unsigned int n, unsigned int *available)
{
	return rte_ring_dequeue_burst(r, objs, n, available);
}

unsigned int sys_rte_ring_count(const struct rte_ring *r) { return rte_ring_count(r); }

uint32_t sys_rte_flow_dynf_metadata_get(struct rte_mbuf *m) { return rte_flow_dynf_metadata_get(m); }

void sys_rte_flow_dynf_metadata_set(struct rte_mbuf *m, uint32_t value) { rte_flow_dynf_metadata_set(m, value); }

int sys_rte_flow_dynf_metadata_avail(void) { return rte_flow_dynf_metadata_avail(); }

int sys_rte_flow_item_eth_has_vlan(const struct rte_flow_item_eth *item) { return item->has_vlan; }

int sys_rte_flow_item_vlan_has_more(const struct rte_flow_item_vlan *item) { return item->has_more_vlan; }

int sys_rte_security_set_pkt_metadata(void *ctx, void *session, struct rte_mbuf *m, void *params)
{
	return rte_security_set_pkt_metadata(ctx, session, m, params);
}

int sys_rte_mbuf_tx_security(struct rte_mbuf *m, void *ctx, void *session, uint16_t l2_len, uint16_t l3_len, uint64_t ip)
{
	m->l2_len = l2_len;
	m->l3_len = l3_len;
	m->ol_flags |= RTE_MBUF_F_TX_SEC_OFFLOAD | ip;
	return rte_security_set_pkt_metadata(ctx, session, m, NULL);
}

int sys_rte_security_dynfield_is_registered(void) { return rte_security_dynfield_is_registered(); }

uint64_t sys_rte_security_dynfield_get(struct rte_mbuf *m) { return *rte_security_dynfield(m); }

void sys_rte_flow_table_specialize(struct rte_flow_template_table_attr *attr, int wire)
{
#ifdef RTE_FLOW_TABLE_SPECIALIZE_TRANSFER_WIRE_ORIG
	attr->specialize |= wire ? RTE_FLOW_TABLE_SPECIALIZE_TRANSFER_WIRE_ORIG : RTE_FLOW_TABLE_SPECIALIZE_TRANSFER_VPORT_ORIG;
#else
	(void)attr;
	(void)wire;
#endif
}
