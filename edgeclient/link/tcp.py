"""What the kernel counts of a TCP connection; TLS and MQTT's own bytes are in it."""

import socket
import struct
import sys
from typing import Any, Final

# struct tcp_info of Linux: tcpi_bytes_acked and tcpi_bytes_received, unsigned 64 bits.
_INFO_BYTES: Final = 136
_BYTES_AT: Final = 120


def payload_bytes(sock: Any) -> tuple[int, int]:
    """Bytes sent (and acknowledged) and received; 0 without a socket, and where TCP does not tell.

    Example:
        >>> payload_bytes(None)
        (0, 0)
    """
    if sock is None or sys.platform != "linux":
        return 0, 0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        sent, received = struct.unpack_from("<QQ", info, _BYTES_AT)
    except (OSError, struct.error):
        return 0, 0
    return sent, received
