"""The commands `edgeclient frame dump` and `edgeclient frame stats`: what is in a frame, and where its bits go."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeclient.bundle import archive
from edgeclient.bundle.layout import Layout
from edgeclient.commands.options import JSON
from edgeclient.wire import frame
from edgeclient.wire.errors import WireError
from edgeclient.wire.frame import Frame, write_values
from edgeclient.wire.reader import Field

_SHOWN = 12
_CHECKSUM = 4
_BUNDLE = click.option(
    "--bundle",
    "bundle_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Training bundle of the task: its layout, which frames must name, and those coded by tensor need.",
)


@click.group("frame")
def frame_command() -> None:
    """Look into frames: the bytes that devices upload.

    A file holds one frame as bytes, or several in hexadecimal digits, one a line.

    \b
    Example:
      mosquitto_sub -t 'edge/v1/har/up/+' -F %x -C 1 > up.hex
      edgeclient frame dump up.hex --bundle har.bundle
    """


@frame_command.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@_BUNDLE
@JSON
def dump(file: Path, bundle_file: Path | None, *, as_json: bool) -> None:
    """Print the frames in FILE field by field: offset, bytes, name, meaning; then positions and values.

    The first entries are shown; --json has them all.

    \b
    Example:
      edgeclient frame dump up.hex --bundle har.bundle
    """
    layout = _layout(bundle_file)
    told = [_described(data, layout) for data in _frames(file)]
    if not told:
        raise WireError("truncated", f"{file} is empty: it holds no frame")
    if as_json:
        click.echo(json.dumps({"file": str(file), "frames": told}))
        return
    for each in told:
        for field in each["fields"]:
            shown = field["hex"][: 2 * _SHOWN] + ("…" if len(field["hex"]) > 2 * _SHOWN else "")
            click.echo(f"{field['offset']:6}  {shown:<26} {field['name']:<38} {field['meaning']}".rstrip())
        shown = zip(each["positions"][:_SHOWN], each["values"], strict=False)
        more = each["entries"] - _SHOWN
        for position, value in shown:
            click.echo(f"{'':6}  {'entry':<26} {position:<38} {value:.9g}")
        if more > 0:
            click.echo(f"{'':6}  and {more} more")
        if each["absolute"] is not None:
            first, values = each["absolute"]
            shown = ", ".join(f"{value:.6g}" for value in values[:_SHOWN])
            more_of_them = ", …" if len(values) > _SHOWN else ""
            click.echo(f"{len(values)} absolute values from number {first} on: {shown}{more_of_them}")
        low, high = each["magnitudes"]
        click.echo(
            f"{each['entries']} of {each['size']} entries in {each['bytes']} bytes, {each['mode']},"
            f" magnitudes {low:.6g} to {high:.6g}\n"
        )


@frame_command.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False, exists=True))
@_BUNDLE
@JSON
def stats(directory: Path, bundle_file: Path | None, *, as_json: bool) -> None:
    """Say where the bits of all frames in the files of DIRECTORY went, per entry and beside the least possible.

    The floor is log2 C(n, k) / k, the bits of a position where nothing is known about positions.

    \b
    Example:
      edgeclient frame stats uploads --bundle har.bundle --json
    """
    layout = _layout(bundle_file)
    rows: dict[str, _Row] = {}
    for path in sorted(each for each in directory.iterdir() if each.is_file()):
        for data in _frames(path):
            made, trace = _decoded(data, layout)
            rows.setdefault(_mode(made), _Row(Counter())).add(made, trace, len(data))
    if not rows:
        raise WireError("truncated", f"{directory} holds no frames")
    summary = [{"values": mode, **row.summary()} for mode, row in sorted(rows.items())]
    if as_json:
        click.echo(json.dumps({"directory": str(directory), "rows": summary}))
        return
    for row in summary:
        click.echo(f"{row['values']}: {row['frames']} frames, {row['entries']} entries, {row['bytes']} bytes")
        for name in ("bits", "header_bits", "positions_bits", "values_bits", "context_bits", "floor_bits"):
            click.echo(f"  {name.replace('_', ' '):<16}{row[name]:8.3f} per entry")


@dataclass(slots=True)
class _Row:
    """Totals over frames of one value mode."""

    bits: Counter[str]
    frames: int = 0
    entries: int = 0
    size: int = 0
    floor: float = 0.0

    def add(self, made: Frame, trace: list[Field], size: int) -> None:
        self.frames += 1
        self.size += size
        k, n = made.update.indices.size, made.update.size
        if made.parts > 1:  # the positions of a part are only unknown within it
            n = int(made.update.indices[-1] - made.update.indices[0]) + 1
        self.entries += k
        self.floor += (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)
        for field in trace:
            self.bits[group_of(field.name)] += 8 * (field.end - field.start)
        self.bits["header"] += 8 * _CHECKSUM

    def summary(self) -> dict[str, Any]:
        groups = ("header", "positions", "values", "context")
        return {
            "frames": self.frames,
            "entries": self.entries,
            "bytes": self.size,
            "bits": 8 * self.size / self.entries,
            **{f"{group}_bits": self.bits[group] / self.entries for group in groups},
            "floor_bits": self.floor / self.entries,
        }


def group_of(name: str) -> str:
    """What the bits of a field are spent on: header, positions, values, or context, which is all of an entry."""
    if "context" in name:
        return "context"
    group = name.partition(":")[0]
    return group if group in {"positions", "values"} else "header"


def _layout(bundle_file: Path | None) -> Layout | None:
    return None if bundle_file is None else archive.decode(bundle_file.read_bytes()).manifest.layout


def _frames(file: Path) -> Iterator[bytes]:
    content = file.read_bytes()
    if content[:2] == b"EC":
        yield content
        return
    try:
        yield from (bytes.fromhex(line) for line in content.decode("ascii").splitlines() if line.strip())
    except ValueError:
        raise WireError("magic", f"{file} holds neither a frame nor hexadecimal digits") from None


def _decoded(data: bytes, layout: Layout | None) -> tuple[Frame, list[Field]]:
    trace: list[Field] = []
    opened = frame.Opened(data, trace=trace)
    if layout is not None and (tag := opened.header.layout_tag) != layout.tag:
        raise WireError("layout", f"a frame of another layout, {tag.hex()}: that of the bundle is {layout.tag.hex()}")
    try:
        return opened.decode(None if layout is None else layout.tensors), trace
    except WireError as error:
        if error.reason == "layout" and layout is None:
            raise WireError("layout", "a frame is coded by tensor: name its task's bundle with --bundle") from None
        raise


def _mode(made: Frame) -> str:
    return f"{write_values.MODES[write_values.mode(made.update.values)]} v{made.wire_version}"


def _described(data: bytes, layout: Layout | None) -> dict[str, Any]:
    made, trace = _decoded(data, layout)
    meanings = {
        "address": f"{made.address:#010x}",
        "layout tag": made.layout_tag.hex(),
        "epoch": f"{made.epoch:#018x}",
        "examples": str(made.num_examples),
        "size": str(made.update.size),
        "version": str(made.wire_version),
        **{name: str(getattr(made, name.replace(" ", "_"))) for name in ("sequence", "number", "base version")},
        "part": f"{made.part} of {made.parts}",
    }
    decoded = made.update.values.decoded()
    fields = [*trace, Field("checksum", len(data) - _CHECKSUM, len(data))]
    return {
        "bytes": len(data),
        "size": made.update.size,
        "entries": int(made.update.indices.size),
        "mode": _mode(made),
        "magnitudes": [float(np.abs(decoded).min()), float(np.abs(decoded).max())],
        "absolute": None if made.absolute is None else [made.absolute.first, made.absolute.values.tolist()],
        "positions": made.update.indices.tolist(),
        "values": decoded.tolist(),
        "fields": [
            {
                "offset": field.start,
                "bytes": field.end - field.start,
                "hex": data[field.start : field.end].hex(),
                "name": field.name,
                "meaning": meanings.get(field.name, ""),
            }
            for field in fields
        ],
    }
