/* The network devices of the card: names, indices, interface ioctls. Any other device's go on to libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <net/if.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include "judge.h"
#include "next.h"

enum { FIRST_INDEX = 4000, PER_PF = 16 };

int pf_ifindex(int pf)
{
	return FIRST_INDEX + pf * PER_PF;
}

int rep_ifindex(int pf, int vf)
{
	return pf_ifindex(pf) + 1 + vf;
}

int which_index(int index, int *vf)
{
	int pf = (index - FIRST_INDEX) / PER_PF;

	*vf = (index - FIRST_INDEX) % PER_PF - 1;
	return index >= FIRST_INDEX && pf < judge.pfs && *vf < judge.vfs ? pf : -1;
}

void name_of(int pf, int vf, char name[])
{
	if (vf < 0)
		snprintf(name, IFNAMSIZ, "judge%u", pf & 7U);
	else
		snprintf(name, IFNAMSIZ, "judge%u_%u", pf & 7U, vf & 15U);
}

static int which_name(const char *name, int *vf)
{
	for (int pf = 0; pf < judge.pfs; pf++)
		for (*vf = -1; *vf < judge.vfs; ++*vf) {
			char ours[IFNAMSIZ];

			name_of(pf, *vf, ours);
			if (!strcmp(name, ours))
				return pf;
		}
	return -1;
}

char *if_indextoname(unsigned index, char name[IFNAMSIZ])
{
	int vf, pf = which_index(index, &vf);

	if (pf < 0)
		return NEXT(if_indextoname)(index, name);
	name_of(pf, vf, name);
	return name;
}

unsigned if_nametoindex(const char *name)
{
	int vf, pf = which_name(name, &vf);

	return pf < 0 ? NEXT(if_nametoindex)(name) : (unsigned)(vf < 0 ? pf_ifindex(pf) : rep_ifindex(pf, vf));
}

/* ---- ioctl ---- */

static int answer_ethtool(void *data)
{
	uint32_t command = *(uint32_t *)data;

	if (command == ETHTOOL_GLINKSETTINGS) {
		struct ethtool_link_settings *settings = data;

		if (settings->link_mode_masks_nwords <= 0) {
			settings->link_mode_masks_nwords = -3;
			return 0;
		}
		settings->speed = 100000;
		settings->duplex = DUPLEX_FULL;
		settings->autoneg = AUTONEG_ENABLE;
		memset(settings->link_mode_masks, 0, 3 * 3 * sizeof(uint32_t));
		settings->link_mode_masks[1] = 1U << (ETHTOOL_LINK_MODE_100000baseCR4_Full_BIT - 32);
		return 0;
	}
	if (command == ETHTOOL_GLINK) {
		((struct ethtool_value *)data)->data = 1;
		return 0;
	}
	if (command == ETHTOOL_GDRVINFO) {
		struct ethtool_drvinfo *info = data;

		memset(info, 0, sizeof(*info));
		info->cmd = command;
		strcpy(info->driver, "mlx5_core");
		return 0;
	}
	errno = EOPNOTSUPP;
	return -1;
}

static uint16_t mtus[MAX_PFS][MAX_VFS + 1];

int ioctl(int fd, unsigned long command, ...)
{
	va_list arguments;
	struct ifreq *request;
	int vf, pf;

	va_start(arguments, command);
	request = va_arg(arguments, void *);
	va_end(arguments);
	if (command < SIOCGIFNAME || command > SIOCETHTOOL || !request)
		return NEXT(ioctl)(fd, command, request);
	pf = which_name(request->ifr_name, &vf);
	if (pf < 0)
		return NEXT(ioctl)(fd, command, request);
	switch (command) {
	case SIOCGIFINDEX:
		request->ifr_ifindex = vf < 0 ? pf_ifindex(pf) : rep_ifindex(pf, vf);
		return 0;
	case SIOCGIFFLAGS:
		request->ifr_flags = IFF_UP | IFF_RUNNING | IFF_BROADCAST | IFF_MULTICAST;
		return 0;
	case SIOCGIFMTU:
		request->ifr_mtu = mtus[pf][vf + 1] ? mtus[pf][vf + 1] : 1500;
		return 0;
	case SIOCSIFMTU:
		mtus[pf][vf + 1] = request->ifr_mtu;
		return 0;
	case SIOCSIFFLAGS:
	case SIOCSIFHWADDR:
		return 0;
	case SIOCGIFHWADDR:
		request->ifr_hwaddr.sa_family = 1;
		memcpy(request->ifr_hwaddr.sa_data, (uint8_t[]){ 0x02, 0, 0x5e, pf, 0, vf + 1 }, 6);
		return 0;
	case SIOCETHTOOL:
		return answer_ethtool(request->ifr_data);
	default:
		errno = EOPNOTSUPP;
		return -1;
	}
}
