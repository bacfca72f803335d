#!/usr/bin/python3
"""Writes tenant.pcap and server.pcap: what the hosts of the example send. Needs scapy (Debian: python3-scapy).

The captures in this folder were made by it; it writes the same octets each time.
"""
from scapy.all import (
    ARP, ICMP, IP, TCP, Dot1Q, Ether, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6NDOptSrcLLAddr, ICMPv6ND_NS, IPv6, Raw,
    wrpcap,
)

HOST1, HOST1_V6, HOST1_MAC = "192.168.100.100", "fd00:100::100", "00:0c:29:64:00:01"
GATEWAY1, GATEWAY1_V6, GATEWAY1_MAC = "192.168.100.1", "fd00:100::1", "00:0c:29:01:02:24"
HOST2, HOST2_V6, HOST2_MAC = "192.168.1.100", "fd00:1::100", "00:0c:29:9b:69:69"
GATEWAY2_MAC = "00:0c:29:0f:f4:a1"
BROADCAST = "ff:ff:ff:ff:ff:ff"

REQUEST = b"GET / HTTP/1.1\r\nHost: 192.168.1.100\r\nConnection: close\r\n\r\n"
BODY = b"the blue web server at the site of ce2\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY
PING = bytes(range(0x10, 0x48))
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


# host1 asks for its gateway, by ARP and by ND.
host1(0.000, ARP(op=1, hwsrc=HOST1_MAC, psrc=HOST1, hwdst="00:00:00:00:00:00", pdst=GATEWAY1), BROADCAST)
host1(
    0.001,
    IPv6(src=HOST1_V6, dst="ff02::1:ff00:1", hlim=255) / ICMPv6ND_NS(tgt=GATEWAY1_V6) / ICMPv6NDOptSrcLLAddr(lladdr=HOST1_MAC),
    "33:33:ff:00:00:01",
)

# ping -c 3 192.168.1.100
for number in range(1, 4):
    echo = {"id": 0x1F2E, "seq": number}
    time = 0.010 * number
    host1(time, IP(src=HOST1, dst=HOST2, ttl=64, id=0x4000 + number, flags="DF") / ICMP(type=8, **echo) / Raw(PING))
    host2(time + 0.004, IP(src=HOST2, dst=HOST1, ttl=64, id=0x7000 + number) / ICMP(type=0, **echo) / Raw(PING))

# ping -c 1 fd00:1::100
echo = {"id": 0x1F2F, "seq": 1, "data": PING}
host1(0.050, IPv6(src=HOST1_V6, dst=HOST2_V6, hlim=64, fl=0x5A5A5) / ICMPv6EchoRequest(**echo))
host2(0.054, IPv6(src=HOST2_V6, dst=HOST1_V6, hlim=64, fl=0x3C3C3) / ICMPv6EchoReply(**echo))

# curl http://192.168.1.100/
SPORT, ISN1, ISN2 = 40312, 1000000000, 2000000000


def client(time, number, flags, seq, ack, data=b"", options=()):
    ip = IP(src=HOST1, dst=HOST2, ttl=64, id=0x5000 + number, flags="DF")
    tcp = TCP(sport=SPORT, dport=80, flags=flags, seq=ISN1 + seq, ack=ISN2 + ack if ack else 0, window=64240 if options else 502, options=list(options))
    host1(time, ip / tcp / Raw(data) if data else ip / tcp)


def answer(time, number, flags, seq, ack, data=b"", options=()):
    ip = IP(src=HOST2, dst=HOST1, ttl=64, id=0x6000 + number, flags="DF")
    tcp = TCP(sport=80, dport=SPORT, flags=flags, seq=ISN2 + seq, ack=ISN1 + ack, window=65160 if options else 509, options=list(options))
    host2(time, ip / tcp / Raw(data) if data else ip / tcp)


asked, answered = 1 + len(REQUEST), 1 + len(RESPONSE)
client(0.100, 1, "S", 0, 0, options=SYN_OPTIONS)
answer(0.104, 1, "SA", 0, 1, options=SYN_OPTIONS)
client(0.108, 2, "A", 1, 1)
client(0.109, 3, "PA", 1, 1, REQUEST)
answer(0.113, 2, "A", 1, asked)
answer(0.114, 3, "PA", 1, asked, RESPONSE)
client(0.118, 4, "A", asked, answered)
answer(0.119, 4, "FA", answered, asked)
client(0.123, 5, "FA", asked, answered + 1)
answer(0.127, 5, "A", answered + 1, asked + 1)

for name, frames in (("tenant.pcap", tenant), ("server.pcap", server)):
    # As on a real wire: no frame shorter than 60 octets.
    padded = []
    for frame in sorted(frames, key=lambda frame: frame.time):
        octets = bytes(frame)
        whole = Ether(octets + bytes(max(0, 60 - len(octets))))
        whole.time = 1_700_000_000 + frame.time
        padded.append(whole)
    wrpcap(name, padded)
