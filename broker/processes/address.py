"""Where a server may listen on this machine, and why not."""

import errno
import socket
from typing import Final

_WHY: Final = {
    errno.EADDRINUSE: "port {port} on {host} is taken: choose another, or stop what listens there",
    errno.EADDRNOTAVAIL: '{host} is no address of this machine: host = "0.0.0.0" listens on all that it has',
    errno.EACCES: "port {port} is for the administrator: choose one from 1024 on, such as 1883",
    errno.EAFNOSUPPORT: '{host}: this machine has no IPv6: host = "0.0.0.0" listens on what it has',
}


def written(host: str, port: int) -> str:
    """As URLs and servers want it.

    Example:
        >>> written("::", 1883), written("127.0.0.1", 1883)
        ('[::]:1883', '127.0.0.1:1883')
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def why_not(host: str, port: int) -> str:
    """Why nothing can listen there, in one line; "" if it can. Port 0 asks about the address alone.

    Example:
        >>> why_not("127.0.0.1", 0), why_not("192.0.2.7", 0)
        ('', '192.0.2.7 is no address of this machine: host = "0.0.0.0" listens on all that it has')
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except socket.gaierror:
        return f"{host} is neither an address nor a name that is known here"
    except OSError as error:
        said = _WHY.get(error.errno or 0, f"{{host}} port {{port}}: {error.strerror}")
        return said.format(host=host, port=port)
    return ""


def free_port(host: str) -> int:
    """One that nobody listens on."""
    family, kind, protocol, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.bind(place)
        return int(probe.getsockname()[1])
