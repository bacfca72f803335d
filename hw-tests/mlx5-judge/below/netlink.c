/* Netlink of RDMA and ROUTE, answered to the mlx5 driver alone: its sockets are pairs of ours. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <net/if.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <rdma/rdma_netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "judge.h"
#include "next.h"

enum { MAX_FD = 4096 };

struct link_socket {
	int peer;	/* what is written there is what the caller receives */
	int protocol;
	bool ours;
};
static struct link_socket links[MAX_FD];

static bool caller_is_mlx5(const void *address)
{
	Dl_info info;

	return dladdr(address, &info) && info.dli_fname && strstr(info.dli_fname, "librte_") && strstr(info.dli_fname, "mlx5");
}

int socket(int domain, int type, int protocol)
{
	int pair[2];

	if (domain != AF_NETLINK || !caller_is_mlx5(__builtin_return_address(0)))
		return NEXT(socket)(domain, type, protocol);
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | (type & SOCK_NONBLOCK), 0, pair))
		return -1;
	if (pair[0] >= MAX_FD) {
		close(pair[0]);
		close(pair[1]);
		errno = EMFILE;
		return -1;
	}
	links[pair[0]] = (struct link_socket){ pair[1], protocol, true };
	return pair[0];
}

static bool is_link(int fd)
{
	return fd >= 0 && fd < MAX_FD && links[fd].ours;
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	return is_link(fd) ? 0 : NEXT(bind)(fd, address, length);
}

int close(int fd)
{
	if (is_link(fd)) {
		links[fd].ours = false;
		NEXT(close)(links[fd].peer);
	}
	return NEXT(close)(fd);
}

struct reply {
	uint8_t octets[1024];
	size_t length;
};

static struct nlmsghdr *begin(struct reply *reply, const struct nlmsghdr *request, int type, int flags, const void *head, size_t n)
{
	struct nlmsghdr *header = (void *)reply->octets;

	memset(reply, 0, sizeof(*reply));
	*header = (struct nlmsghdr){ .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = request->nlmsg_seq };
	memcpy(NLMSG_DATA(header), head, n);
	reply->length = NLMSG_SPACE(n);
	return header;
}

static void add(struct reply *reply, int type, const void *value, size_t n)
{
	struct nlattr *attribute = (void *)(reply->octets + reply->length);

	attribute->nla_type = type;
	attribute->nla_len = NLA_HDRLEN + n;
	memcpy((uint8_t *)attribute + NLA_HDRLEN, value, n);
	reply->length += NLA_ALIGN(attribute->nla_len);
}

static void add_u32(struct reply *reply, int type, uint32_t value)
{
	add(reply, type, &value, sizeof(value));
}

static void answer(int peer, struct reply *reply)
{
	((struct nlmsghdr *)reply->octets)->nlmsg_len = reply->length;
	(void)!write(peer, reply->octets, reply->length);
}

static void answer_error(int peer, const struct nlmsghdr *request, int error)
{
	struct nlmsgerr body = { .error = error, .msg = *request };
	struct reply reply;

	begin(&reply, request, NLMSG_ERROR, 0, &body, sizeof(body));
	answer(peer, &reply);
}

static void answer_done(int peer, const struct nlmsghdr *request)
{
	int zero = 0;
	struct reply reply;

	begin(&reply, request, NLMSG_DONE, NLM_F_MULTI, &zero, sizeof(zero));
	answer(peer, &reply);
}

static void answer_rdma(int peer, const struct nlmsghdr *request)
{
	int command = request->nlmsg_type & 0xff;
	char name[16];
	struct reply reply;

	if (command == RDMA_NLDEV_CMD_GET) {
		for (int pf = 0; pf < judge.pfs; pf++) {
			snprintf(name, sizeof(name), "mlx5_%d", pf);
			begin(&reply, request, request->nlmsg_type, NLM_F_MULTI, "", 0);
			add_u32(&reply, RDMA_NLDEV_ATTR_DEV_INDEX, pf);
			add(&reply, RDMA_NLDEV_ATTR_DEV_NAME, name, strlen(name) + 1);
			add_u32(&reply, RDMA_NLDEV_ATTR_PORT_INDEX, 1 + judge.vfs);
			answer(peer, &reply);
		}
		answer_done(peer, request);
	} else if (command == RDMA_NLDEV_CMD_PORT_GET) {
		uint32_t pf = 0, port = 1;
		uint8_t active = IBV_PORT_ACTIVE;
		const uint8_t *at = NLMSG_DATA(request), *end = (const uint8_t *)request + request->nlmsg_len;

		while (at + NLA_HDRLEN <= end) {
			const struct nlattr *attribute = (const void *)at;

			if (attribute->nla_len < NLA_HDRLEN)
				break;
			if (attribute->nla_type == RDMA_NLDEV_ATTR_DEV_INDEX)
				memcpy(&pf, at + NLA_HDRLEN, 4);
			if (attribute->nla_type == RDMA_NLDEV_ATTR_PORT_INDEX)
				memcpy(&port, at + NLA_HDRLEN, 4);
			at += NLA_ALIGN(attribute->nla_len);
		}
		if (pf >= (uint32_t)judge.pfs || port < 1 || port > 1U + judge.vfs) {
			answer_error(peer, request, -EINVAL);
			return;
		}
		snprintf(name, sizeof(name), "mlx5_%u", pf);
		begin(&reply, request, request->nlmsg_type, 0, "", 0);
		add_u32(&reply, RDMA_NLDEV_ATTR_DEV_INDEX, pf);
		add(&reply, RDMA_NLDEV_ATTR_DEV_NAME, name, strlen(name) + 1);
		add_u32(&reply, RDMA_NLDEV_ATTR_PORT_INDEX, port);
		add(&reply, RDMA_NLDEV_ATTR_PORT_STATE, &active, 1);
		add_u32(&reply, RDMA_NLDEV_ATTR_NDEV_INDEX, port == 1 ? pf_ifindex(pf) : rep_ifindex(pf, port - 2));
		answer(peer, &reply);
	} else {
		answer_error(peer, request, -EOPNOTSUPP);
	}
}

static void answer_route(int peer, const struct nlmsghdr *request)
{
	const struct ifinfomsg *asked = NLMSG_DATA(request);
	struct ifinfomsg head = { .ifi_family = AF_UNSPEC };
	struct reply reply;
	char name[IFNAMSIZ];
	int vf, pf;

	if (request->nlmsg_type != RTM_GETLINK) {
		if (request->nlmsg_flags & NLM_F_DUMP)
			answer_done(peer, request);
		else if (request->nlmsg_flags & NLM_F_ACK)
			answer_error(peer, request, 0);
		return;
	}
	pf = which_index(asked->ifi_index, &vf);
	if (pf < 0) {
		answer_error(peer, request, -ENODEV);
		return;
	}
	head.ifi_index = asked->ifi_index;
	head.ifi_flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
	begin(&reply, request, RTM_NEWLINK, 0, &head, sizeof(head));
	name_of(pf, vf, name);
	add(&reply, IFLA_IFNAME, name, strlen(name) + 1);
	add_u32(&reply, IFLA_MIN_MTU, 68);
	add_u32(&reply, IFLA_MAX_MTU, 9978);
	if (judge.vfs) {
		uint8_t switch_id[] = { 0x0c, 0x42, 0xa1, 0, 0, 0, 0, pf };

		if (vf < 0) {
			snprintf(name, sizeof(name), "p%u", pf & 7U);
			add_u32(&reply, IFLA_NUM_VF, judge.vfs);
		} else {
			snprintf(name, sizeof(name), "pf%uvf%u", pf & 7U, vf & 15U);
		}
		add(&reply, IFLA_PHYS_PORT_NAME, name, strlen(name) + 1);
		add(&reply, IFLA_PHYS_SWITCH_ID, switch_id, sizeof(switch_id));
	}
	answer(peer, &reply);
	if (request->nlmsg_flags & NLM_F_ACK)
		answer_error(peer, request, 0);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	uint8_t octets[4096];
	size_t length = 0;
	const struct nlmsghdr *request = (void *)octets;

	if (!is_link(fd))
		return NEXT(sendmsg)(fd, message, flags);
	for (size_t i = 0; i < message->msg_iovlen; i++) {
		if (length + message->msg_iov[i].iov_len > sizeof(octets)) {
			errno = EMSGSIZE;
			return -1;
		}
		memcpy(octets + length, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
		length += message->msg_iov[i].iov_len;
	}
	if (links[fd].protocol == NETLINK_RDMA)
		answer_rdma(links[fd].peer, request);
	else if (links[fd].protocol == NETLINK_ROUTE)
		answer_route(links[fd].peer, request);
	else
		answer_error(links[fd].peer, request, -ENOENT);
	return length;
}
