"""Who may read the page: a pure judgement of a request's headers, with the sessions of those who logged in.

Against other web sites in the operator's browser: the Host must be an address or a name that is known (a name could be
made to point here, DNS rebinding), and requests that another site caused are refused. Behind a proxy the same holds for
X-Forwarded-Host, where it tells one; where it does not, and puts the aggregator's own address in the place of the Host,
the browser's Origin is known by [monitor] names.
"""

import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgeclient.settings import ConfigError

COOKIE: Final = "edgebroker"
SESSION_S: Final = 12 * 3600
_SESSIONS: Final = 256
_SHORTEST: Final = 16
_HOW: Final = "make one with: (umask 077; head -c 24 /dev/urandom | base64 > operator.token)"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("pi.local")
        (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(host: str, path: Path | None) -> str | None:
    """The operator's token; None where none is needed and none is given.

    Raises:
        ConfigError: there must be one, it is too short, or others can read the file.
    """
    if path is None:
        if is_loopback(host):
            return None
        raise ConfigError(f"[monitor] host {host} lets others in, and so needs a token_file: {_HOW}")
    try:
        mode, token = path.stat().st_mode, path.read_bytes().decode("utf-8-sig").strip()
    except OSError as error:
        raise ConfigError(f"[monitor] token_file {path}: {error.strerror}; {_HOW}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"[monitor] token_file {path} is not text; {_HOW}") from None
    if mode & 0o077:
        raise ConfigError(f"[monitor] token_file {path} can be read by others: chmod 600 {path}")
    if len(token) < _SHORTEST or not token.isprintable() or " " in token:
        raise ConfigError(f"[monitor] token_file {path} is not one line of {_SHORTEST} characters or more; {_HOW}")
    return token


class Gate:
    """Judges requests.

    Args:
        token: the operator's; None lets everybody in who can reach the address.
        names: host names by which it may be called, beside localhost and addresses.
        clock: steady seconds.

    Example:
        >>> gate = Gate("0123456789abcdef")
        >>> gate.foreign("GET", {"Host": "192.168.1.10:9464"}), gate.foreign("GET", {"Host": "evil.example"})[:25]
        ('', 'this name is not known he')
        >>> gate.knows({"Authorization": "Bearer 0123456789abcdef"}, ""), gate.knows({}, ""), gate.login("guess")
        (True, False, None)
        >>> gate.knows({}, gate.login("0123456789abcdef"))
        True
    """

    def __init__(
        self, token: str | None = None, names: tuple[str, ...] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._token = None if token is None else token.encode()
        self._given = frozenset(name.lower() for name in names)
        self._names = self._given | {"localhost"}
        self._clock = clock
        self._sessions: dict[str, float] = {}

    def foreign(self, method: str, headers: Mapping[str, str]) -> str:
        """Empty when the request may be ours, else why not."""
        forwarded = headers.get("X-Forwarded-Host", "")  # by several proxies: several
        hosts = [headers.get("Host", ""), *(each.strip() for each in forwarded.split(",") if forwarded)]
        if not all(map(self._is_ours, hosts)):
            return "this name is not known here: use the address, or add the name to [monitor] names"
        origin = headers.get("Origin")
        if origin is not None and not self._is_own(origin.partition("://")[2], hosts):
            return "another site may not ask here"
        follows_link = method == "GET" and headers.get("Sec-Fetch-Dest") == "document"
        if headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"} and not follows_link:
            return "another site may not ask here"
        return ""

    def knows(self, headers: Mapping[str, str], session: str) -> bool:
        """Whether the request shows the token, or a session that the token has opened."""
        if self._token is None:
            return True
        scheme, _, shown = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(shown.strip()):
            return True
        return self._sessions.get(session, -1.0) > self._clock()

    def login(self, token: str) -> str | None:
        """A new session, or None for a wrong token."""
        if self._token is None or not self._is_token(token.strip()):
            return None
        now = self._clock()
        alive = [(key, until) for key, until in self._sessions.items() if until > now]
        session = secrets.token_urlsafe(32)
        self._sessions = {**dict(alive[-_SESSIONS + 1 :]), session: now + SESSION_S}
        return session

    def _is_token(self, shown: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(shown.encode(errors="replace"), self._token)

    def _is_own(self, site: str, hosts: Collection[str]) -> bool:
        """The page's own, to the browser; proxies may drop the port. Sec-Fetch-Site tells other ports apart."""
        name = _name(site)
        return site in hosts or name in self._given or (name != "" and name in hosts)

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        try:
            return name in self._names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


def over_tls(headers: Mapping[str, str]) -> bool:
    """Whether the browser's connection ends in TLS at a proxy, by what the proxy or the browser says of it.

    Example:
        >>> over_tls({"X-Forwarded-Proto": "https"}), over_tls({"Origin": "https://fleet.example"}), over_tls({})
        (True, True, False)
    """
    schemes = (headers.get("X-Forwarded-Proto", ""), headers.get("Origin", ""))
    return any(each.lower().startswith("https") for each in schemes)


def _name(host: str) -> str:
    """Without a port; "" for what is no host."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
