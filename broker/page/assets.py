"""The files of the page; all of it is in static/."""

import hashlib
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Final

from broker.page.site import HTML, Answer, Query, Route

_KINDS: Final = {
    ".html": HTML,
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOLDER: Final = files("broker.page") / "static"


def files_of_page() -> dict[str, Route]:
    """The files of the page by their address, read once."""
    found: dict[str, Route] = {}
    for place, prefix in ((_FOLDER, "/"), (_FOLDER / "uplot", "/uplot/")):
        for each in place.iterdir():
            kind = _KINDS.get(Path(each.name).suffix)
            if kind is not None and each.name != "login.html":
                found["/" if each.name == "index.html" else prefix + each.name] = _asset(kind, each.read_bytes())
    return found


def _asset(kind: str, body: bytes) -> Route:
    answer = Answer(200, kind, body, hashlib.sha256(body).hexdigest()[:16])

    async def route(_: Query) -> Answer:
        return answer

    return route


def login(wrong: str) -> Answer:
    """The form, with what was wrong."""
    form = (_FOLDER / "login.html").read_text()
    return Answer(401, HTML, form.replace("<!-- wrong -->", escape(wrong)).encode())
