"""The web page in a real browser: it lives, can be used without a mouse or eyes, and nothing that devices say harms it.

Screenshots for people to look at are written to .ci/screenshots.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fleet
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from proxies import NEEDS_NGINX, nginx
from served import TASK, TOKEN, served
from served import Page as Served

from broker.ledger.opening import open_ledger
from broker.ledger.rows import Entry, Version
from broker.page.gate import Gate
from broker.processes import children
from broker.settings import Aggregator, Task
from edgeclient.link.mqtt import Endpoint
from edgeclient.settings import Mqtt

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: tools/test")
SCREENSHOTS = Path(__file__).parents[2] / ".ci" / "screenshots"
KEEPALIVE_S = 5
NOTES = ["training on version 3", "sending", "quiet hours until 07:00", "battery at 20 %, needs 30 % or a charger"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM, "chromium is not installed: apt install chromium"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab; it must end without an error of a script, and without having asked anybody else."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    errors: list[str] = []
    hosts: set[str] = set()
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda request: hosts.add(request.url.split("/")[2].partition(":")[0]))
    yield tab
    context.close()
    assert errors == []
    assert hosts <= {"127.0.0.1"}


def shoot(tab: Page, name: str) -> None:
    """The page as people see it: light, dark, and on a phone."""
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.screenshot(path=SCREENSHOTS / f"{name}-light.png", full_page=True)
    tab.emulate_media(color_scheme="dark")
    tab.screenshot(path=SCREENSHOTS / f"{name}-dark.png", full_page=True)
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size({"width": 360, "height": 780})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.screenshot(path=SCREENSHOTS / f"{name}-phone.png", full_page=True)
    tab.set_viewport_size({"width": 1280, "height": 900})


def faults(tab: Page) -> list[tuple[str, str, str]]:
    """What axe-core finds, of every weight."""
    found = Axe().run(tab).response["violations"]
    return [(each["impact"], each["id"], each["nodes"][0]["html"]) for each in found]


def filled(served_page: Served, devices: int = 250) -> None:
    """A fleet in all states, and a task with some rounds."""
    served_page.metrics.connected(up=True)
    with open_ledger(served_page.settings.ledger) as ledger:
        for number in range(1, 6):
            version = Version(number, "0" * 64, number, time.time(), 20, 20, 20, {})
            body = bytes(9000)
            ledger.admit([Entry(TASK, "d", 7, number, bytes(8), number, 0, 1, 0, 10, 20, None, body)], time.time())
            ledger.close_batch(TASK, ledger.open_contributions(TASK, 1), version)
            ledger.add_metrics(TASK, number, {"accuracy": 0.15 * number, "majority": 0.2})
    for number in range(devices):
        state = "offline" if number % 10 == 9 else "online"
        note = "connection lost" if state == "offline" else NOTES[number % 4]
        served_page.hear(f"device-{number:05}", state, note=note, version=number % 6, queued=number % 3, applied=number)
    served_page.metrics.answered(TASK, "applied", "")
    served_page.metrics.answered(TASK, "refused", "stale")


def test_the_demo_fleet_learns_live(page: Page, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "broker.cli", "demo", "--out", str(tmp_path / "out")]
    command += ["--seconds", "60", "--devices", "4"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert demo.stdout is not None
        told = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in demo.stdout)))
        page.goto(told[0])
        page.evaluate("window.here = 1")
        chart = page.locator("#by-version")
        expect(page.locator("#t-online")).to_have_text("4 of 4", timeout=30_000)
        expect(chart).to_have_attribute("aria-label", re.compile(r"to .* in version [1-9]"), timeout=30_000)
        number = int((chart.get_attribute("aria-label") or "").rpartition(" ")[2])
        before = page.locator("#by-version canvas").evaluate("canvas => canvas.toDataURL()")
        later = "|".join(str(number + more) for more in range(3, 100))
        expect(chart).to_have_attribute("aria-label", re.compile(f"to .* in version ({later})$"), timeout=30_000)
        assert page.locator("#by-version canvas").evaluate("canvas => canvas.toDataURL()") != before
        assert page.evaluate("window.here") == 1  # without a reload
        expect(page.locator("#rounds a").first).to_have_text(re.compile("person-"))
        expect(page.locator("#t-bytes")).to_have_text(re.compile(r"^[1-9].* kB$"))
        assert page.locator("#devices tr").count() == 4
        shoot(page, "demo")
        page.locator("#devices a").first.click()
        expect(page.locator("#d-facts")).to_contain_text("asked for 1 %")
        shoot(page, "demo-device")
    finally:
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)


def test_a_killed_device_is_offline_within_its_keep_alive(page: Page, tmp_path: Path, endpoint: Endpoint) -> None:
    task = "browser"
    fleet.add_task(Aggregator(tmp_path / "data", mqtt=Mqtt(port=endpoint.port)), task, fleet.BUNDLE, Task(goal=1))
    (tmp_path / "a.toml").write_text(f'directory = "data"\n[mqtt]\nport = {endpoint.port}\n[monitor]\nport = 0\n')
    command = [sys.executable, "-m", "broker.cli", "serve", str(tmp_path / "a.toml")]
    config = fleet.write_device(tmp_path, endpoint, "pi-7", task)
    config.write_text(config.read_text().replace("[mqtt]\n", f"[mqtt]\nkeepalive_s = {KEEPALIVE_S}\n"))
    log = tmp_path / "a.log"
    with fleet._guarded(children.spawn(command, log=log), log):
        until_s = time.monotonic() + 30
        while not (told := re.search(r"web page on (http://127\.0\.0\.1:\d+)", log.read_text())):
            assert time.monotonic() < until_s, log.read_text()
        page.goto(told[1])
        device = fleet.start_device(config)
        try:
            row = page.locator("#devices tr")
            expect(row.locator(".state")).to_have_text(re.compile("training|sending|waiting"), timeout=30_000)
            device.kill()
            expect(row.locator(".state")).to_have_text(re.compile("offline"), timeout=1000 * KEEPALIVE_S)
            expect(row).to_contain_text("connection lost, since")
            expect(page.locator("#events")).to_contain_text("is offline: connection lost")
            expect(page.locator("#t-online")).to_have_text("0 of 1")
        finally:
            children.end(device)


def test_it_finds_a_restarted_aggregator_again(page: Page, tmp_path: Path) -> None:
    with served(tmp_path) as before:
        filled(before, 5)
        page.goto(before.url)
        expect(page.locator("#t-online")).to_have_text("5 of 5")
    expect(page.locator("#link")).to_have_text("connection lost, trying again …")
    with served(tmp_path, port=before.port) as after:
        after.metrics.connected(up=True)
        after.hear("device-00000", note="sending")
        expect(page.locator("#link")).to_have_text("live", timeout=20_000)
        expect(page.locator("#t-online")).to_have_text("1 of 1")
        expect(page.locator("#devices tr")).to_have_count(1)


def test_tasks_come_and_go_while_it_is_open(page: Page, tmp_path: Path) -> None:
    with served(tmp_path) as served_page, open_ledger(served_page.settings.ledger) as ledger:
        filled(served_page, 3)
        page.goto(served_page.url)
        expect(page.locator("#task")).to_have_value(TASK)
        fleet.add_task(served_page.settings, "aside", fleet.BUNDLE, Task())
        expect(page.locator("#task option")).to_have_text(["aside", TASK])
        ledger.remove_task(TASK)
        expect(page.locator("#task")).to_have_value("aside")
        expect(page.locator("#found")).to_have_text("0 devices")
        assert page.url.endswith("/#aside")


def test_the_address_names_task_and_device(page: Page, tmp_path: Path) -> None:
    """It opens on the task that is alive; reload and back lead where one was; nothing is live before it is."""
    with served(tmp_path) as served_page:
        filled(served_page, 3)
        fleet.add_task(served_page.settings, "aside", fleet.BUNDLE, Task())  # newer, but nobody takes part
        page.goto(served_page.url)
        expect(page.locator("#task")).to_have_value(TASK)
        assert page.url.endswith(f"/#{TASK}")
        expect(page.locator("#result")).to_contain_text(f"edgebroker export {TASK} --version latest --onnx {TASK}.onnx")
        page.locator("#devices a").first.click()
        expect(page.locator("#d-name")).to_have_text("device-00000")
        assert page.url.endswith(f"/#{TASK}/device/device-00000")
        page.reload()
        expect(page.locator("#d-name")).to_have_text("device-00000")
        page.go_back()
        expect(page.locator("#devices tr")).to_have_count(3)
        page.locator("#task").select_option("aside")
        expect(page.locator("#found")).to_have_text("0 devices")
        assert page.url.endswith("/#aside")
        page.go_back()
        expect(page.locator("#task")).to_have_value(TASK)
        expect(page.locator("#found")).to_have_text("3 devices")
        page.goto(f"{served_page.url}/#nobody-knows-it")
        expect(page.locator("#link")).to_have_text("live")
        assert page.url.endswith(f"/#{TASK}")

        page.route("**/api/stream*", lambda _: None)  # neither answered nor refused
        page.reload()
        expect(page.locator("#t-version")).to_have_text("5")
        expect(page.locator("#link")).to_have_text("connecting …")


def test_nobody_is_shut_out(page: Page, tmp_path: Path) -> None:
    with served(tmp_path) as served_page:
        filled(served_page, 30)
        page.goto(f"{served_page.url}/#har/device/device-00003")
        expect(page.locator("#d-facts")).to_contain_text("Density")
        assert faults(page) == []
        page.goto(f"{served_page.url}/#")
        expect(page.locator("#devices tr")).to_have_count(30)
        assert faults(page) == []
        page.emulate_media(color_scheme="dark")
        assert faults(page) == []
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 360, "height": 780})
        assert faults(page) == []
        shoot(page, "fleet")


def test_it_works_without_a_mouse(page: Page, tmp_path: Path) -> None:
    with served(tmp_path) as served_page:
        filled(served_page)
        page.goto(served_page.url)
        expect(page.locator("#found")).to_have_text("250 devices")
        page.keyboard.press("Tab")
        expect(page.locator(".skip")).to_be_focused()
        page.locator("#states button", has_text="offline").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#found")).to_have_text("25 devices")
        page.locator("#search").focus()
        page.keyboard.type("00119")
        expect(page.locator("#found")).to_have_text("1 device")
        page.locator("#devices a").focus()
        served_page.hear("device-00119", "offline", note="the battery is empty")  # rows that change keep the focus
        expect(page.locator("#devices")).to_contain_text("the battery is empty")
        expect(page.locator("#devices a")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#d-name")).to_be_focused()
        expect(page.locator("#d-state")).to_contain_text("the battery is empty")
        page.go_back()
        expect(page.locator("#devices")).to_be_visible()


def test_what_devices_say_stays_text(page: Page, tmp_path: Path) -> None:
    script = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    with served(tmp_path) as served_page:
        filled(served_page, 0)
        served_page.hear("evil", note=script)
        page.goto(served_page.url)
        expect(page.locator("#devices")).to_contain_text(script)
        expect(page.locator("#reasons")).to_contain_text("onerror")
        page.goto(f"{served_page.url}/#har/device/evil")
        expect(page.locator("#d-story")).to_contain_text(script)
        page.goto(f"{served_page.url}/#har/device/<img src=x onerror=document.title='owned'>")
        expect(page.locator("#d-state")).to_contain_text("Nothing is known of it")
        assert page.title() == "edgebroker"
        assert page.locator("main img, main script").count() == 0


def test_the_token_lets_in(page: Page, tmp_path: Path) -> None:
    with served(tmp_path, Gate(TOKEN)) as served_page:
        filled(served_page)
        page.goto(served_page.url)
        assert faults(page) == []
        page.fill("#token", "a guess that is wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#wrong")).to_have_text("That is not the operator's token.")
        page.screenshot(path=SCREENSHOTS / "login.png")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#link")).to_have_text("live")
        assert page.evaluate("document.cookie") == ""
        assert TOKEN not in page.url


@pytest.mark.case("fleet 30")
@NEEDS_NGINX
@pytest.mark.parametrize("path", ["fleet", "kept"])
def test_it_lives_below_a_path_of_a_proxy(page: Page, tmp_path: Path, path: str) -> None:
    with served(tmp_path, Gate(TOKEN), base="/kept") as served_page, nginx(tmp_path, served_page.port) as port:
        filled(served_page, 3)
        page.goto(f"http://127.0.0.1:{port}/{path}/")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        expect(page.locator("#link")).to_have_text("live")
        assert page.url == f"http://127.0.0.1:{port}/{path}/#{TASK}"
        served_page.hear("newcomer", version=3)
        expect(page.locator("#t-online")).to_have_text("4 of 4", timeout=10_000)
        page.locator("#devices a").first.click()
        expect(page.locator("#d-name")).to_have_text("device-00000")


def test_ten_thousand_devices_are_light(page: Page, tmp_path: Path) -> None:
    with served(tmp_path) as served_page:
        filled(served_page, 10_000)
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        received: list[float] = []
        session.on("Network.loadingFinished", lambda event: received.append(event["encodedDataLength"]))
        page.add_init_script(
            "window.slow = []; new PerformanceObserver(list => list.getEntries().forEach(each =>"
            " window.slow.push(each.duration))).observe({type: 'longtask'})"
        )
        began_s = time.monotonic()
        page.goto(served_page.url)
        expect(page.locator("#devices tr")).to_have_count(100)
        shown_s = time.monotonic() - began_s
        expect(page.locator("#t-online")).to_have_text("9,000 of 10,000")
        assert sum(received) <= 200_000
        assert shown_s < 3  # 0.3 s when nothing else runs
        page.evaluate("window.slow = []")
        until_s = time.monotonic() + 3
        number = 0
        while time.monotonic() < until_s:  # every one of them says something new meanwhile
            for _ in range(500):
                number += 1
                served_page.hear(f"device-{number % 10_000:05}", note=NOTES[number % 4], applied=number)
            page.locator("#search").fill(f"{number % 10}")
        slow: list[Any] = page.evaluate("window.slow")
        assert max(slow, default=0) < 300, slow
        assert page.locator("#devices tr").count() <= 100
