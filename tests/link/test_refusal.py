"""Why a connection did not come about, in one line with what to do."""

import ssl

import pytest

from edgeclient.link import refusal


@pytest.mark.parametrize("error", [None, ConnectionRefusedError(), TimeoutError(), ssl.SSLEOFError()])
def test_what_heals_by_waiting_is_not_said(error: BaseException | None) -> None:
    assert refusal.of_tls(error, "pi:8883") is None


def test_a_connack_that_refuses() -> None:
    what = "the broker refuses us: Bad user name or password: see [mqtt] username and password_file"
    assert refusal.of_mqtt(134, "Bad user name or password") == what
    assert refusal.of_mqtt(136, "Server unavailable") == "the broker refuses us: Server unavailable"


@pytest.mark.parametrize(
    ("tls", "else_"),
    [
        (False, "a TLS port: then set [mqtt] tls = true"),
        (True, "it wants a certificate: then set [mqtt] cert_file and key_file"),
    ],
)
def test_a_broker_that_hangs_up(tls: bool, else_: str) -> None:
    what = "the broker hung up before it accepted us: a bad link, or "
    assert refusal.of_silence(tls=tls) == what + else_
