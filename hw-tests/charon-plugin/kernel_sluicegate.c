/*
 * Plugin of strongSwan's charon: the SAs that IKE negotiates become those of a Sluicegate node, over the node's IKE socket.
 * A program of its own beside the node; docs/decisions/027-charon-talks-to-the-node.md describes what is said on the socket.
 *
 * This program is free software; you can redistribute it and/or modify it under the terms of the GNU General Public License as
 * published by the Free Software Foundation; either version 2 of the License, or (at your option) any later version.
 * It comes without any warranty.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <library.h>
#include <daemon.h>
#include <collections/linked_list.h>
#include <kernel/kernel_ipsec.h>
#include <processing/jobs/callback_job.h>
#include <threading/mutex.h>
#include <threading/thread.h>

#define DEFAULT_SOCKET "/run/sluicegate/ike.sock"
#define MAX_LINE 1024
/* Seconds that an answer may take. */
#define ANSWER_SECS 5

typedef struct private_plugin_t private_plugin_t;
typedef struct private_ipsec_t private_ipsec_t;
typedef struct known_sa_t known_sa_t;

struct private_plugin_t {
	plugin_t public;
};

/* An inbound SA that the node has, to be asked about after a connection was lost. */
struct known_sa_t {
	uint32_t spi;
	host_t *dst;
};

struct private_ipsec_t {
	kernel_ipsec_t public;
	const char *path;
	/* Listens for events. */
	thread_t *listener;
	volatile bool ended;
	/* Drawn anew by each charon. */
	uint64_t charon;
	/* Questions, one at a time; -1: not connected. */
	int fd;
	mutex_t *mutex;
	linked_list_t *known;
};

/* An IPv4 address as text; "-", which the node refuses, for others. */
static char *address(host_t *host, char text[INET_ADDRSTRLEN])
{
	chunk_t octets = host->get_address(host);

	if (octets.len != 4 || !inet_ntop(AF_INET, octets.ptr, text, INET_ADDRSTRLEN))
	{
		strcpy(text, "-");
	}
	return text;
}

/* A connection that has said hello, or -1. */
static int connect_node(private_ipsec_t *this, bool events);

static bool send_all(int fd, const char *text, size_t len)
{
	while (len)
	{
		ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
		{
			continue;
		}
		if (sent <= 0)
		{
			return FALSE;
		}
		text += sent;
		len -= sent;
	}
	return TRUE;
}

/* Reads a line without its end. Octet by octet: lines are short and rare, and nothing behind the line is taken. */
static bool read_line(int fd, char *line, size_t size)
{
	size_t len = 0;

	while (len < size)
	{
		ssize_t got = recv(fd, line + len, 1, 0);
		if (got < 0 && errno == EINTR)
		{
			continue;
		}
		if (got <= 0)
		{
			return FALSE;
		}
		if (line[len] == '\n')
		{
			line[len] = '\0';
			return TRUE;
		}
		len++;
	}
	return FALSE;
}

static bool ask_on(int fd, const char *question, size_t len, char *answer)
{
	return send_all(fd, question, len) && read_line(fd, answer, MAX_LINE);
}

/* Asks the node; once more over a new connection when the old one is gone. */
static bool ask(private_ipsec_t *this, const char *question, char *answer)
{
	size_t len = strlen(question);
	bool answered = FALSE;
	int attempt;

	this->mutex->lock(this->mutex);
	for (attempt = 0; attempt < 2 && !answered; attempt++)
	{
		if (this->fd < 0)
		{
			this->fd = connect_node(this, FALSE);
			if (this->fd < 0)
			{
				break;
			}
		}
		answered = ask_on(this->fd, question, len, answer);
		if (!answered)
		{
			close(this->fd);
			this->fd = -1;
		}
	}
	this->mutex->unlock(this->mutex);
	if (!answered)
	{
		DBG1(DBG_KNL, "the node does not answer on %s", this->path);
		return FALSE;
	}
	if (!strpfx(answer, "ok"))
	{
		DBG1(DBG_KNL, "the node says: %s", answer);
		return FALSE;
	}
	return TRUE;
}

static int connect_node(private_ipsec_t *this, bool events)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { .tv_sec = ANSWER_SECS };
	char line[MAX_LINE];
	int fd, len;

	if (strlen(this->path) >= sizeof(addr.sun_path))
	{
		return -1;
	}
	strcpy(addr.sun_path, this->path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
	{
		return -1;
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	len = snprintf(line, sizeof(line), "hello version=1 charon=%016" PRIx64 " events=%d\n", this->charon, events);
	if (connect(fd, (struct sockaddr*)&addr, sizeof(addr)) != 0 || !ask_on(fd, line, len, line) || !strpfx(line, "ok"))
	{
		close(fd);
		return -1;
	}
	return fd;
}

/* The value of name= in a line. */
static char *word(char *line, const char *name, char *value, size_t size)
{
	char *at = line;
	size_t len = strlen(name);

	while ((at = strchr(at, ' ')))
	{
		at++;
		if (strneq(at, name, len) && at[len] == '=')
		{
			snprintf(value, size, "%.*s", (int)strcspn(at + len + 1, " "), at + len + 1);
			return value;
		}
	}
	return NULL;
}

static void know(private_ipsec_t *this, uint32_t spi, host_t *dst)
{
	known_sa_t *sa;

	INIT(sa, .spi = spi, .dst = dst->clone(dst));
	this->mutex->lock(this->mutex);
	this->known->insert_last(this->known, sa);
	this->mutex->unlock(this->mutex);
}

static void known_sa_destroy(known_sa_t *sa)
{
	sa->dst->destroy(sa->dst);
	free(sa);
}

static void forget(private_ipsec_t *this, uint32_t spi, host_t *dst)
{
	enumerator_t *enumerator;
	known_sa_t *sa;

	this->mutex->lock(this->mutex);
	enumerator = this->known->create_enumerator(this->known);
	while (enumerator->enumerate(enumerator, &sa))
	{
		if (sa->spi == spi && sa->dst->ip_equals(sa->dst, dst))
		{
			this->known->remove_at(this->known, enumerator);
			known_sa_destroy(sa);
		}
	}
	enumerator->destroy(enumerator);
	this->mutex->unlock(this->mutex);
}

static void expire(uint32_t spi, host_t *dst, bool hard)
{
	charon->kernel->expire(charon->kernel, IPPROTO_ESP, spi, dst, hard);
}

/* After a new connection: an SA that the node does not have any more, it was started again, is negotiated anew. */
static void look_after(private_ipsec_t *this)
{
	linked_list_t *all = linked_list_create();
	enumerator_t *enumerator;
	known_sa_t *sa, *copy;
	char line[MAX_LINE], answer[MAX_LINE] = "", dst[INET_ADDRSTRLEN], state[16] = "good";

	this->mutex->lock(this->mutex);
	enumerator = this->known->create_enumerator(this->known);
	while (enumerator->enumerate(enumerator, &sa))
	{
		INIT(copy, .spi = sa->spi, .dst = sa->dst->clone(sa->dst));
		all->insert_last(all, copy);
	}
	enumerator->destroy(enumerator);
	this->mutex->unlock(this->mutex);

	while (all->remove_first(all, (void**)&sa) == SUCCESS)
	{
		snprintf(line, sizeof(line), "query-sa spi=%08x dst=%s\n", ntohl(sa->spi), address(sa->dst, dst));
		if (ask(this, line, answer))
		{
			word(answer, "state", state, sizeof(state));
			if (streq(state, "soft"))
			{
				expire(sa->spi, sa->dst, FALSE);
			}
			else if (!streq(state, "good"))
			{
				expire(sa->spi, sa->dst, TRUE);
			}
		}
		else if (strpfx(answer, "error unknown-sa"))
		{
			DBG1(DBG_KNL, "the node has lost SA %.8x, negotiating anew", ntohl(sa->spi));
			expire(sa->spi, sa->dst, FALSE);
		}
		known_sa_destroy(sa);
	}
	all->destroy(all);
}

/* Tells charon what the node tells, for as long as charon runs. */
static void *listen_to_node(private_ipsec_t *this)
{
	char line[MAX_LINE], spi[16], dst[64], hard[4];
	int fd = -1, lives = 0;
	host_t *host;

	while (!this->ended)
	{
		struct pollfd wanted;

		if (fd < 0)
		{
			fd = connect_node(this, TRUE);
			if (fd >= 0)
			{
				if (lives++)
				{
					DBG1(DBG_KNL, "connected to the node again");
				}
				look_after(this);
			}
		}
		wanted = (struct pollfd){ .fd = fd, .events = POLLIN };
		/* Not connected: only a pause. */
		if (poll(&wanted, fd < 0 ? 0 : 1, 250) <= 0)
		{
			continue;
		}
		if (!read_line(fd, line, sizeof(line)))
		{
			close(fd);
			fd = -1;
			continue;
		}
		if (strpfx(line, "event expire ") && word(line, "spi", spi, sizeof(spi)) && word(line, "dst", dst, sizeof(dst)) &&
			word(line, "hard", hard, sizeof(hard)))
		{
			host = host_create_from_string(dst, 0);
			if (host)
			{
				expire(htonl(strtoul(spi, NULL, 16)), host, streq(hard, "1"));
				host->destroy(host);
			}
		}
	}
	if (fd >= 0)
	{
		close(fd);
	}
	return NULL;
}

METHOD(kernel_ipsec_t, get_features, kernel_feature_t, private_ipsec_t *this)
{
	/* Without KERNEL_POLICY_SPI charon adds the outbound SA of a rekeying when it is time to send with it. */
	return 0;
}

METHOD(kernel_ipsec_t, get_spi, status_t, private_ipsec_t *this, host_t *src, host_t *dst, uint8_t protocol, uint32_t *spi)
{
	char line[MAX_LINE], answer[MAX_LINE], value[16], from[INET_ADDRSTRLEN], to[INET_ADDRSTRLEN];

	snprintf(line, sizeof(line), "get-spi src=%s dst=%s\n", address(src, from), address(dst, to));
	if (protocol != IPPROTO_ESP || !ask(this, line, answer) || !word(answer, "spi", value, sizeof(value)))
	{
		return FAILED;
	}
	*spi = htonl(strtoul(value, NULL, 16));
	return SUCCESS;
}

METHOD(kernel_ipsec_t, get_cpi, status_t, private_ipsec_t *this, host_t *src, host_t *dst, uint16_t *cpi)
{
	return NOT_SUPPORTED;
}

/* The node routes into tunnels and enforces no selectors: there is nothing that it could keep out. */
static bool any_address(linked_list_t *list)
{
	enumerator_t *enumerator = list->create_enumerator(list);
	traffic_selector_t *ts;
	host_t *net = NULL;
	uint8_t mask = 255;
	bool any = FALSE;

	while (!any && enumerator->enumerate(enumerator, &ts))
	{
		any = ts->get_protocol(ts) == 0 && ts->get_from_port(ts) == 0 && ts->get_to_port(ts) == 65535 &&
			ts->get_type(ts) == TS_IPV4_ADDR_RANGE && ts->to_subnet(ts, &net, &mask) && mask == 0;
		DESTROY_IF(net);
		net = NULL;
	}
	enumerator->destroy(enumerator);
	return any;
}

static const char *refusal(kernel_ipsec_sa_id_t *id, kernel_ipsec_add_sa_t *data)
{
	if (id->proto != IPPROTO_ESP || data->mode != MODE_TUNNEL)
	{
		return "only ESP in tunnel mode: set mode = tunnel";
	}
	if (data->enc_alg != ENCR_AES_GCM_ICV16 || (data->enc_key.len != 20 && data->enc_key.len != 36))
	{
		return "only AES-GCM with 128 or 256 bits: set esp_proposals = aes256gcm16-esn, or aes128gcm16-esn";
	}
	if (data->ipcomp != IPCOMP_NONE || data->tfc)
	{
		return "neither compression nor padding of traffic: leave ipcomp and tfc_padding out";
	}
	if (id->mark.value || id->mark.mask)
	{
		return "no marks: name the tunnel with if_id_in and if_id_out";
	}
	if (!any_address(data->src_ts) || !any_address(data->dst_ts))
	{
		return "only route based: set local_ts = 0.0.0.0/0 and remote_ts = 0.0.0.0/0 at both ends";
	}
	return NULL;
}

METHOD(kernel_ipsec_t, add_sa, status_t, private_ipsec_t *this, kernel_ipsec_sa_id_t *id, kernel_ipsec_add_sa_t *data)
{
	char line[MAX_LINE], answer[MAX_LINE], src[INET_ADDRSTRLEN], dst[INET_ADDRSTRLEN], key[2 * 36 + 1] = "";
	lifetime_cfg_t *life = data->lifetime;
	const char *wrong = refusal(id, data);
	bool added;
	size_t i;

	if (wrong)
	{
		DBG1(DBG_KNL, "SA %.8x refused: %s", ntohl(id->spi), wrong);
		return NOT_SUPPORTED;
	}
	for (i = 0; i < data->enc_key.len; i++)
	{
		snprintf(key + 2 * i, 3, "%02x", data->enc_key.ptr[i]);
	}
	snprintf(line, sizeof(line),
			 "add-sa dir=%s src=%s dst=%s spi=%08x key=%s esn=%d window=%u encap=%d sport=%u dport=%u if_id=%u reqid=%u "
			 "soft_seconds=%" PRIu64 " hard_seconds=%" PRIu64 " soft_bytes=%" PRIu64 " hard_bytes=%" PRIu64
			 " soft_packets=%" PRIu64 " hard_packets=%" PRIu64 "\n",
			 data->inbound ? "in" : "out", address(id->src, src), address(id->dst, dst), ntohl(id->spi), key, data->esn,
			 data->replay_window, data->encap, id->src->get_port(id->src), id->dst->get_port(id->dst), id->if_id,
			 data->reqid, life->time.rekey, life->time.life, life->bytes.rekey, life->bytes.life, life->packets.rekey,
			 life->packets.life);
	memwipe(key, sizeof(key));
	added = ask(this, line, answer);
	memwipe(line, sizeof(line));
	if (!added)
	{
		return FAILED;
	}
	if (data->inbound)
	{
		know(this, id->spi, id->dst);
	}
	return SUCCESS;
}

METHOD(kernel_ipsec_t, update_sa, status_t, private_ipsec_t *this, kernel_ipsec_sa_id_t *id, kernel_ipsec_update_sa_t *data)
{
	char line[MAX_LINE], answer[MAX_LINE], dst[INET_ADDRSTRLEN], new_src[INET_ADDRSTRLEN], new_dst[INET_ADDRSTRLEN];

	snprintf(line, sizeof(line), "update-sa spi=%08x dst=%s new_src=%s new_dst=%s encap=%d sport=%u dport=%u\n",
			 ntohl(id->spi), address(id->dst, dst), address(data->new_src, new_src), address(data->new_dst, new_dst),
			 data->new_encap, data->new_src->get_port(data->new_src), data->new_dst->get_port(data->new_dst));
	/* What cannot be moved, charon negotiates anew. */
	return ask(this, line, answer) ? SUCCESS : NOT_SUPPORTED;
}

METHOD(kernel_ipsec_t, query_sa, status_t, private_ipsec_t *this, kernel_ipsec_sa_id_t *id, kernel_ipsec_query_sa_t *data,
	   uint64_t *bytes, uint64_t *packets, time_t *used)
{
	char line[MAX_LINE], answer[MAX_LINE], dst[INET_ADDRSTRLEN], value[32];

	snprintf(line, sizeof(line), "query-sa spi=%08x dst=%s\n", ntohl(id->spi), address(id->dst, dst));
	if (!ask(this, line, answer))
	{
		return FAILED;
	}
	if (bytes)
	{
		*bytes = word(answer, "bytes", value, sizeof(value)) ? strtoull(value, NULL, 10) : 0;
	}
	if (packets)
	{
		*packets = word(answer, "packets", value, sizeof(value)) ? strtoull(value, NULL, 10) : 0;
	}
	if (used)
	{
		*used = word(answer, "idle", value, sizeof(value)) && !streq(value, "never")
			? time_monotonic(NULL) - (time_t)strtoull(value, NULL, 10) : 0;
	}
	return SUCCESS;
}

METHOD(kernel_ipsec_t, del_sa, status_t, private_ipsec_t *this, kernel_ipsec_sa_id_t *id, kernel_ipsec_del_sa_t *data)
{
	char line[MAX_LINE], answer[MAX_LINE] = "", dst[INET_ADDRSTRLEN];

	forget(this, id->spi, id->dst);
	snprintf(line, sizeof(line), "del-sa spi=%08x dst=%s\n", ntohl(id->spi), address(id->dst, dst));
	/* What is not there is deleted. */
	return ask(this, line, answer) || strpfx(answer, "error unknown-sa") ? SUCCESS : FAILED;
}

METHOD(kernel_ipsec_t, flush_sas, status_t, private_ipsec_t *this)
{
	char answer[MAX_LINE];

	return ask(this, "flush\n", answer) ? SUCCESS : FAILED;
}

METHOD(kernel_ipsec_t, manage_policy, status_t, private_ipsec_t *this, kernel_ipsec_policy_id_t *id,
	   kernel_ipsec_manage_policy_t *data)
{
	/* Routes of the node say what goes into a tunnel. */
	return SUCCESS;
}

METHOD(kernel_ipsec_t, query_policy, status_t, private_ipsec_t *this, kernel_ipsec_policy_id_t *id,
	   kernel_ipsec_query_policy_t *data, time_t *use_time)
{
	return NOT_SUPPORTED;
}

METHOD(kernel_ipsec_t, flush_policies, status_t, private_ipsec_t *this)
{
	return SUCCESS;
}

METHOD(kernel_ipsec_t, bypass_socket, bool, private_ipsec_t *this, int fd, int family)
{
	/* The kernel protects nothing that charon sends. */
	return TRUE;
}

METHOD(kernel_ipsec_t, enable_udp_decap, bool, private_ipsec_t *this, int fd, int family, uint16_t port)
{
	/* The node opens ESP in UDP; what it punts from port 4500 has the non-ESP marker. */
	return TRUE;
}

METHOD(kernel_ipsec_t, destroy, void, private_ipsec_t *this)
{
	this->ended = TRUE;
	if (this->listener)
	{
		this->listener->join(this->listener);
	}
	if (this->fd >= 0)
	{
		close(this->fd);
	}
	this->known->destroy_function(this->known, (void*)known_sa_destroy);
	this->mutex->destroy(this->mutex);
	free(this);
}

static kernel_ipsec_t *kernel_sluicegate_ipsec_create()
{
	private_ipsec_t *this;

	INIT(this,
		.public = {
			.get_features = _get_features,
			.get_spi = _get_spi,
			.get_cpi = _get_cpi,
			.add_sa = _add_sa,
			.update_sa = _update_sa,
			.query_sa = _query_sa,
			.del_sa = _del_sa,
			.flush_sas = _flush_sas,
			.add_policy = _manage_policy,
			.query_policy = _query_policy,
			.del_policy = _manage_policy,
			.flush_policies = _flush_policies,
			.bypass_socket = _bypass_socket,
			.enable_udp_decap = _enable_udp_decap,
			.destroy = _destroy,
		},
		.path = lib->settings->get_str(lib->settings, "%s.plugins.kernel-sluicegate.socket", DEFAULT_SOCKET, lib->ns),
		.fd = -1,
		.mutex = mutex_create(MUTEX_TYPE_DEFAULT),
		.known = linked_list_create(),
	);
	if (getentropy(&this->charon, sizeof(this->charon)) != 0)
	{
		DBG1(DBG_KNL, "no random number: %s", strerror(errno));
		_destroy(this);
		return NULL;
	}
	/* A node that is not there yet is tried again. */
	this->listener = thread_create((thread_main_t)listen_to_node, this);
	return &this->public;
}

METHOD(plugin_t, get_name, char*, private_plugin_t *this)
{
	return "kernel-sluicegate";
}

METHOD(plugin_t, get_plugin_features, int, private_plugin_t *this, plugin_feature_t *features[])
{
	static plugin_feature_t f[] = {
		PLUGIN_CALLBACK(kernel_ipsec_register, kernel_sluicegate_ipsec_create),
			PLUGIN_PROVIDE(CUSTOM, "kernel-ipsec"),
	};
	*features = f;
	return countof(f);
}

METHOD(plugin_t, plugin_destroy, void, private_plugin_t *this)
{
	free(this);
}

/* charon finds it by its name. */
plugin_t *kernel_sluicegate_plugin_create(void);

plugin_t *kernel_sluicegate_plugin_create(void)
{
	private_plugin_t *this;

	INIT(this,
		.public = {
			.get_name = _get_name,
			.get_features = _get_plugin_features,
			.destroy = _plugin_destroy,
		},
	);
	return &this->public;
}
