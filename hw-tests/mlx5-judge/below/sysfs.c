/* The card's PCI devices and RDMA devices in sysfs: a tree of files elsewhere, and whoever opens one below /sys gets that one. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "judge.h"
#include "next.h"

static void write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	if (file) {
		fputs(text, file);
		fclose(file);
	}
}

static void write_at(const char *directory, const char *name, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	write_file(path, text);
}

static void directory_at(const char *format, ...)
{
	char path[PATH_MAX];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(path, sizeof(path), format, arguments);
	va_end(arguments);
	mkdir(path, 0755);
}

static void make_pf(int pf)
{
	char path[160], slot[32], text[64], link[192], resources[400] = "";

	snprintf(slot, sizeof(slot), "0000:08:00.%d", pf);
	snprintf(path, sizeof(path), "%s/pci/%s", judge.root, slot);
	mkdir(path, 0755);
	write_at(path, "vendor", "0x15b3\n");
	write_at(path, "device", "0x101d\n");
	write_at(path, "subsystem_vendor", "0x15b3\n");
	write_at(path, "subsystem_device", "0x0016\n");
	write_at(path, "class", "0x020000\n");
	write_at(path, "numa_node", "-1\n");
	write_at(path, "max_vfs", "0\n");
	for (int bar = 0; bar < 6; bar++)
		strcat(resources, "0x0000000000000000 0x0000000000000000 0x0000000000000000\n");
	write_at(path, "resource", resources);
	snprintf(link, sizeof(link), "%s/driver", path);
	(void)!symlink("../../drivers/mlx5_core", link);
	directory_at("%s/ib/mlx5_%d", judge.root, pf);
	directory_at("%s/ib/mlx5_%d/device", judge.root, pf);
	snprintf(path, sizeof(path), "%s/ib/mlx5_%d/device", judge.root, pf);
	snprintf(text, sizeof(text), "DRIVER=mlx5_core\nPCI_SLOT_NAME=%s\n", slot);
	write_at(path, "uevent", text);
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
	(void)status, (void)type, (void)where;
	return remove(path);
}

__attribute__((constructor(103))) static void make_tree(void)
{
	const char *base = getenv("TMPDIR");
	char pci[96];

	/* Nor in the shells and the like on the way to the program. */
	if (!dlsym(RTLD_DEFAULT, "rte_eal_init"))
		return;
	snprintf(judge.root, sizeof(judge.root), "%.40s/mlx5-judge-XXXXXX", base ? base : "/tmp");
	if (!mkdtemp(judge.root))
		abort();
	directory_at("%s/pci", judge.root);
	directory_at("%s/ib", judge.root);
	for (int pf = 0; pf < judge.pfs; pf++)
		make_pf(pf);
	snprintf(pci, sizeof(pci), "%s/pci", judge.root);
	setenv("SYSFS_PCI_DEVICES", pci, 1);
}

__attribute__((destructor)) static void remove_tree(void)
{
	if (judge.root[0])
		nftw(judge.root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- Files under /sys that name one of ours ---- */

static const char *elsewhere(const char *path, char *room, size_t size)
{
	static const char infiniband[] = "/sys/class/infiniband/mlx5_", pci[] = "/sys/bus/pci/devices/0000:08:00.";

	if (path && !strncmp(path, infiniband, sizeof(infiniband) - 1))
		snprintf(room, size, "%s/ib/mlx5_%s", judge.root, path + sizeof(infiniband) - 1);
	else if (path && !strncmp(path, pci, sizeof(pci) - 1))
		snprintf(room, size, "%s/pci/0000:08:00.%s", judge.root, path + sizeof(pci) - 1);
	else
		return path;
	return room;
}

FILE *fopen(const char *path, const char *mode)
{
	char room[PATH_MAX];

	return NEXT(fopen)(elsewhere(path, room, sizeof(room)), mode);
}

/* The same: Debian builds DPDK with large file support. */
FILE *fopen64(const char *path, const char *mode)
{
	return fopen(path, mode);
}

DIR *opendir(const char *path)
{
	char room[PATH_MAX];

	return NEXT(opendir)(elsewhere(path, room, sizeof(room)));
}
