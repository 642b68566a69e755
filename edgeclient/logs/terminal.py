"""Text as the terminal can show it: what its encoding lacks is written another way, and never ends a command."""

import codecs
import io
import sys
import unicodedata
from typing import Final

_NAME: Final = "edgeclient.terminal"
_ASCII: Final = "edgeclient_ascii"
# Those that no decomposition turns into ASCII.
_INSTEAD: Final = str.maketrans(
    {
        "→": "->",
        "←": "<-",
        "−": "-",
        "·": "-",
        "×": "x",
        "÷": "/",
        "≤": "<=",
        "≥": ">=",
        "±": "+-",
        "°": " deg",
        "✕": "x",
    }
)


def plain(text: str) -> str:
    """The same in ASCII, as far as it goes.

    Example:
        >>> plain("0.5 → 0.25 … café, 你")
        '0.5 -> 0.25 ... cafe, ?'
    """
    decomposed = unicodedata.normalize("NFKD", text.translate(_INSTEAD))
    return "".join(each if each.isascii() else "?" for each in decomposed if not unicodedata.combining(each))


def adapt() -> None:
    """From now on both outputs take any text, names of files that are no text included."""
    codecs.register_error(_NAME, _replaced)
    codecs.register(_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not one that a test has put there
            is_ascii = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=_ASCII if is_ascii else stream.encoding, errors=_NAME)


def _ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII by another name: click writes UTF-8 to what calls itself ASCII."""
    found = codecs.lookup("ascii")
    incremental = (found.incrementalencoder, found.incrementaldecoder)
    return codecs.CodecInfo(*found, *incremental, name=_ASCII) if name == _ASCII else None


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return plain(error.object[error.start : error.end]), error.end
