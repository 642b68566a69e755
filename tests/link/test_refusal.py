"""Why a connection did not come about, in one line with what to do."""

import errno
import socket
import ssl

import pytest

from edgeclient.link import refusal
from edgeclient.link.refusal import of_error


@pytest.mark.case("fleet 20")
@pytest.mark.case("fleet 39")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(), "nobody listens at pi:1883: does the MQTT broker run there?"),
        (TimeoutError(), "pi:1883 does not answer: is it on, and does a firewall let us through?"),
        (socket.gaierror(socket.EAI_NONAME, ""), "pi:1883: there is no such name here: see [mqtt] host"),
        (socket.gaierror(socket.EAI_AGAIN, ""), "pi:1883: the name cannot be looked up"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no way to pi:1883: No route to host"),
        (ssl.SSLEOFError(), "pi:1883 hung up while we connected"),
        (None, "pi:1883 hung up while we connected"),
    ],
)
def test_what_heals_by_waiting(error: BaseException | None, said: str) -> None:
    text, refused = of_error(error, "pi:1883")
    assert text.startswith(said)
    assert not refused


def test_a_link_local_address_needs_its_interface() -> None:
    error = OSError(errno.EINVAL, "Invalid argument")
    assert of_error(error, "[fe80::1]:1883").refused
    assert not of_error(error, "[fe80::1%eth0]:1883").refused


def test_a_connack_that_refuses() -> None:
    what = "the broker refuses us: Bad user name or password: see [mqtt] username and password_file"
    assert refusal.of_mqtt(134, "Bad user name or password") == what
    assert refusal.of_mqtt(136, "Server unavailable") == "the broker refuses us: Server unavailable"
    assert refusal.of_mqtt(133, "Client identifier not valid").endswith("see [mqtt] client_id")


@pytest.mark.parametrize(
    ("tls", "else_"),
    [
        (False, "a TLS port: then set [mqtt] tls = true"),
        (True, "it wants a certificate: then set [mqtt] cert_file and key_file"),
    ],
)
def test_a_broker_that_hangs_up(tls: bool, else_: str) -> None:
    what = "the broker hung up before it accepted us: a bad link, too many connections, or "
    assert refusal.of_silence(128, "pi:1883", tls=tls, known=False) == what + else_


@pytest.mark.case("fleet 34")
@pytest.mark.parametrize("known", [True, False])
def test_a_network_that_swallows_is_no_tls_port(known: bool) -> None:
    assert "tls" not in refusal.of_silence(141, "pi:1883", tls=False, known=known)
    assert "tls" not in refusal.of_silence(128, "pi:1883", tls=False, known=True)
    assert refusal.of_end(141, 40.0) == "nothing came for 40 s: the network between is gone, or the broker hangs"
