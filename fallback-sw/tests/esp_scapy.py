"""ESP by scapy, which shares nothing with the node: a request a line, an answer a line, both JSON."""
import json
import sys

from scapy.all import IP, UDP, IPv6, raw
from scapy.layers.ipsec import ESP, SecurityAssociation

for line in sys.stdin:
    asked = json.loads(line)
    number = asked["sequence"]
    sa = SecurityAssociation(
        ESP,
        spi=asked["spi"],
        crypt_algo="AES-GCM",
        crypt_key=bytes.fromhex(asked["key"]),
        tunnel_header=IP(src=asked["source"], dst=asked["destination"]),
        nat_t_header=UDP(sport=4500, dport=4500, chksum=0) if asked["nat_t"] else None,
        esn_en=asked["esn"],
        esn=number >> 32,
    )
    packet = bytes.fromhex(asked["packet"])
    if asked["what"] == "open":
        done = sa.decrypt(IP(packet))
    else:
        inside = IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)
        vector = number.to_bytes(8, "big")
        done = sa.encrypt(inside, seq_num=number & 0xFFFFFFFF, iv=vector)
    print(json.dumps({"packet": raw(done).hex()}), flush=True)
