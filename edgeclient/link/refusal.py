"""Why a connection did not come about, in one line with what to do; None for what heals by waiting."""

import ssl
from typing import Final

# X509_V_ERR_* of OpenSSL.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_OTHER_NAME: Final = {62, 64}
# A peer that hangs up in the middle: a bad link, or a broker that restarts.
_HUNG_UP: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
# MQTT 5's reason codes, into which paho translates those of 3.1.1.
_CREDENTIALS: Final = {134, 135}


def of_tls(error: BaseException | None, where: str) -> str | None:
    """What a failed connect to `where`, host:port, means if the other side or the configuration is at fault."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{where}: the broker's certificate {_of_certificate(error)}"
    if isinstance(error, ssl.SSLError) and not isinstance(error, _HUNG_UP):
        if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
            return f"{where} does not speak TLS: set [mqtt] port to its TLS port (8883 is usual), or tls = false"
        return f"{where}: no TLS connection ({(error.reason or str(error)).replace('_', ' ').lower()}): see its log"
    return None


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
    advice = ": see [mqtt] username and password_file" if code in _CREDENTIALS else ""
    return f"the broker refuses us: {name}{advice}"


def of_silence(*, tls: bool) -> str:
    """What it means that the broker hangs up before its CONNACK."""
    other = (
        "it wants a certificate: then set [mqtt] cert_file and key_file"
        if tls
        else "a TLS port: then set [mqtt] tls = true"
    )
    return f"the broker hung up before it accepted us: a bad link, or {other}"
