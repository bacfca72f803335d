#!/usr/bin/python3
"""Writes tenant.pcap and server.pcap: what the hosts of the example send. Needs scapy (Debian: python3-scapy).

The captures in this folder were made by it; it writes the same octets each time. Names and addresses are those of ../l3vpn.
"""
from scapy.all import ARP, ICMP, IP, TCP, UDP, Dot1Q, Ether, IPOption, Raw, wrpcap

HOST1, HOST1_MAC, GATEWAY1_MAC = "192.168.100.100", "00:0c:29:64:00:01", "00:0c:29:01:02:24"
HOST2, HOST2_MAC, GATEWAY2_MAC = "192.168.1.100", "00:0c:29:9b:69:69", "00:0c:29:0f:f4:a1"
MILLISECOND = 0.001
SYN_OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)]

tenant, server = [], []


def host1(time, packet, destination=GATEWAY1_MAC):
    """A frame that host1 sends, untagged."""
    frame = Ether(src=HOST1_MAC, dst=destination) / packet
    frame.time = time
    tenant.append(frame)


def host2(time, packet):
    """A frame that host2 sends, as it is on the trunk: VLAN 300."""
    frame = Ether(src=HOST2_MAC, dst=GATEWAY2_MAC) / Dot1Q(vlan=300) / packet
    frame.time = time
    server.append(frame)


# host1 asks for its gateway, which learns where host1 is.
host1(0.000, ARP(op=1, hwsrc=HOST1_MAC, psrc=HOST1, hwdst="00:00:00:00:00:00", pdst="192.168.100.1"), "ff:ff:ff:ff:ff:ff")

# A ping: ICMP stays in software.
for number in range(1, 4):
    echo = ICMP(id=0x1F2E, seq=number)
    host1(0.010 * number, IP(src=HOST1, dst=HOST2, ttl=64, id=0x4000 + number) / echo / Raw(bytes(56)))
    reply = ICMP(type=0, id=0x1F2E, seq=number)
    host2(0.010 * number + 0.004, IP(src=HOST2, dst=HOST1, ttl=64, id=0x7000 + number) / reply / Raw(bytes(56)))

# A call: RTP over UDP, 50 packets each way, DSCP EF. One of them comes with another TTL, one with an IP option, one in two fragments.
for number in range(50):
    time = 0.100 + 0.020 * number
    voice = Raw(bytes([0x80, 0, 0, number]) + bytes(96))
    there = IP(src=HOST1, dst=HOST2, ttl=64, tos=0xB8, id=0x5000 + number)
    if number == 20:
        there.ttl = 63
    if number == 30:
        there.options = [IPOption(b"\x94\x04\x00\x00")]  # router alert (RFC 2113)
    datagram = there / UDP(sport=40000, dport=5004) / voice
    pieces = datagram.fragment(64) if number == 40 else [datagram]
    for piece in pieces:
        host1(time, piece)
        time += MILLISECOND
    back = IP(src=HOST2, dst=HOST1, ttl=64, tos=0xB8, id=0x6000 + number)
    host2(0.110 + 0.020 * number, back / UDP(sport=5004, dport=40000) / voice)

# The beginning of a download: 20 segments. The handshake is software's, what follows goes to the NIC.
SPORT, ISN1, ISN2 = 40312, 1000000000, 2000000000
REQUEST, SEGMENT, COUNT = bytes(range(0x20, 0x60)), bytes(500), 20


def client(time, number, flags, seq, ack, data=b"", options=()):
    ip = IP(src=HOST1, dst=HOST2, ttl=64, id=0x8000 + number, flags="DF")
    tcp = TCP(sport=SPORT, dport=80, flags=flags, seq=ISN1 + seq, ack=ISN2 + ack if ack else 0, options=list(options))
    host1(time, ip / tcp / Raw(data) if data else ip / tcp)


def answer(time, number, flags, seq, ack, data=b"", options=()):
    ip = IP(src=HOST2, dst=HOST1, ttl=64, id=0x9000 + number, flags="DF")
    tcp = TCP(sport=80, dport=SPORT, flags=flags, seq=ISN2 + seq, ack=ISN1 + ack, options=list(options))
    host2(time, ip / tcp / Raw(data) if data else ip / tcp)


asked = 1 + len(REQUEST)
client(2.000, 0, "S", 0, 0, options=SYN_OPTIONS)
answer(2.004, 0, "SA", 0, 1, options=SYN_OPTIONS)
client(2.008, 1, "A", 1, 1)
client(2.009, 2, "PA", 1, 1, REQUEST)
for number in range(COUNT):
    time = 2.020 + 0.010 * number
    answer(time, 1 + number, "A", 1 + number * len(SEGMENT), asked, SEGMENT)
    client(time + 0.005, 3 + number, "A", asked, 1 + (number + 1) * len(SEGMENT))

for name, frames in (("tenant.pcap", tenant), ("server.pcap", server)):
    # As on a real wire: no frame shorter than 60 octets.
    padded = []
    for frame in sorted(frames, key=lambda frame: frame.time):
        octets = bytes(frame)
        whole = Ether(octets + bytes(max(0, 60 - len(octets))))
        whole.time = 1_700_000_000 + frame.time
        padded.append(whole)
    wrpcap(name, padded)
