"""Certificates and MQTT brokers for tests of TLS, passwords and rights: ours from firmware_configs, on loopback."""

import ipaddress
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.processes import children
from broker.processes.address import free_port
from broker.processes.embedded import _binary

CONFIGS: Final = Path(str(files("firmware_configs")))
PASSWORDS: Final = {"aggregator": "wheat-and-chaff", "pi-7": "a gate, half open", "pi-8": "snow on the line"}
DAY: Final = timedelta(days=1)
_USES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Authority:
    """Signs certificates; `file` is its own."""

    file: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def issue(self, name: str, *, names: tuple[str, ...], begins: timedelta = -DAY, ends: timedelta = DAY) -> None:
        """Write NAME.crt and NAME.key beside `file`, for DNS names and addresses; validity is relative to now."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(name, self.certificate.subject, key, begins, ends)
        alternatives = x509.SubjectAlternativeName([_general(each) for each in names])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        made = made.add_extension(alternatives, critical=False).add_extension(issuer, critical=False)
        _write(self.file.with_name(f"{name}.crt"), made.sign(self.key, hashes.SHA256()), key)


def authority(folder: Path, name: str = "ca") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(name, subject, key, -2 * DAY, 2 * DAY)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    # Python 3.13 and later verify strictly by RFC 5280: no authority without key usage and key identifiers.
    signs = dict.fromkeys(_USES, False) | {"key_cert_sign": True, "crl_sign": True}
    builder = builder.add_extension(x509.KeyUsage(**signs), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    _write(folder / f"{name}.crt", certificate, key)
    return Authority(folder / f"{name}.crt", key, certificate)


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, begins: timedelta, ends: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.with_suffix(".key").write_bytes(private)
    path.with_suffix(".key").chmod(0o600)


def secrets_of(folder: Path) -> None:
    """The password files of devices: FOLDER/NAME.password."""
    for name, password in PASSWORDS.items():
        path = folder / f"{name}.password"
        path.write_text(password + "\n")
        path.chmod(0o600)


def mosquitto_program(name: str = "mosquitto") -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def mosquitto(folder: Path, *, more: str = "") -> Iterator[int]:
    """Mosquitto with our configuration in FOLDER, which has server.crt and server.key; its port."""
    program, passwd = mosquitto_program(), mosquitto_program("mosquitto_passwd")
    assert program is not None
    assert passwd is not None
    store = folder / "store"
    store.mkdir(exist_ok=True)
    shutil.copy(CONFIGS / "mosquitto" / "acl", folder / "acl")
    passwords = folder / "passwords"
    passwords.write_text("".join(f"{name}:{password}\n" for name, password in PASSWORDS.items()))
    subprocess.run([passwd, "-U", passwords], check=True, timeout=60)

    def config(port: int) -> str:
        ours = (CONFIGS / "mosquitto" / "mosquitto.conf").read_text()
        for old, new in (
            ("listener 8883\n", f"listener {port} 127.0.0.1\n"),
            ("/etc/mosquitto/", f"{folder}/"),
            ("/var/lib/mosquitto/", f"{store}/"),
        ):
            assert old in ours
            ours = ours.replace(old, new)
        # Started by root it would become a user that cannot read a folder of tests.
        return ours + more + ("user root\n" if os.geteuid() == 0 else "")

    with running(folder, "mosquitto.conf", config, [program, "-c"]) as port:
        yield port


@contextmanager
def nats(folder: Path) -> Iterator[int]:
    """nats-server with our configuration in FOLDER, which has server.crt and server.key; its port."""
    ours = (CONFIGS / "nats" / "users.conf").read_text()
    device = re.search(r"    \{\n      user: \"pi-7\".*?\n    \}\n", ours, re.DOTALL)
    assert device is not None
    users = ours.replace(device[0], device[0] + device[0].replace("pi-7", "pi-8"))
    for name, password in PASSWORDS.items():
        users, count = re.subn(rf'(user: "{name}"\n\s*password: )"[^"]*"', rf'\1"{password}"', users)
        assert count == 1, name
    (folder / "users.conf").write_text(users)

    def config(port: int) -> str:
        ours = (CONFIGS / "nats" / "nats-server.conf").read_text()
        for old, new in (
            ("0.0.0.0:8883", f"127.0.0.1:{port}"),
            ("127.0.0.1:4222", "127.0.0.1:-1"),
            ("/etc/nats/", f"{folder}/"),
            ("/var/lib/nats", f"{folder}/store"),
        ):
            assert old in ours
            ours = ours.replace(old, new)
        return ours

    with running(folder, "nats-server.conf", config, [_binary(), "-c"]) as port:
        yield port


@contextmanager
def running(
    folder: Path, name: str, config: Callable[[int], str], command: list[str], host: str = "127.0.0.1", wanted: int = 0
) -> Iterator[int]:
    """A server on the wanted port, or a free one; another one when somebody takes it in the meantime."""
    log = folder / "server.log"
    for _ in range(5):
        port = wanted or free_port(host)
        (folder / name).write_text(config(port))
        process = children.spawn([*command, str(folder / name)], log=log)
        try:
            if _listens(process, host, port):
                yield port
                assert process.poll() is None, log.read_text()
                return
        finally:
            children.end(process)
        assert "in use" in log.read_text(), log.read_text()
    raise AssertionError("no free port")


def _listens(process: "subprocess.Popen[bytes]", host: str, port: int) -> bool:
    until_s = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until_s:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False
