"""Every key that may be set, for people and programs: read from what holds them to their limits (settings.keys)."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import attrs

from edgeclient.settings.keys import PRESETS, Source
from edgeclient.wire import fields
from edgeclient.wire.fields import Rule

_UNITS: Final = {
    "_bytes_per_day": "bytes a day",
    "_bytes": "bytes",
    "_percent": "%",
    "_c": "°C",
    "_s": "s",
    "_seconds": "s",
}
_KINDS: Final = {bool: "boolean", str: "string", Path: "path", Source: "path", dict: "table", tuple: "list"}
_INDENT: Final = " " * 4


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a configuration.

    Attributes:
        key: its place, such as "mqtt.port".
        kind: what it takes: "integer", "path" …
        about: one sentence.
        default: as TOML would have it; None when there is none.
        required: whether it must be given.
        presets: the default of each preset, where those differ.
        unit: "" for none.
        low: least number.
        high: largest number.
        choices: all that it takes.
    """

    key: str
    kind: str
    about: str
    default: Any = None
    required: bool = False
    presets: Mapping[str, Any] = field(default_factory=dict)
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def text(self) -> str:
        """Two lines for people.

        Example:
            >>> print(Key("mqtt.keepalive_s", "integer", "half of it passes between pings", 30, unit="s", low=5).text())
            mqtt.keepalive_s = 30 s    integer, 5 or more
                half of it passes between pings
        """
        value = "    required" if self.required else "" if self.default is None else f" = {_toml(self.default)}"
        if self.presets:
            value = f" = {' | '.join(_toml(each) for each in self.presets.values())} ({' | '.join(self.presets)})"
        limits = f", {_limit(self.low)} or more" if self.low is not None else ""
        if self.high is not None:
            limits = f", {_limit(self.low)} to {_limit(self.high)}"
        kind = " | ".join(_toml(each) for each in self.choices) or self.kind
        return f"{self.key}{value}{f' {self.unit}' if self.unit else ''}    {kind}{limits}\n{_indented(self.about)}"


def keys_of(kind: type, prefix: str = "") -> Iterator[Key]:
    """Every key of a table, those of the tables in it last."""
    if is_dataclass(kind):
        for name, each in fields.of(kind).items():
            yield _key(prefix + name, None, each.rule, each.about, _given(each.default))
        return
    tables = []
    for each in attrs.fields(kind):
        if (table := _table(each.type)) is not None:
            tables.append((each, table))
            continue
        default, presets = each.default, each.metadata.get(PRESETS, {})
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever the stubs say
            default = getattr(kind(), each.name) if default.takes_self else default.factory()
        about = each.metadata.get("about", "")
        yield _key(prefix + each.name, each.type, each.metadata.get("rule"), about, _given(default), presets)
    for each, table in tables:
        yield from keys_of(table, f"{prefix}{each.name}.")


def told(keys: Iterable[Key], kind: type) -> Iterator[str]:
    """Keys for people, each table with what its class says of it."""
    tables, last = dict(_tables(kind)), ""
    for each in keys:
        table = each.key.partition(".")[0] if "." in each.key else ""
        if table != last:
            yield f"[{table}]\n{_indented(tables[table])}"
        last = table
        yield each.text()


def matching(keys: Iterable[Key], word: str) -> list[Key]:
    """Those whose place, sentence or choices contain a word, in any case."""
    said = word.lower()
    return [each for each in keys if any(said in text.lower() for text in (each.key, each.about, *each.choices))]


def _key(place: str, kind: Any, rule: Rule | None, about: str, default: Any, presets: Mapping[str, Any] = {}) -> Key:
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    named = rule.kind if rule is not None else "string" if choices else _kind(kind)
    unit = next((unit for ending, unit in _UNITS.items() if place.endswith(ending)), "")
    limits = (None, None) if rule is None else (rule.low, rule.high)
    missing = default is MISSING
    return Key(place, named, about, None if missing else default, missing, presets, unit, *limits, choices)


def _indented(about: str) -> str:
    return textwrap.fill(about, 110, initial_indent=_INDENT, subsequent_indent=_INDENT, break_long_words=False)


def _tables(kind: type) -> Iterator[tuple[str, str]]:
    for each in attrs.fields(kind):
        if (table := _table(each.type)) is not None:
            yield each.name, (table.__doc__ or "").partition("\n")[0]


def _table(kind: Any) -> Any:
    """The class of a table's keys, or None for what is no table."""
    return next((each for each in (kind, *get_args(kind)) if attrs.has(each) or is_dataclass(each)), None)


def _kind(kind: Any) -> str:
    (wanted, *_) = [each for each in (get_args(kind) or (kind,)) if each is not type(None)]
    if get_origin(kind) in _KINDS:
        wanted = get_origin(kind)
    return _KINDS.get(wanted, str(wanted))


def _given(default: Any) -> Any:
    if default in (attrs.NOTHING, MISSING):
        return MISSING
    return str(default) if isinstance(default, Path) else list(default) if isinstance(default, tuple) else default


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return _limit(value) if isinstance(value, int | float) else str(value)


def _limit(value: float | None) -> str:
    """Example: 2^40 rather than 1099511627776."""
    if isinstance(value, int) and value >= 1 << 20 and value & (value - 1) == 0:
        return f"2^{value.bit_length() - 1}"
    return f"{value:.12g}" if isinstance(value, float) else str(value)
