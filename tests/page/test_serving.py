"""The server of page and probes: routes, switched off, without its packages."""

import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from scrapes import get

from broker.monitor.watch import Watch
from broker.page.server import serving
from broker.page.serving import watching
from broker.page.site import Answer, Query, Site, verdict
from broker.settings import Aggregator, Monitor
from edgeclient.settings import ConfigError, Mqtt, load


def test_routes_and_probes() -> None:
    wrong = [""]

    async def healthz(_: Query) -> Answer:
        return verdict(wrong[0])

    site = Site({"/healthz": healthz})
    with serving("127.0.0.1", 0, site) as url:
        assert get(f"{url}/healthz?x=1") == (200, "ok\n")
        wrong[0] = "no room"
        assert get(f"{url}/healthz") == (503, "no room\n")
        assert get(f"{url}/etc/passwd") == (404, "try /healthz\n")
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.sendall(b"GET /")  # and never ends: others are answered meanwhile
            assert get(f"{url}/healthz")[0] == 503
        with (
            pytest.raises(ConfigError, match=f"port {port}: Address already in use"),
            serving("127.0.0.1", port, site),
        ):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/healthz", timeout=5)


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('directory = "d"\n[embedded]\n[monitor]\nenabled = false\n')
    with watching(load(tmp_path / "a.toml", Aggregator)) as watch:
        assert type(watch) is Watch
    assert not watch.listens
    (tmp_path / "a.toml").write_text('directory = "d"\n[embedded]\n[monitor]\n')
    assert load(tmp_path / "a.toml", Aggregator).monitor == Monitor("127.0.0.1", 9464)
    (tmp_path / "a.toml").write_text('directory = "d"\n[embedded]\n[monitor]\nport = 70000\n')
    with pytest.raises(ConfigError, match="port"):
        load(tmp_path / "a.toml", Aggregator)


@pytest.mark.parametrize("package", ["prometheus_client", "aiohttp"])
def test_without_a_package_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("broker.page.server", "broker.monitor.series", "broker.monitor.metrics", "broker.page.routes"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    settings = Aggregator(tmp_path, mqtt=Mqtt(), monitor=Monitor(port=0))
    with pytest.raises(ConfigError, match="pip install"), watching(settings):
        pass
    with watching(Aggregator(tmp_path, mqtt=Mqtt())) as watch:  # nobody has asked: a note
        assert type(watch) is Watch
    assert "no web page: [monitor] needs" in caplog.text
