/*
 * What strongSwan's headers want to know of its configuration, instead of the file that its own build writes.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CONFIG_H_INCLUDED
#define CONFIG_H_INCLUDED
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define HAVE_SIGWAITINFO 1
#define HAVE_SYSLOG 1
#define HAVE_STRNLEN 1
#define HAVE_CLOSEFROM 1
#define HAVE_EXPLICIT_BZERO 1
#define HAVE_IN6ADDR_ANY 1
#define HAVE_STRUCT_SADB_X_POLICY_SADB_X_POLICY_PRIORITY 1
#define HAVE_FMEMOPEN 1
#define HAVE_QSORT_R_GNU 1
#define HAVE_QSORT_R 1
#endif
