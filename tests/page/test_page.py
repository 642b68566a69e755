"""The web page over HTTP: who may read it, what hostile devices can do to it, paging, and how much it sends."""

import http.client
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import fleet
import pytest
from served import TASK, TOKEN, Page, served

from broker.ledger.opening import open_ledger
from broker.ledger.rows import Entry, Version
from broker.page.gate import Gate, read_token
from broker.page.read_model import PAGE
from broker.page.server import MAX_CONNECTIONS
from broker.page.serving import watching
from broker.settings import Aggregator, Monitor, Task
from broker.task.new import add_task
from edgeclient.settings import ConfigError, Mqtt, load
from edgeclient.wire import status, topics
from edgeclient.wire.messages import Refusal
from edgeclient.wire.status import Status


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with served(tmp_path) as found:
        yield found


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Page]:
    with served(tmp_path, Gate(TOKEN)) as found:
        yield found


def test_what_others_made_is_as_it_was() -> None:
    folder = Path(str(files("broker.page"))) / "static"
    listed = re.findall(r"^    ([0-9a-f]{64})  (.+)$", (folder / "README.md").read_text(), re.MULTILINE)
    assert len(listed) == 2
    assert [sha256((folder / "uplot" / name).read_bytes()).hexdigest() for _, name in listed] == [d for d, _ in listed]


# Who may read it


@pytest.mark.parametrize("path", ["/", "/page.js", "/api/first", "/metrics", "/nowhere", "/api/stream?after=x"])
def test_every_answer_carries_the_headers_that_keep_others_out(page: Page, path: str) -> None:
    answer = page.ask(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert answer.headers["Server"] == "edgebroker"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_the_page_has_no_inline_script_and_asks_nobody_else(page: Page) -> None:
    text = page.ask("/").text.decode()
    assert re.findall(r"<script[^>]*>[^<]", text) == []
    assert re.findall(r"\son\w+=|style=|https?://", text) == []
    found = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert len(found) == 5
    for path in found:  # none begins with a slash: they hold below any path
        answer = page.ask(f"/{path}")
        assert answer.status == 200, path
        tag = answer.headers["ETag"]
        assert page.ask(f"/{path}", If_None_Match=tag).status == 304


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "localhost:9464"}, 200),
        ({"Host": "[::1]:9464"}, 200),
        ({"Host": "192.168.1.10:9464"}, 200),
        ({"Host": "evil.example"}, 403),  # DNS rebinding
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": "localhost:1", "Origin": "http://localhost:1"}, 200),
        ({"Host": "localhost:1", "Origin": "http://localhost:2"}, 403),
        ({"Host": "localhost:1", "Origin": "null"}, 403),
        ({"Host": "localhost:1", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, 200),  # somebody has followed a link
    ],
)
def test_other_sites_cannot_ask(page: Page, headers: dict[str, str], code: int) -> None:
    for path in ("/", "/api/first", "/metrics"):
        assert page.ask(path, **headers).status == code


def test_names_are_known_when_they_are_given() -> None:
    gate = Gate(names=("Edge.example",))
    assert gate.foreign("GET", {"Host": "edge.EXAMPLE:80"}) == ""
    assert gate.foreign("GET", {"Host": "other.example"})


@pytest.mark.parametrize("shown", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer \xe4"])
def test_a_wrong_token_is_refused(guarded: Page, shown: str) -> None:
    for path in ("/", "/api/first", "/api/devices", "/api/stream", "/metrics", "/page.js", f"/?token={TOKEN}"):
        answer = guarded.ask(path, **({"Authorization": shown} if shown else {}))
        assert (path, answer.status) == (path, 401)
        assert b"tasks" not in answer.text
        assert "Set-Cookie" not in answer.headers
    assert guarded.ask("/healthz").status == 200  # probes know no token
    assert guarded.ask("/readyz").status == 503


def test_the_token_opens_a_session(guarded: Page, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    assert guarded.ask("/api/first", Authorization=f"Bearer {TOKEN}").status == 200
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert b"Operator's token" in guarded.ask("/").text
    wrong = guarded.ask("/login", method="POST", body="token=guess", **form)
    assert (wrong.status, "Set-Cookie" in wrong.headers) == (401, False)
    assert b"not the operator" in wrong.text
    from_elsewhere = guarded.ask("/login", method="POST", body=f"token={TOKEN}", Origin="http://evil.example", **form)
    assert from_elsewhere.status == 403
    assert guarded.ask("/login", method="POST", body="token=" + "x" * 100_000, **form).status == 413
    answer = guarded.ask("/login", method="POST", body=f"token={TOKEN}", **form)
    cookie = answer.headers["Set-Cookie"]
    assert (answer.status, answer.headers["Location"]) == (303, "./")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert guarded.ask("/api/first", Cookie=cookie.partition(";")[0]).status == 200
    assert guarded.ask("/api/first", Cookie="edgebroker=guess").status == 401
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded; charset=nope", b"token=a"),
        ("application/x-www-form-urlencoded; charset=utf-16", b"token=a"),
        ("application/x-www-form-urlencoded", b"token=%ff%fe\xff"),
        ("application/x-www-form-urlencoded", b"&".join([b"a=b"] * 100)),
        ("multipart/form-data", b"abc"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Transfer-Encoding: nope\r\n\r\na\r\n--x--"),
    ],
)
def test_forms_that_are_none_are_one_line(
    guarded: Page, caplog: pytest.LogCaptureFixture, kind: str, body: bytes
) -> None:
    answer = guarded.ask("/login", method="POST", body=body, **{"Content-Type": kind})
    assert answer.status in {400, 401, 415}
    assert "Traceback" not in caplog.text


def test_an_origin_that_is_none_is_another_site(guarded: Page) -> None:
    assert guarded.ask("/healthz", Origin="http://[").status == 403


def test_forms_that_never_end_shut_nobody_out(guarded: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.page.server._BODY_S", 0.2)
    begun = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS):
            opened = stack.enter_context(socket.create_connection(("127.0.0.1", guarded.port)))
            opened.sendall(begun + b"Content-Length: 100\r\n\r\ntok")
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            with suppress(ConnectionError, http.client.HTTPException):
                assert guarded.ask("/healthz").status == 200
                return
        raise AssertionError("nobody is let in any more")


def test_sessions_end_and_are_bounded() -> None:
    now = [0.0]
    gate = Gate(TOKEN, clock=lambda: now[0])
    sessions = [gate.login(TOKEN) or "" for _ in range(300)]
    assert [gate.knows({}, each) for each in (sessions[0], sessions[-1])] == [False, True]
    now[0] += 13 * 3600
    assert not gate.knows({}, sessions[-1])


def test_other_addresses_than_loopback_need_a_token(tmp_path: Path) -> None:
    path = tmp_path / "operator.token"
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 lets others in, and so needs a token_file: make one with"):
        read_token("0.0.0.0", None)
    assert read_token("127.0.0.1", None) is read_token("localhost", None) is read_token("::1", None) is None
    with pytest.raises(ConfigError, match="No such file"):
        read_token("0.0.0.0", path)
    for content, wrong in ((b"short\n", "16 characters"), (b"\xff" * 20, "not text"), (b"a b" * 20, "one line")):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(ConfigError, match=wrong):
            read_token("0.0.0.0", path)
    path.write_text(f"{TOKEN}\n")
    assert read_token("0.0.0.0", path) == TOKEN
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"can be read by others: chmod 600 {path}"):
        read_token("0.0.0.0", path)


def test_a_port_that_was_asked_for_must_be_free_and_another_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, page: Page
) -> None:
    monkeypatch.setattr("broker.page.serving.Monitor", lambda: Monitor(port=page.port))
    with watching(Aggregator(tmp_path, mqtt=Mqtt())) as watch:
        assert not watch.listens
    assert f"no web page: [monitor] cannot listen on 127.0.0.1 port {page.port}" in caplog.text
    with (
        pytest.raises(ConfigError, match="Address already in use"),
        watching(Aggregator(tmp_path, mqtt=Mqtt(), monitor=Monitor(port=page.port))),
    ):
        pass


def test_the_configuration_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(
        'directory = "d"\n[embedded]\n[monitor]\nhost = "0.0.0.0"\ntoken_file = "t"\nnames = ["edge.example"]\n'
    )
    assert load(tmp_path / "a.toml", Aggregator).monitor == Monitor(
        host="0.0.0.0", token_file=tmp_path / "t", names=("edge.example",)
    )


# What hostile devices can do


SCRIPT = "<script>document.title='owned'</script>\x1b[2J\u202e"


def test_a_script_in_a_status_stays_text(page: Page) -> None:
    page.hear("a", note=SCRIPT)
    answer = page.ask(f"/api/device?task={TASK}&device=a")
    assert answer.headers["Content-Type"] == "application/json"
    assert "\x1b" not in json.loads(answer.text)["said"]["note"]
    assert "\u202e" not in json.loads(answer.text)["said"]["note"]
    # No file of ours turns text into markup.
    for path in ("/page.js", "/text.js", "/fleet.js", "/rounds.js", "/device.js", "/charts.js"):
        assert not re.search(rb"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", page.ask(path).text), path


def test_a_script_in_a_name_never_gets_in(page: Page) -> None:
    for name in ("<script>", "a/b", "..", "x" * 65, ""):
        page.metrics.heard(f"edge/v1/{TASK}/status/{name}", status.encode(Status("online", "s")))
        assert page.ask(f"/api/device?{urlencode({'task': TASK, 'device': name})}").status == 400
    assert page.json("/api/devices")["total"] == 0


@pytest.mark.parametrize(
    "payload",
    [b"\xff\x00" * 40, b"{" * 9000, b'{"state":"online","session":"s","queued":1e400}', b"x" * 2_000_000, b"[]",
     b'{"state":"online","session":"s","note":7}', b'{"state":"online","session":"s","version":-2}'],
)  # fmt: skip
def test_huge_or_binary_statuses_are_counted_and_not_shown(page: Page, payload: bytes) -> None:
    page.hear("good", note="training")
    assert page.metrics.heard(topics.status(TASK, "bad"), payload)
    first = page.json("/api/first")
    assert [row["name"] for row in first["devices"]["rows"]] == ["good"]
    assert sum(first["verdicts"]["unreadable"].values()) == 1


def test_many_connections_take_no_more_descriptors(page: Page) -> None:
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", page.port))) for _ in range(MAX_CONNECTIONS)
        ]
        silent[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert silent[-1].recv(12) == b"HTTP/1.1 200"  # so that those before it are accepted
        one_more = stack.enter_context(socket.create_connection(("127.0.0.1", page.port)))
        one_more.settimeout(10)
        assert one_more.recv(1) == b""
        silent.pop().close()
        until_s = time.monotonic() + 10
        while time.monotonic() < until_s:  # until the server has seen that one is gone
            with suppress(ConnectionError, http.client.HTTPException):
                assert page.ask("/").status == 200
                return
        raise AssertionError("nobody is let in any more")


def test_lies_are_bounded(page: Page) -> None:
    page.hear("liar", note="n" * 5000, queued=10**6, up_bytes=2**53)
    first = page.json("/api/first")
    assert len(first["devices"]["rows"][0]["note"]) == 200
    assert first["fleet"]["outbox"] <= 1_000_000


@pytest.mark.parametrize("number", ["-1", "1e9", "9" * 40, "\u0662", "x", ""])
def test_queries_that_make_no_sense_are_one_line(page: Page, number: str) -> None:
    answer = page.ask(f"/api/devices?{urlencode({'task': TASK, 'page': number})}")
    assert (answer.status, answer.text) == (400, b"page must be a whole number\n")


def test_what_is_not_there(page: Page) -> None:
    assert page.ask(f"/api/device?task={TASK}&device=nobody").status == 404
    assert page.ask("/api/device?task=none&device=nobody").status == 404
    assert page.json("/api/rounds", task="none") == []
    assert page.json("/api/devices", task="'; DROP TABLE task; --")["total"] == 0
    assert page.json("/api/first", task="none")["task"] == TASK
    assert page.ask("/api/first", method="POST").status == 405


# What it shows


def test_pages_of_a_fleet(page: Page) -> None:
    notes = [
        "training",
        "sending",
        "battery at 20 %, needs 30 % or a charger",
        "battery at 9 %, needs 30 % or a charger",
    ]
    for number in range(250):
        page.hear(f"device-{number:03}", note=notes[number % 4])
    page.hear("device-000", "offline", note="connection lost")
    first = page.json("/api/first")
    assert first["fleet"]["states"] == {"training": 62, "sending": 63, "waiting": 124, "offline": 1}
    assert first["fleet"]["reasons"] == [["battery at … %, needs … % or a charger", 124]]
    seen = []
    for number in range(4):
        found = page.json("/api/devices", page=number)
        assert (found["total"], found["per_page"]) == (250, PAGE)
        seen += [row["name"] for row in found["rows"]]
    assert seen == sorted(f"device-{number:03}" for number in range(250))
    assert page.json("/api/devices", state="offline")["rows"][0]["name"] == "device-000"
    assert [row["name"] for row in page.json("/api/devices", search="CE-24")["rows"]] == [
        f"device-24{n}" for n in range(10)
    ]


def entry(device: str, sequence: int, refusal: Refusal | None = None) -> Entry:
    body = bytes(50)
    return Entry(TASK, device, 7, sequence, os.urandom(8), sequence, 0, 1, 0, 10, 25600, refusal, body)


def test_rounds_curve_and_a_device(page: Page) -> None:
    with open_ledger(page.settings.ledger) as ledger:
        for number in range(1, 4):
            ledger.admit([entry(f"d{device}", number - 1) for device in range(20)], time.time())
            members = ledger.open_contributions(TASK, 100)
            version = Version(number, "0" * 64, number, 1e9 + number, 20, 20, 20, {})
            ledger.close_batch(TASK, members, version)
            ledger.add_metrics(TASK, number, {"accuracy": 0.1 * number, "loss": float("nan")})
        ledger.admit([entry("d0", 3, Refusal.STALE)], time.time())
    page.hear("d0", version=3, queued=1)
    page.metrics.kept(TASK, "d0", fleet.LAYOUT.size // 100)
    first = page.json("/api/first")
    assert [(p["number"], p["frame_bytes"], p["updates"]) for p in first["points"]] == [
        (0, 0, 0),
        (1, 1000, 20),
        (2, 2000, 40),
        (3, 3000, 60),
    ]
    assert first["points"][3]["metrics"] == {"accuracy": pytest.approx(0.3)}
    assert first["now"]["dense_bytes"] == 60 * 4 * fleet.LAYOUT.size
    assert [(r["number"], r["contributors"], len(r["devices"])) for r in first["rounds"]] == [
        (3, 20, 12),
        (2, 20, 12),
        (1, 20, 12),
    ]
    assert page.json("/api/rounds", before=2)[0]["number"] == 1
    assert len(page.json("/api/contributors", version=2)) == 20
    assert {event["kind"] for event in first["events"]} >= {"version", "refused", "new-device"}
    device = page.json("/api/device", device="d0")
    assert (device["applied"], device["refused"], device["last_refusal"][:2]) == (3, 1, [3, "stale"])
    assert device["density"] == pytest.approx(0.01, rel=0.01)
    assert [frame["version"] for frame in device["recent"]] == [3, 2, 1]
    assert any("1 refused" in line for line in device["story"])


def changes(page: Page, after: int, count: int) -> list[dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=20)
    connection.request("GET", f"/api/stream?task={TASK}&after={after}")
    answer = connection.getresponse()
    assert answer.headers["Content-Type"] == "text/event-stream"
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = answer.readline().decode().strip()
        if line.startswith("data: "):
            found.append(json.loads(line.removeprefix("data: ")))
    answer.close()
    connection.close()
    return found


def test_the_stream_sends_what_has_changed(page: Page) -> None:
    page.hear("a", note="training")
    first = page.json("/api/first")
    page.hear("a", note="sending")
    (change,) = changes(page, first["after"], 1)
    assert set(change) == {"fleet", "statuses"}
    assert change["fleet"]["states"]["sending"] == 1
    (everything,) = changes(page, 1, 1)  # a page of an earlier start of the aggregator
    assert {"now", "points", "fleet"} <= set(everything)
    assert page.ask("/api/stream?after=x").status == 400


def test_the_stream_tells_which_tasks_are_served(page: Page) -> None:
    first = page.json("/api/first")
    add_task(page.settings, "another", fleet.BUNDLE, Task())
    (change,) = changes(page, first["after"], 1)
    assert change["served"] == {"tasks": ["another", TASK]}
    with open_ledger(page.settings.ledger) as ledger:
        ledger.remove_task(TASK)
    *_, change = changes(page, first["after"], 2)  # a look is kept for half a second
    assert change["served"] == {"tasks": ["another"]}


def test_the_first_paint_of_ten_thousand_devices_is_small(page: Page) -> None:
    for number in range(10_000):
        page.hear(f"device-{number}", note=f"battery at {number % 100} %, needs 30 % or a charger", up_bytes=number)
    paths = [
        "/",
        f"/api/first?task={TASK}",
        "/icon.svg",
        "/uplot/uPlot.min.css",
        "/page.css",
        "/uplot/uPlot.iife.min.js",
    ]
    paths += [f"/{name}.js" for name in ("page", "charts", "device", "fleet", "rounds", "text")]
    began_s = time.perf_counter()
    sizes = {path: len(page.ask(path, Accept_Encoding="gzip").text) for path in paths}
    assert sum(sizes.values()) <= 200_000, sizes
    assert sum(len(page.ask(path).text) for path in paths) <= 200_000  # even as it is
    assert time.perf_counter() - began_s < 5
