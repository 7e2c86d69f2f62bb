"""Which network interface the ranks of a job talk over."""

import os
from ipaddress import ip_address

from psutil import net_if_addrs

VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def talk_over(address: str) -> None:
    """Have gloo and NCCL listen on the interface with this address alone, unless the environment names one.

    Left to themselves they take what the host's name resolves to, or the first interface that they find.
    """
    interface = interface_of(address)
    if interface is not None:
        for variable in VARIABLES:
            os.environ.setdefault(variable, interface)


def interface_of(address: str) -> str | None:
    """The name of the interface with this address; None where there is none, as behind a translated address."""
    wanted = ip_address(address)
    for name, addresses in net_if_addrs().items():
        texts = [found.address.partition("%")[0] for found in addresses]
        if address in texts or (wanted.is_loopback and any(map(_is_loopback, texts))):
            return str(name)
    return None


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:  # a hardware address
        return False
