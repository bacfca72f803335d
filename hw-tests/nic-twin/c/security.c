#include "wrapper.h"

#include <errno.h>
#include <rte_cryptodev.h>
#include <rte_version.h>
#include <string.h>

void twin_mbuf_secured(struct rte_mbuf *packet, const uint64_t *userdata, int refused)
{
	packet->ol_flags |= RTE_MBUF_F_RX_SEC_OFFLOAD;
	if (refused)
		packet->ol_flags |= RTE_MBUF_F_RX_SEC_OFFLOAD_FAILED;
	if (rte_security_dynfield_is_registered())
		*rte_security_dynfield(packet) = userdata != NULL ? (rte_security_dynfield_t)*userdata : 0;
}

int twin_mbuf_tx_session(const struct rte_mbuf *packet, uint64_t *session, uint32_t *link)
{
	if (!(packet->ol_flags & RTE_MBUF_F_TX_SEC_OFFLOAD))
		return 0;
	*link = packet->l2_len;
	*session = rte_security_dynfield_is_registered() ?
		(uint64_t)*rte_security_dynfield((struct rte_mbuf *)(uintptr_t)packet) : 0;
	return 1;
}

void twin_mbuf_set_session(struct rte_mbuf *packet, uint64_t session)
{
	*rte_security_dynfield(packet) = (rte_security_dynfield_t)session;
}

/* Does this NIC do all that is asked for? What would be left undone in silence is refused. */
static int is_done(const struct rte_security_ipsec_sa_options *asked, int protocol)
{
	if (asked->dec_ttl || asked->copy_flabel || asked->tunnel_hdr_verify ||
			asked->udp_ports_verify || asked->ip_csum_enable || asked->l4_csum_enable ||
			asked->ip_reassembly_en)
		return 0;
	/* With inline crypto the headers are the application's. */
	return protocol || !(asked->iv_gen_disable || asked->esn || asked->ecn || asked->copy_dscp || asked->copy_df);
}

int twin_session_read(const struct rte_security_session_conf *conf, struct twin_session *out)
{
	const struct rte_security_ipsec_xform *ipsec = &conf->ipsec;
	const struct rte_crypto_sym_xform *crypto = conf->crypto_xform;

	memset(out, 0, sizeof(*out));
	switch (conf->action_type) {
	case RTE_SECURITY_ACTION_TYPE_INLINE_CRYPTO:
		break;
	case RTE_SECURITY_ACTION_TYPE_INLINE_PROTOCOL:
		out->protocol = 1;
		break;
	default:
		return -ENOTSUP;
	}
	if (conf->protocol != RTE_SECURITY_PROTOCOL_IPSEC || ipsec->proto != RTE_SECURITY_IPSEC_SA_PROTO_ESP)
		return -ENOTSUP;
	if (ipsec->mode != RTE_SECURITY_IPSEC_SA_MODE_TUNNEL)
		return -ENOTSUP;
	if (!is_done(&ipsec->options, out->protocol))
		return -ENOTSUP;
	if (crypto == NULL)
		return -EINVAL;
	if (crypto->type != RTE_CRYPTO_SYM_XFORM_AEAD || crypto->aead.algo != RTE_CRYPTO_AEAD_AES_GCM ||
			crypto->aead.digest_length != 16)
		return -ENOTSUP;
	out->egress = ipsec->direction == RTE_SECURITY_IPSEC_SA_DIR_EGRESS;
	/* Only what this NIC writes itself has an outer header of its making. */
	out->v6 = out->protocol && out->egress && ipsec->tunnel.type == RTE_SECURITY_IPSEC_TUNNEL_IPV6;
	/* Over IPv6 a datagram needs a checksum (RFC 8200 section 8.1), which this NIC does not make. */
	if (out->v6 && ipsec->options.udp_encap)
		return -ENOTSUP;
	out->key = crypto->aead.key.data;
	out->key_length = crypto->aead.key.length;
	out->spi = ipsec->spi;
	memcpy(out->salt, &ipsec->salt, sizeof(out->salt));
	out->first = ipsec->esn.value;
	out->window = ipsec->replay_win_sz;
	out->packets_soft = ipsec->life.packets_soft_limit;
	out->bytes_soft = ipsec->life.bytes_soft_limit;
	out->packets_hard = ipsec->life.packets_hard_limit;
	out->bytes_hard = ipsec->life.bytes_hard_limit;
	out->userdata = (uint64_t)(uintptr_t)conf->userdata;
	out->esn = ipsec->options.esn;
	out->ecn = ipsec->options.ecn;
	out->copy_dscp = ipsec->options.copy_dscp;
	out->copy_df = ipsec->options.copy_df;
	out->udp = ipsec->options.udp_encap;
	out->iv_given = out->egress && ipsec->options.iv_gen_disable;
	out->udp_source = ipsec->udp.sport != 0 ? ipsec->udp.sport : 4500;
	out->udp_destination = ipsec->udp.dport != 0 ? ipsec->udp.dport : 4500;
	if (out->v6) {
		memcpy(out->source6, &ipsec->tunnel.ipv6.src_addr, sizeof(out->source6));
		memcpy(out->destination6, &ipsec->tunnel.ipv6.dst_addr, sizeof(out->destination6));
		out->label = ipsec->tunnel.ipv6.flabel;
		out->dscp = ipsec->tunnel.ipv6.dscp;
		out->ttl = ipsec->tunnel.ipv6.hlimit != 0 ? ipsec->tunnel.ipv6.hlimit : 64;
		return 0;
	}
	memcpy(out->source, &ipsec->tunnel.ipv4.src_ip, sizeof(out->source));
	memcpy(out->destination, &ipsec->tunnel.ipv4.dst_ip, sizeof(out->destination));
	out->dscp = ipsec->tunnel.ipv4.dscp;
	out->df = ipsec->tunnel.ipv4.df;
	out->ttl = ipsec->tunnel.ipv4.ttl != 0 ? ipsec->tunnel.ipv4.ttl : 64;
	return 0;
}

#define GCM(name, longest, step) \
	static const struct rte_cryptodev_capabilities name[] = { \
		{ .op = RTE_CRYPTO_OP_TYPE_SYMMETRIC, \
		  .sym = { .xform_type = RTE_CRYPTO_SYM_XFORM_AEAD, \
			   .aead = { .algo = RTE_CRYPTO_AEAD_AES_GCM, .block_size = 16, \
				     .key_size = { .min = 16, .max = longest, .increment = step }, \
				     .digest_size = { .min = 16, .max = 16, .increment = 0 }, \
				     .aad_size = { .min = 8, .max = 12, .increment = 4 }, \
				     .iv_size = { .min = 12, .max = 12, .increment = 0 } } } }, \
		RTE_CRYPTODEV_END_OF_CAPABILITIES_LIST() \
	}
GCM(gcm_both, 32, 16);
GCM(gcm_128, 16, 0);

/* One for each kind and way, and the end. */
#define CAPABILITIES 5

const struct rte_security_capability *twin_capabilities(uint32_t kinds, int esn, uint32_t window, uint32_t key)
{
	/* All ports are of one NIC, and the caller holds its lock: written the same way each time. */
	static struct rte_security_capability list[CAPABILITIES];
	struct rte_security_capability made[CAPABILITIES] = {0};
	int count = 0;

	for (uint32_t kind = 1; kind <= 2; kind++) {
		if (!(kinds & kind))
			continue;
		for (int egress = 0; egress <= 1; egress++) {
			struct rte_security_capability *one = &made[count++];

			one->action = kind == 1 ? RTE_SECURITY_ACTION_TYPE_INLINE_CRYPTO :
				RTE_SECURITY_ACTION_TYPE_INLINE_PROTOCOL;
			one->protocol = RTE_SECURITY_PROTOCOL_IPSEC;
			one->ipsec.proto = RTE_SECURITY_IPSEC_SA_PROTO_ESP;
			one->ipsec.mode = RTE_SECURITY_IPSEC_SA_MODE_TUNNEL;
			one->ipsec.direction = egress ? RTE_SECURITY_IPSEC_SA_DIR_EGRESS :
				RTE_SECURITY_IPSEC_SA_DIR_INGRESS;
			/* The half of a number that is not sent is known to inline protocol only. */
			one->ipsec.options.esn = kind == 2 && esn;
			one->ipsec.options.udp_encap = 1;
			if (kind == 2) {
				one->ipsec.options.ecn = 1;
				one->ipsec.options.stats = 1;
				/* Of the other way these say nothing, and are taken there too. */
				one->ipsec.options.iv_gen_disable = 1;
				one->ipsec.options.copy_dscp = 1;
				one->ipsec.options.copy_df = 1;
				one->ipsec.replay_win_sz_max = window;
			}
			one->crypto_capabilities = key > 16 ? gcm_both : gcm_128;
			one->ol_flags = egress ? RTE_SECURITY_TX_OLOAD_NEED_MDATA : 0;
		}
	}
	memcpy(list, made, sizeof(list));
	return list;
}

void twin_stats_write(struct rte_security_stats *stats, int egress, uint64_t packets, uint64_t bytes, uint64_t errors,
	uint64_t replays)
{
	memset(stats, 0, sizeof(*stats));
	stats->protocol = RTE_SECURITY_PROTOCOL_IPSEC;
	if (egress) {
		stats->ipsec.opackets = packets;
		stats->ipsec.obytes = bytes;
		stats->ipsec.oerrors = errors;
	} else {
		stats->ipsec.ipackets = packets;
		stats->ipsec.ibytes = bytes;
		stats->ipsec.ierrors = errors + replays;
	}
}

void twin_expired(uint16_t port, uint64_t userdata, uint32_t which)
{
	static const enum rte_eth_event_ipsec_subtype subtypes[] = {
		RTE_ETH_EVENT_IPSEC_SA_PKT_EXPIRY, RTE_ETH_EVENT_IPSEC_SA_BYTE_EXPIRY,
		RTE_ETH_EVENT_IPSEC_SA_PKT_HARD_EXPIRY, RTE_ETH_EVENT_IPSEC_SA_BYTE_HARD_EXPIRY,
		RTE_ETH_EVENT_IPSEC_ESN_OVERFLOW,
	};
	struct rte_eth_event_ipsec_desc told = { .metadata = userdata };

	if (which >= RTE_DIM(subtypes))
		return;
	told.subtype = subtypes[which];
	rte_eth_dev_callback_process(&rte_eth_devices[port], RTE_ETH_EVENT_IPSEC, &told);
}

extern const struct rte_security_ops twin_security_operations;

void *twin_security_open(void *device)
{
	struct rte_security_ctx *context = rte_zmalloc("net_twin", sizeof(*context), 0);

	if (context == NULL)
		return NULL;
	/* A second registration finds the first. */
	if (rte_security_dynfield_register() < 0) {
		rte_free(context);
		return NULL;
	}
	context->device = device;
	context->ops = &twin_security_operations;
	return context;
}

void twin_security_close(void *context)
{
	rte_free(context);
}
