#include "wrapper.h"

#include <rte_errno.h>
#include <rte_log.h>
#include <rte_version.h>
#include <stdio.h>
#include <string.h>

int twin_errno(void)
{
	return rte_errno;
}

struct rte_eth_dev *twin_ethdev_allocate(struct rte_vdev_device *vdev)
{
	return rte_eth_vdev_allocate(vdev, 0);
}

const char *twin_vdev_name(const struct rte_vdev_device *vdev)
{
	return rte_vdev_device_name(vdev);
}

const char *twin_vdev_args(const struct rte_vdev_device *vdev)
{
	return rte_vdev_device_args(vdev);
}

uint16_t twin_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_rx_burst(port, queue, packets, count);
}

uint16_t twin_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, packets, count);
}

void twin_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

uint8_t *twin_mbuf_data(struct rte_mbuf *packet, uint32_t *length)
{
	if (rte_pktmbuf_linearize(packet) != 0)
		return NULL;
	*length = rte_pktmbuf_data_len(packet);
	return rte_pktmbuf_mtod(packet, uint8_t *);
}

/* Octets that fit a segment from an offset that leaves the usual headroom, or from its start if need be. */
static int put(struct rte_mbuf *packet, const uint8_t *frame, uint32_t length)
{
	uint32_t offset = RTE_MIN((uint32_t)RTE_PKTMBUF_HEADROOM, (uint32_t)packet->buf_len);

	if (length > packet->buf_len)
		return -1;
	if (offset + length > packet->buf_len)
		offset = packet->buf_len - length;
	packet->data_off = (uint16_t)offset;
	packet->data_len = (uint16_t)length;
	packet->pkt_len = length;
	memcpy(rte_pktmbuf_mtod(packet, void *), frame, length);
	return 0;
}

int twin_mbuf_replace(struct rte_mbuf *packet, const uint8_t *frame, uint32_t length)
{
	if (!RTE_MBUF_DIRECT(packet) || rte_mbuf_refcnt_read(packet) != 1 || packet->nb_segs != 1)
		return -1;
	/* What the host or the lower port knew about the old headers is no longer so. */
	packet->packet_type = 0;
	packet->tx_offload = 0;
	return put(packet, frame, length);
}

struct rte_mbuf *twin_mbuf_like(struct rte_mbuf *packet, const uint8_t *frame, uint32_t length)
{
	struct rte_mbuf *other = rte_pktmbuf_alloc(packet->pool);

	if (other == NULL)
		return NULL;
	if (put(other, frame, length) != 0) {
		rte_pktmbuf_free(other);
		return NULL;
	}
	other->port = packet->port;
	return other;
}

uint32_t twin_mbuf_length(const struct rte_mbuf *packet)
{
	return rte_pktmbuf_pkt_len(packet);
}

void twin_mbuf_received(struct rte_mbuf *packet, uint16_t port)
{
	packet->port = port;
	packet->ol_flags &= ~(RTE_MBUF_F_RX_FDIR | RTE_MBUF_F_RX_FDIR_ID | RTE_MBUF_F_RX_RSS_HASH |
		RTE_MBUF_F_RX_SEC_OFFLOAD | RTE_MBUF_F_RX_SEC_OFFLOAD_FAILED | RTE_MBUF_F_TX_SEC_OFFLOAD);
	if (rte_flow_dynf_metadata_avail())
		packet->ol_flags &= ~rte_flow_dynf_metadata_mask;
}

void twin_mbuf_hash(struct rte_mbuf *packet, uint32_t hash)
{
	packet->hash.rss = hash;
	packet->ol_flags |= RTE_MBUF_F_RX_RSS_HASH;
}

void twin_mbuf_flag(struct rte_mbuf *packet)
{
	packet->ol_flags |= RTE_MBUF_F_RX_FDIR;
}

void twin_mbuf_mark(struct rte_mbuf *packet, uint32_t id)
{
	packet->hash.fdir.hi = id;
	packet->ol_flags |= RTE_MBUF_F_RX_FDIR | RTE_MBUF_F_RX_FDIR_ID;
}

void twin_mbuf_meta(struct rte_mbuf *packet, uint32_t value)
{
	if (!rte_flow_dynf_metadata_avail())
		return;
	rte_flow_dynf_metadata_set(packet, value);
	packet->ol_flags |= rte_flow_dynf_metadata_mask;
}

int twin_mbuf_get_meta(const struct rte_mbuf *packet, uint32_t *value)
{
	if (!rte_flow_dynf_metadata_avail() || !(packet->ol_flags & rte_flow_dynf_metadata_mask))
		return 0;
	*value = rte_flow_dynf_metadata_get((struct rte_mbuf *)(uintptr_t)packet);
	return 1;
}

void twin_modify_resolve(struct rte_flow_action_modify_field *conf)
{
	uint8_t value[16] = {0};
	size_t octets = (conf->dst.offset % 128 + conf->width % 129 + 7) / 8;

	if (conf->src.field != RTE_FLOW_FIELD_POINTER || conf->src.pvalue == NULL)
		return;
	memcpy(value, conf->src.pvalue, RTE_MIN(octets, sizeof(value)));
	memcpy(conf->src.value, value, sizeof(value));
	conf->src.field = RTE_FLOW_FIELD_VALUE;
}

void twin_modify_read(const struct rte_flow_action_modify_field *conf, struct twin_modify *out)
{
	struct rte_flow_action_modify_field resolved = *conf;

	twin_modify_resolve(&resolved);
	memset(out, 0, sizeof(*out));
	out->operation = resolved.operation;
	out->field = resolved.dst.field;
	out->level = resolved.dst.level;
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
	out->tag = resolved.dst.tag_index;
#else
	out->tag = resolved.dst.level;
#endif
	out->offset = resolved.dst.offset;
	out->width = resolved.width;
	out->source = resolved.src.field;
	memcpy(out->value, resolved.src.value, sizeof(out->value));
}

void twin_write(FILE *stream, const char *text)
{
	fputs(text, stream);
}

void twin_log(uint32_t level, const char *text)
{
	rte_log(level, RTE_LOGTYPE_USER1, "net_twin: %s\n", text);
}
