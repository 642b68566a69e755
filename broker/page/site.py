"""What is served: answers by address, and the changes that follow; how they travel is the server's."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status code, content type, body; a tag for contents that change with the program alone."""

    code: int
    kind: str
    body: bytes
    tag: str = ""


Query: TypeAlias = Mapping[str, str]
Route: TypeAlias = Callable[[Query], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Site:
    """What is served.

    Attributes:
        routes: answers to GET by path.
        stream: server-sent events, as dictionaries, for the query of `/api/stream`.
        login: the form, with what was wrong.
        public: paths that need no token.
        base: path below which all of it is found as well, for a proxy that passes it on; "" or "/…".
    """

    routes: Mapping[str, Route]
    stream: Callable[[Query], AsyncIterator[dict[str, Any]]] | None = None
    login: Callable[[str], Answer] | None = None
    public: frozenset[str] = frozenset({"/healthz", "/readyz"})
    base: str = ""

    def local(self, path: str) -> str:
        """A path without the base.

        Example:
            >>> Site({}, base="/fleet").local("/fleet/metrics"), Site({}, base="/fleet").local("/fleeting")
            ('/metrics', '/fleeting')
        """
        return path.removeprefix(self.base) if path.startswith(f"{self.base}/") else path


def verdict(wrong: str) -> Answer:
    """What a probe is told.

    Example:
        >>> verdict(""), verdict("no room").code
        (Answer(code=200, kind='text/plain; charset=utf-8', body=b'ok\\n', tag=''), 503)
    """
    return told(503 if wrong else 200, wrong or "ok")


def told(code: int, line: str) -> Answer:
    """One line of text."""
    return Answer(code, TEXT, f"{line}\n".encode())


def as_json(value: Any) -> Answer:
    """A JSON value."""
    return Answer(200, _JSON, json.dumps(value, separators=(",", ":"), allow_nan=False).encode())
