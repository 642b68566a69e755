"""TOML in, frozen objects out; an unknown key is an error that names the file, the key and the nearest right one."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import attrs
import cattrs

from edgeclient import files
from edgeclient.settings.keys import Source

T = TypeVar("T")
_NAMES: Final = {"classes", "columns", "group", "labels"}  # of [data.options]: several names with commas between


class ConfigError(Exception):
    """A configuration cannot be used; one line that says which file, which key and what to do."""


def nearest(name: str, known: Collection[str], prefix: str = "") -> str:
    """What to say to somebody who has named something unknown.

    Example:
        >>> nearest("sorce", ["source", "options"], "data."), nearest("port", ["source", "options"])
        ('did you mean data.source?', 'known are source, options')
    """
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(known)}"


def word(key: str, text: str) -> Any:
    """A value that somebody has typed for a key: as TOML or JSON has it; words need no quotes, names no brackets.

    Example:
        >>> word("window", "128"), word("labels", "activity"), word("data.classes", "rest, run")
        (128, 'activity', ['rest', 'run'])
        >>> word("classes", '["rest", "run"]'), word("query", "SELECT a, b FROM readings")
        (['rest', 'run'], 'SELECT a, b FROM readings')
    """
    with suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(f"value = {text}")["value"]
    with suppress(ValueError):
        return json.loads(text)
    if "," in text and key.rpartition(".")[2] in _NAMES:
        return [each.strip() for each in text.strip("[]").split(",")]
    return text


def load(path: Path, kind: type[T]) -> T:
    """The TOML file at `path` as `kind`; relative paths in it start from the file's folder.

    Raises:
        ConfigError: missing, not UTF-8, not TOML, an unknown or missing key, a wrong type or value.
    """
    try:
        values = tomllib.loads(files.text(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return structure(values, kind, where=str(path), folder=path.parent)


def structure(values: Mapping[str, Any], kind: type[T], *, where: str, folder: Path = Path()) -> T:
    """`values` as `kind`; `where` names their origin in errors. See `load`."""
    _check_keys(values, kind, where, "")
    try:
        return _converter(folder).structure(values, kind)
    except Exception as error:  # noqa: BLE001 (cattrs groups whatever validators raise)
        reason, _, place = cattrs.transform_error(error, path="", format_exception=_reason)[0].rpartition(" @ ")
        raise ConfigError(": ".join(filter(None, [where, place.lstrip("."), reason]))) from None


@lru_cache(maxsize=4)
def _converter(folder: Path) -> cattrs.Converter:
    """Making one takes 20 ms."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(Path, lambda value, _: folder / _strict(value, str))
    converter.register_structure_hook_func(lambda kind: kind is Source, lambda value, _: _source(value, folder))
    for number in (int, float):  # int | "auto", written as a Literal
        hook = partial(_auto_or, number, converter)
        converter.register_structure_hook(number | Literal["auto"], hook)
    converter.register_structure_hook_func(lambda kind: kind == dict[str, Any], _table)
    for exact in (str, int, bool):
        converter.register_structure_hook(exact, _strict)
    converter.register_structure_hook(float, lambda value, _: float(_strict(value, int, float)))
    return converter


def _source(value: Any, folder: Path) -> Source:
    source = _strict(value, str)
    module, _, name = source.rpartition(":")
    is_module = bool(module) and name.isidentifier() and not module.endswith(".py")
    return Source(source if is_module else str(folder / source))


def _table(value: Any, _: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is no table")
    return dict(value)


def _auto_or(number: type, converter: cattrs.Converter, value: Any, _: Any) -> Any:
    if isinstance(value, str) and value != "auto":
        raise ValueError(f'{value!r} is neither {number.__name__} nor "auto"')
    return value if value == "auto" else converter.structure(value, number)


def _strict(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise ValueError(f"{value!r} is not {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _check_keys(values: Any, kind: type, where: str, prefix: str) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: {prefix.rstrip('.') or 'the file'} must be a table")
    known = {field.name: field for field in (attrs.fields if attrs.has(kind) else dataclasses.fields)(kind)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {prefix}{key}: {nearest(key, known, prefix)}")
        part = known[key].type
        if isinstance(part, type) and (attrs.has(part) or dataclasses.is_dataclass(part)):
            _check_keys(value, part, where, f"{prefix}{key}.")
    for name, field in known.items():
        if field.default in (attrs.NOTHING, dataclasses.MISSING) and name not in values:
            raise ConfigError(f"{where}: {prefix}{name} is missing")


def _reason(error: BaseException, _: Any) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
