"""The page behind a proxy as it comes, and below a path: all of it is there, and who asks is judged as before."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from proxies import NAME, NEEDS_NGINX, nginx
from served import TOKEN, Page, served

from broker.page.gate import Gate
from broker.settings import Aggregator, Monitor
from edgeclient.settings import ConfigError, structure

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
PATHS = ["/", "/fleet/", "/kept/"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with served(tmp_path_factory.mktemp("page"), Gate(TOKEN, names=(NAME,)), base="/kept") as made:
        yield made


@pytest.fixture(scope="module")
def proxied(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with nginx(tmp_path_factory.mktemp("nginx"), page.port) as port:
        yield replace(page, port=port)


@pytest.mark.case("fleet 30")
@NEEDS_NGINX
@pytest.mark.parametrize("path", PATHS)
def test_the_page_works_below_a_path(proxied: Page, path: str) -> None:
    host = {"Host": NAME}
    assert b"Operator's token" in proxied.ask(path, **host).text
    logged_in = proxied.ask(
        f"{path}login", method="POST", body=f"token={TOKEN}", **host, **FORM, Origin=f"https://{NAME}"
    )
    # Seen from the form's address the answer leads to the page, and the cookie holds for this path alone.
    assert (logged_in.status, urljoin(f"{path}login", logged_in.headers["Location"])) == (303, path)
    cookie = logged_in.headers["Set-Cookie"]
    assert "Path" not in cookie
    asked = {**host, "Cookie": cookie.partition(";")[0], "Sec-Fetch-Site": "same-origin"}
    text = proxied.ask(path, **asked).text.decode()
    found = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert len(found) == 5
    for each in [*found, "text.js", "api/first"]:
        assert proxied.ask(urljoin(path, each), **asked).status == 200, each
    script = proxied.ask(urljoin(path, "page.js"), **asked).text.decode()
    for each in re.findall(r'from "([^"]+)"', script):
        assert proxied.ask(urljoin(urljoin(path, "page.js"), each), **asked).status == 200, each


@pytest.mark.case("fleet 30")
@NEEDS_NGINX
def test_a_cookie_is_secure_when_tls_ends_at_the_proxy(page: Page, tmp_path: Path) -> None:
    with nginx(tmp_path, page.port, tls=True) as port:
        through = replace(page, port=port, trusts=tmp_path / "ca.crt")
        for path in PATHS:
            origin = {"Origin": f"https://{NAME}", "Host": NAME}
            answer = through.ask(f"{path}login", method="POST", body=f"token={TOKEN}", **FORM, **origin)
            assert (answer.status, "Secure" in answer.headers["Set-Cookie"]) == (303, True)
    plain = page.ask("/login", method="POST", body=f"token={TOKEN}", **FORM)
    assert (plain.status, "Secure" in plain.headers["Set-Cookie"]) == (303, False)
    told = page.ask("/login", method="POST", body=f"token={TOKEN}", **FORM, **{"X-Forwarded-Proto": "https"})
    assert "Secure" in told.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "127.0.0.1:9464", "Origin": f"https://{NAME}"}, 401),  # nginx as it comes; a token is missing
        ({"Host": "127.0.0.1:9464", "Origin": f"https://{NAME}:8443"}, 401),
        ({"Host": "127.0.0.1:9464", "Origin": "https://evil.example"}, 403),
        ({"Host": "127.0.0.1:9464", "Origin": f"https://{NAME}.evil.example"}, 403),
        ({"Host": "127.0.0.1:9464", "Origin": f"https://evil@{NAME}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Host": "127.0.0.1:9464", "Origin": "null"}, 403),
        ({"Host": "127.0.0.1", "Origin": "http://127.0.0.1:8080"}, 401),  # nginx's $host has no port
        ({"Host": "127.0.0.1:80", "Origin": "http://127.0.0.1:8080"}, 403),
        ({"Host": "127.0.0.1", "Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "127.0.0.1:9464", "X-Forwarded-Host": NAME}, 401),
        ({"Host": "127.0.0.1:9464", "X-Forwarded-Host": "evil.example"}, 403),  # DNS rebinding through a proxy
        ({"Host": "127.0.0.1:9464", "X-Forwarded-Host": f"{NAME}, evil.example"}, 403),
        ({"Host": "evil.example", "X-Forwarded-Host": NAME}, 403),
        ({"Host": "evil.example", "X-Forwarded-Proto": "https"}, 403),
        ({"Host": "127.0.0.1:9464", "X-Forwarded-Host": f"{NAME}:8443", "Origin": f"https://{NAME}:8443"}, 401),
        ({"Host": "127.0.0.1:9464", "Origin": f"https://{NAME}", "Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_a_proxy_opens_the_page_to_nobody_else(page: Page, headers: dict[str, str], code: int) -> None:
    for path in ("/api/first", "/metrics", "/kept/api/first"):
        assert page.ask(path, **headers).status == code


@pytest.mark.case("fleet 32")
def test_prometheus_is_told_how_it_may_call_by_a_name(page: Page) -> None:
    shown = {"Authorization": f"Bearer {TOKEN}"}
    for path in ("/metrics", "/healthz"):
        refused = page.ask(path, Host="aggregator:9464", **shown)
        assert (refused.status, b"add the name to [monitor] names" in refused.text) == (403, True)
        assert page.ask(path, Host=f"{NAME}:9464", **shown).status == 200


def test_below_its_path_it_is_found_with_and_without_the_slash(page: Page) -> None:
    answer = page.ask("/kept")
    assert (answer.status, answer.headers["Location"]) == (308, "kept/")
    assert page.ask("/kept/healthz").status == 200
    assert page.ask("/keptx/healthz").status == 401
    assert page.ask("/kept/api/first").status == 401
    assert page.ask("/kept/page.js").status == 401


@pytest.mark.parametrize("base", ["fleet", "/fleet/", "/a b", "//", "/{x}"])
def test_a_path_that_is_none_is_refused(base: str) -> None:
    values: dict[str, Any] = {"directory": "d", "embedded": {}, "monitor": {"base_path": base}}
    with pytest.raises(ConfigError, match=r"base_path"):
        structure(values, Aggregator, where="broker.toml")
    assert Monitor(base_path="/a/b-c").base_path == "/a/b-c"


@pytest.mark.parametrize("base", ["/metrics", "/api/first", "/api/stream", "/api"])
def test_a_base_that_is_an_address_of_the_page_opens_nothing(tmp_path: Path, base: str) -> None:
    with served(tmp_path, Gate(TOKEN), base=base) as page:
        assert page.ask(base).status == (308 if base == "/api" else 401)
        assert page.ask(f"{base}/api/first").status == 401
