// What the peer in the virtual machine needs and busybox has not.
//
//   peer espinudp ADDRESS PORT   a socket that hands ESP in UDP to the kernel's IPsec (RFC 3948), as an IKE daemon has one
//   peer echo ADDRESS PORT       sends numbered datagrams back; on SIGTERM says how many came, came late, and came twice
//
// Both say "ready" when they listen.
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// linux/udp.h: option and value.
enum { UDP_ENCAP = 100, UDP_ENCAP_ESPINUDP = 2 };

static volatile sig_atomic_t stop;

static void on_term(int signal) {
    (void)signal;
    stop = 1;
}

static int fail(const char *what) {
    fprintf(stderr, "peer: %s: %s\n", what, strerror(errno));
    return 1;
}

// Counts datagrams by their number: the first eight octets.
static int echo(int socket) {
    static uint8_t seen[1 << 22];
    unsigned long received = 0, reordered = 0, duplicated = 0;
    int64_t highest = -1;
    uint8_t datagram[2048];
    while (!stop) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t size = recvfrom(socket, datagram, sizeof datagram, 0, (struct sockaddr *)&from, &length);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return fail("receive");
        if (size < 8) continue;
        uint64_t number = 0;
        for (int i = 0; i < 8; i++) number = number << 8 | datagram[i];
        // What cannot be sent back is missing at the other end, and counted there.
        (void)!sendto(socket, datagram, (size_t)size, 0, (struct sockaddr *)&from, length);
        if (number >= sizeof seen) continue;
        if (seen[number]) {
            duplicated++;
            continue;
        }
        seen[number] = 1;
        received++;
        reordered += (int64_t)number < highest;
        if ((int64_t)number > highest) highest = (int64_t)number;
    }
    printf("%lu received, %lu reordered, %lu duplicated\n", received, reordered, duplicated);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "peer: usage: peer espinudp|echo ADDRESS PORT\n");
        return 2;
    }
    int handle = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[3]))};
    int buffer = 4 << 20;
    // Without SA_RESTART: a signal ends the wait.
    struct sigaction action = {.sa_handler = on_term};
    if (handle < 0) return fail("socket");
    if (inet_pton(AF_INET, argv[2], &own.sin_addr) != 1) return fail(argv[2]);
    if (bind(handle, (struct sockaddr *)&own, sizeof own) < 0) return fail("bind");
    if (setsockopt(handle, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0) return fail("receive buffer");
    if (sigaction(SIGTERM, &action, NULL) < 0) return fail("sigaction");
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(argv[1], "espinudp") == 0) {
        int kind = UDP_ENCAP_ESPINUDP;
        if (setsockopt(handle, IPPROTO_UDP, UDP_ENCAP, &kind, sizeof kind) < 0) return fail("UDP_ENCAP");
        printf("ready\n");
        while (!stop) pause();
        return 0;
    }
    printf("ready\n");
    return echo(handle);
}
