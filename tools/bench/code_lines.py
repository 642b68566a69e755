"""How much code a device carries."""

import io
import tokenize
from pathlib import Path
from typing import Final

from grimp import build_graph

ROOT: Final = Path(__file__).parents[2]
DEVICE: Final = "edgeclient.agent"


def device_code_lines() -> int:
    """Lines of code, without docstrings, comments and blanks, of all that `edgeclient.agent` imports, lazily or not."""
    graph = build_graph("edgeclient", cache_dir=None)
    places = [ROOT.joinpath(*name.split(".")) for name in graph.find_upstream_modules(DEVICE) | {DEVICE}]
    paths = [place / "__init__.py" if place.is_dir() else place.with_suffix(".py") for place in places]
    return sum(code_lines(path.read_text()) for path in paths)


def code_lines(source: str) -> int:
    """Those of one module."""
    code: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT}:
            continue
        if token.type in {tokenize.NEWLINE, tokenize.ENDMARKER}:
            if any(each.type != tokenize.STRING for each in statement):  # strings alone are docstrings
                code |= {line for each in statement for line in range(each.start[0], each.end[0] + 1)}
            statement.clear()
        else:
            statement.append(token)
    return len(code)
