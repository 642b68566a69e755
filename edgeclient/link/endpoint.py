"""Where the MQTT broker is and how it knows us: from `[mqtt]`, with the secrets read from their files."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from edgeclient.settings import ConfigError, Mqtt
from edgeclient.settings.device import MAX_PACKET_BYTES
from edgeclient.wire import topics

_READABLE_BY_OTHERS: Final = 0o004


class _Socket(ssl.SSLSocket):
    """Closed when its handshake fails: paho leaves it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An MQTT broker; a packet over its limit would drop the connection again and again, so it is checked.

    Attributes:
        host: name or address; with TLS, the certificate must be made out to it.
        port: its TCP port.
        keepalive_s: silence after which a side counts as gone.
        max_packet_bytes: of one message with its topic and header.
        username: None for an anonymous client.
        password: kept out of `repr`, and so out of logs.
        tls: None for a connection in the clear.
        prefix: of every topic of ours on this broker.
        client_id: what we are called there; "" for a random one.
        password_file: where the password was read from, and is read again.

    Example:
        >>> endpoint = Endpoint("::1", 1883, username="pi-7", password="secret")
        >>> endpoint.url, "secret" in repr(endpoint)
        ('mqtt://[::1]:1883', False)
    """

    host: str
    port: int
    keepalive_s: int = 30
    max_packet_bytes: int = MAX_PACKET_BYTES
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    prefix: str = topics.PREFIX
    client_id: str = ""
    password_file: Path | None = None

    @classmethod
    def of(cls, mqtt: Mqtt) -> Self:
        """The endpoint of a configuration; certificates and the password are read now.

        Raises:
            ConfigError: a file is missing, is not what it should be, or is a secret that others can read.

        Example:
            >>> Endpoint.of(Mqtt(host="pi", tls=True)).url
            'mqtts://pi:8883'
        """
        return cls(
            mqtt.host,
            mqtt.port,
            mqtt.keepalive_s,
            mqtt.max_packet_bytes,
            username=mqtt.username or None,
            password=None if mqtt.password_file is None else _password(mqtt.password_file),
            tls=_context(mqtt) if mqtt.tls else None,
            prefix=mqtt.prefix,
            client_id=mqtt.client_id,
            password_file=mqtt.password_file,
        )

    def renewed(self) -> Self:
        """With the password that its file holds now.

        Raises:
            ConfigError: the file is no good any more.
        """
        return self if self.password_file is None else replace(self, password=_password(self.password_file))

    @property
    def stamp(self) -> tuple[int, int, int] | None:
        """Changes with the password file; None without one."""
        try:
            found = None if self.password_file is None else self.password_file.stat()
        except OSError:
            return 0, 0, 0
        return None if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """For people."""
        return f"{'mqtt' if self.tls is None else 'mqtts'}://{self.where}"


@contextmanager
def _file(key: str, not_so: str = "") -> Iterator[None]:
    """What goes wrong with a file as a ConfigError; `not_so` says of one that can be read what it is not."""
    try:
        yield
    except (ssl.SSLError, UnicodeDecodeError):
        raise ConfigError(f"[mqtt] {key} {not_so}") from None
    except OSError as error:
        raise ConfigError(f"[mqtt] {key}: {error.strerror}") from None


def _password(path: Path) -> str:
    _check_secret(path, "password_file")
    with _file(f"password_file {path}", "is not text: write the password into it, as UTF-8"):
        password = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
    if not password or "\n" in password:
        raise ConfigError(f"[mqtt] password_file {path}: write the password into it, as its only line")
    return password


def _check_secret(path: Path, key: str) -> None:
    with _file(f"{key} {path}"):
        mode = path.stat().st_mode
    if mode & _READABLE_BY_OTHERS:
        raise ConfigError(f"[mqtt] {key} {path} can be read by every user of this machine: chmod o= {path}")


def _context(mqtt: Mqtt) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificate and host name verified: Python's defaults."""
    with _file(f"ca_file {mqtt.ca_file}", "holds no certificate in PEM form"):
        context = ssl.create_default_context(cafile=None if mqtt.ca_file is None else str(mqtt.ca_file))
    context.sslsocket_class = _Socket
    if mqtt.cert_file is not None and mqtt.key_file is not None:
        _check_secret(mqtt.key_file, "key_file")
        pair = f"cert_file {mqtt.cert_file} and key_file {mqtt.key_file}"
        with _file(pair, "are no pair in PEM form; a key must have no passphrase"):
            # An empty passphrase: OpenSSL would ask for one on the terminal, and a service has none.
            context.load_cert_chain(mqtt.cert_file, mqtt.key_file, password="")
    return context
