"""JSON objects from outside: what may stand in a key is said once, beside the value that it becomes.

A dataclass says it in its annotations; reader, writer and the tables of FORMAT.md follow from them.

Example:
    >>> from typing import Annotated
    >>> @dataclass(frozen=True)
    ... class Piece:
    ...     size: Annotated[int, integer(1, 100), "bytes"]
    ...     first: Annotated[bool, FLAG, "whether it begins the file"] = False
    >>> decode(Piece, json_object(b'{"size": 7, "later": null}'), "piece"), encode(Piece(7))
    (Piece(size=7, first=False), {'size': 7})
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Final, TypeVar, get_args, get_type_hints

from edgeclient.wire.errors import WireError

T = TypeVar("T")
MAX_EXACT: Final = 1 << 53  # what every JSON reader holds exactly


@dataclass(frozen=True, slots=True)
class Rule:
    """What may stand in a key.

    Attributes:
        kind: as FORMAT.md calls it.
        read: from the value that JSON gave, and its path for errors, to the value that it becomes.
        low: least number.
        high: largest number.
    """

    kind: str
    read: Callable[[Any, str], Any]
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A key of a JSON object; `default` is MISSING where it must be there."""

    rule: Rule
    about: str
    default: Any


def integer(low: int, high: int) -> Rule:
    """low <= value <= high; neither true nor 1.0."""

    def read(value: Any, path: str) -> Any:
        return _within(_exactly(value, path, int), path, low, high)

    return Rule("integer", read, low, high)


def number(low: float, high: float) -> Rule:
    """low <= value <= high, and so neither NaN nor infinite."""

    def read(value: Any, path: str) -> float:
        return float(_within(_exactly(value, path, int, float), path, low, high))

    return Rule("number", read, low, high)


def text(longest: int, *, cut: bool = False) -> Rule:
    """At most so many characters; what is longer is refused, or else cut."""

    def read(value: Any, path: str) -> str:
        given: str = _exactly(value, path, str)
        if len(given) > longest and not cut:
            raise WireError("range", f"{path} has {len(given)} characters, at most {longest} are allowed")
        return given[:longest]

    return Rule("string", read)


def checked(check: Callable[[str], str]) -> Rule:
    """A string that `check` gives back; it raises WireError for others."""
    return Rule("string", lambda value, path: check(_exactly(value, path, str)))


def choice(*words: str) -> Rule:
    """One of these."""

    def read(value: Any, path: str) -> str:
        if _exactly(value, path, str) not in words:
            raise WireError("range", f"{path} is {value[:40]!r}, allowed are {', '.join(words)}")
        return str(value)

    return Rule("string", read)


def pattern(regex: str, like: str) -> Rule:
    """A string that a regular expression matches whole; `like` shows one."""

    def read(value: Any, path: str) -> str:
        if not re.fullmatch(regex, _exactly(value, path, str)):
            raise WireError("range", f"{path} is {value[:40]!r}, wanted is one like {like!r}")
        return str(value)

    return Rule("string", read)


def hexadecimal(digits: int) -> Rule:
    """So many digits, in lower case."""

    def read(value: Any, path: str) -> str:
        if len(_exactly(value, path, str)) != digits or set(value) - set("0123456789abcdef"):
            raise WireError("range", f"{path} must be {digits} hexadecimal digits")
        return str(value)

    return Rule(f"{digits} hex digits", read)


def array(of: Rule, longest: int = MAX_EXACT) -> Rule:
    """A tuple of what `of` allows."""

    def read(value: Any, path: str) -> tuple[Any, ...]:
        if len(_exactly(value, path, list)) > longest:
            raise WireError("range", f"{path} has {len(value)} elements, at most {longest} are allowed")
        return tuple([of.read(each, f"{path}[{index}]") for index, each in enumerate(value)])

    return Rule("array", read)


def row(*rules: Rule) -> Rule:
    """An array of as many elements as rules, each as its rule allows."""

    def read(value: Any, path: str) -> tuple[Any, ...]:
        if len(_exactly(value, path, list)) != len(rules):
            raise WireError("range", f"{path} has {len(value)} elements, not {len(rules)}")
        return tuple(rule.read(each, path) for rule, each in zip(rules, value, strict=True))

    return Rule("array", read)


def table(of: Rule) -> Rule:
    """An object with any keys, and in each what `of` allows."""

    def read(value: Any, path: str) -> dict[str, Any]:
        return {key: of.read(each, f"{path}.{key[:80]}") for key, each in _exactly(value, path, dict).items()}

    return Rule("object", read)


def record(kind: type, *, whole: bool = False) -> Rule:
    """An object that becomes a dataclass; whole ones have all its keys and no others."""
    return Rule(
        "object", lambda value, path: decode(kind, _exactly(value, path, dict), path, whole=whole, closed=whole)
    )


def nullable(rule: Rule) -> Rule:
    """What `rule` allows, or null."""
    return Rule(
        f"{rule.kind} or null",
        lambda value, path: None if value is None else rule.read(value, path),
        rule.low,
        rule.high,
    )


def _flag(value: Any, path: str) -> Any:
    return _exactly(value, path, bool)


FLAG: Final = Rule("boolean", _flag)
# Worked out once: an aggregator reads thousands of statuses a second.
_KNOWN: Final[dict[type, dict[str, Field]]] = {}


def of(kind: type) -> dict[str, Field]:
    """The keys of a dataclass that JSON knows: those whose annotation has a rule."""
    if (known := _KNOWN.get(kind)) is not None:
        return known
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for each in fields(kind):
        said = get_args(hints[each.name])
        if len(said) > 2 and isinstance(said[1], Rule):
            found[each.name] = Field(said[1], said[2], each.default)
    return _KNOWN.setdefault(kind, found)


def encode(value: Any, *, whole: bool = False) -> dict[str, Any]:
    """A dataclass as a JSON object; what has its default is left out, unless the outermost object is to be whole."""
    told = {key: getattr(value, key) for key in of(type(value))}
    return {
        key: encode(each) if is_dataclass(each) else each
        for key, each in told.items()
        if whole or each != of(type(value))[key].default
    }


def decode(kind: type[T], values: Mapping[str, Any], path: str, *, whole: bool = False, closed: bool = False) -> T:
    """The dataclass in a JSON object.

    Args:
        kind: the dataclass.
        values: what `json_object` gave.
        path: how errors call it.
        whole: keys with a default must be there as well.
        closed: unknown keys are refused rather than left alone.

    Raises:
        WireError: "json" for a wrong type or a missing key, "range" for a value outside its limits.
    """
    return kind(**read(of(kind), values, path, whole=whole, closed=closed))


def read(
    known: Mapping[str, Field], values: Mapping[str, Any], path: str, *, whole: bool = False, closed: bool = False
) -> dict[str, Any]:
    """The values of the keys that are there; see `decode`."""
    found = {}
    for key, each in known.items():
        if key in values:
            found[key] = each.rule.read(values[key], f"{path}.{key}")
        elif whole or each.default is MISSING:
            raise WireError("json", f"{path}.{key} is missing")
    if closed and (unknown := values.keys() - known.keys()):
        raise WireError("json", f"{path}.{min(unknown)[:80]} is unknown")
    return found


def check(value: Any) -> None:
    """ValueError unless every field of a dataclass is within its limits."""
    for key, each in of(type(value)).items():
        try:
            each.rule.read(getattr(value, key), key)
        except WireError as error:
            raise ValueError(error.detail) from None


def _exactly(value: Any, path: str, *kinds: type) -> Any:
    if type(value) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise WireError("json", f"{path} must be {wanted}, not {str(value)[:40]!r}")
    return value


def _within(value: Any, path: str, low: float, high: float) -> Any:
    if not low <= value <= high:
        raise WireError("range", f"{path} is {str(value)[:40]}, allowed are {low} to {high}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice")
    return made


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# Made once: json.loads would make one for every message, which costs as much as reading a status.
_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`; duplicate keys, NaN and deep nesting are refused.

    Raises:
        WireError: "json".
    """
    try:
        value = _JSON.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise WireError("json", str(error) or "nested too deeply") from None
    return _exactly(value, "the message", dict)  # type: ignore[no-any-return]  # a dict, as asked


def json_bytes(values: Mapping[str, Any]) -> bytes:
    """One line of canonical JSON: sorted keys, no spaces."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
