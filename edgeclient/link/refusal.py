"""Why there is no connection, in one line with what to do: every reason that the link gives stands here."""

import errno
import socket
import ssl
from typing import Final, NamedTuple

# X509_V_ERR_* of OpenSSL.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = {62, 64}
# A peer that hangs up in the middle: a bad link, or a broker that restarts.
_HUNG_UP: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
# MQTT 5's reason codes, into which paho translates those of 3.1.1.
_PROTOCOL_VERSION: Final = 132
_CLIENT_ID: Final = 133
_CREDENTIALS: Final = {134, 135}
_KEEP_ALIVE: Final = 141
_ADVICE: Final = {
    _PROTOCOL_VERSION: ": it must speak MQTT 3.1.1",
    _CLIENT_ID: ": see [mqtt] client_id",
    **dict.fromkeys(_CREDENTIALS, ": see [mqtt] username and password_file"),
}
# getaddrinfo's answers to a name that does not exist; the others mean that nobody could be asked.
_NO_NAME: Final = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

NO_RETAIN: Final = "the broker keeps no retained messages, and the model is one: allow them there (retain_available)"
OTHER_LIMIT: Final = (
    "the broker has hung up {} times at a message of {} bytes: see its log, its access rules, and its limits on packet"
    " size, QoS and retained messages"
)
SMALL_PACKETS: Final = (
    "the broker takes packets of at most {} bytes, and status and announcement need 2048: raise its packet limit"
)
SHRUNK: Final = "the broker takes packets of at most {} bytes: what is larger is cut to fit"
GUESSED: Final = (
    "the broker has hung up {} times at a message of {} bytes, which may be over its packet limit: from now on at most"
    " {} bytes; [mqtt] max_packet_bytes says so from the start"
)
QOS_0: Final = "the broker takes QoS 0 only: messages may be lost on the way and are then sent again"


class Reason(NamedTuple):
    """Why a connection did not come about.

    Attributes:
        text: one line.
        refused: somebody has to put something right; otherwise it may heal by waiting.
    """

    text: str
    refused: bool = False


def of_error(error: BaseException | None, where: str) -> Reason:  # noqa: PLR0911 (one return a reason)
    """What a failed connect to `where`, host:port, means.

    Example:
        >>> of_error(ConnectionRefusedError(), "pi:1883").text
        'nobody listens at pi:1883: does the MQTT broker run there?'
    """
    match error:
        case ssl.SSLCertVerificationError():
            return Reason(f"{where}: the broker's certificate {_of_certificate(error)}", refused=True)
        case ssl.SSLError() if not isinstance(error, _HUNG_UP):
            return Reason(_of_tls(error, where), refused=True)
        case socket.gaierror() if error.errno in _NO_NAME:
            return Reason(f"{where}: there is no such name here: see [mqtt] host, and the network's DNS")
        case socket.gaierror():
            return Reason(f"{where}: the name cannot be looked up: no network, or its DNS does not answer")
        case ConnectionRefusedError():
            return Reason(f"nobody listens at {where}: does the MQTT broker run there?")
        case TimeoutError():
            return Reason(f"{where} does not answer: is it on, and does a firewall let us through?")
        case OSError(errno=errno.ENETUNREACH | errno.EHOSTUNREACH | errno.ENETDOWN | errno.EHOSTDOWN):
            return Reason(f"no way to {where}: {error.strerror or error}")
        case OSError(errno=errno.EINVAL) if where.lower().startswith("[fe80") and "%" not in where:
            return Reason(f"{where}: a link-local address needs its interface: write it as fe80::1%eth0", refused=True)
    return Reason(f"{where} hung up while we connected ({error})")


def _of_tls(error: ssl.SSLError, where: str) -> str:
    if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
        return f"{where} does not speak TLS: set [mqtt] port to its TLS port (8883 is usual), or tls = false"
    return f"{where}: no TLS connection ({(error.reason or str(error)).replace('_', ' ').lower()}): see its log"


def _of_certificate(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _OTHER_NAME:
        return "is for another name: set [mqtt] host to a name in it"
    if error.verify_code == _NOT_YET_VALID:
        return "is not valid yet: see this device's clock"
    if error.verify_code == _EXPIRED:
        return "has expired: renew it, or see this device's clock"
    return f"is not trusted ({error.verify_message}): set [mqtt] ca_file to who signed it"


def of_mqtt(code: int, name: str) -> str:
    """What a refusing CONNACK means; `code` and `name` are MQTT 5's."""
    return f"the broker refuses us: {name}{_ADVICE.get(code, '')}"


def of_end(code: int, silence_s: float) -> str:
    """What the end of a connection means that had been accepted.

    Example:
        >>> of_end(141, 40.0)
        'nothing came for 40 s: the network between is gone, or the broker hangs'
    """
    if code == _KEEP_ALIVE:
        return f"nothing came for {silence_s:.0f} s: the network between is gone, or the broker hangs"
    return "the broker has closed the connection, or the network between"


def of_silence(code: int, where: str, *, tls: bool, known: bool) -> str:
    """What it means that there was no CONNACK; `known` if this broker has ever accepted us."""
    if code == _KEEP_ALIVE:
        return f"{where} takes the connection and then says nothing: a bad network, or no MQTT broker"
    if known:
        return "the broker hung up before it accepted us: it starts or stops, or takes no more connections"
    other = (
        "it wants a certificate: then set [mqtt] cert_file and key_file"
        if tls
        else "a TLS port: then set [mqtt] tls = true"
    )
    return f"the broker hung up before it accepted us: a bad link, too many connections, or {other}"
