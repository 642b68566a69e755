"""A web page over a ledger and a watch without devices or a broker, for tests that tell it what they like."""

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import fleet

from broker.monitor.metrics import Metrics
from broker.page import routes
from broker.page.gate import Gate
from broker.page.server import serving
from broker.settings import Aggregator, Task
from edgeclient.settings import Mqtt
from edgeclient.wire import status, topics
from edgeclient.wire.status import Status

TOKEN = "0123456789abcdef-token"
TASK = "har"


class Answer(NamedTuple):
    """An answer, read to its end."""

    status: int
    headers: Message
    text: bytes


@dataclass
class Page:
    """A served page, and the ledger and the watch behind it."""

    port: int
    settings: Aggregator
    metrics: Metrics
    trusts: Path | None = None  # whose certificates a proxy before it has

    def ask(self, path: str, *, method: str = "GET", body: str | bytes | None = None, **headers: str) -> Answer:
        """Header names may be written with underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        if self.trusts is not None:
            context = ssl.create_default_context(cafile=str(self.trusts))
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=context)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def json(self, path: str, **query: Any) -> Any:
        answer = self.ask(f"{path}?{urlencode({'task': TASK, **query})}")
        assert answer.status == 200, answer.text
        return json.loads(answer.text)

    def hear(self, device: str, state: str = "online", session: str = "s", **values: Any) -> None:
        self.metrics.heard(topics.status(TASK, device), status.encode(Status(state, session, **values)))


@contextmanager
def served(folder: Path, gate: Gate | None = None, port: int = 0, base: str = "") -> Iterator[Page]:
    settings = Aggregator(folder / "data", mqtt=Mqtt())
    if not settings.ledger.exists():
        fleet.add_task(settings, TASK, fleet.BUNDLE, Task(goal=2))
    with (
        routes.reading(settings.ledger, settings.registry) as (metrics, site),
        serving("127.0.0.1", port, replace(site, base=base), gate) as url,
    ):
        metrics.task(TASK, 4 * fleet.LAYOUT.size)
        metrics.version(TASK, 0, 0.0)
        yield Page(int(url.rsplit(":", 1)[1]), settings, metrics)
