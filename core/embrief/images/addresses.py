"""Which addresses of the internet are everybody's: no one's own machine, network or cloud is behind them."""

from __future__ import annotations

import ipaddress

# By the registries of IANA, and the same for all releases of Python, whose own lists differ.
_SPECIAL = [
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4",
        "168.63.129.16/32",  # inside Azure, where each machine asks about itself
    )
]  # fmt: skip
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_6 = [
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "3fff::/20")  # of protocols (Teredo, ORCHID), for documentation twice
]
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")


def is_public(address: str) -> bool:
    """Return whether an address, as a resolver gives it, is everybody's.

    An address of IPv6 that stands for one of IPv4 (mapped, 6to4, NAT64) is what it stands for.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        number = int(found)
        if found in _MAPPED or found in _NAT64:
            found = ipaddress.IPv4Address(number & 0xFFFF_FFFF)
        elif found in _6TO4:
            found = ipaddress.IPv4Address(number >> 80 & 0xFFFF_FFFF)
        else:
            return found in _GLOBAL_6 and not any(found in network for network in _SPECIAL_6)
    return not any(found in network for network in _SPECIAL)
