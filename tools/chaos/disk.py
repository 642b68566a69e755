"""A disk that loses power: what was synced is there, of the rest an arbitrary part. No real files until asked for.

Pessimistic, as POSIX allows: a file's name is only as durable as its folder was synced, even if the file was; of
unsynced writes any subset of pages may have arrived, torn at sectors; unsynced names arrive in order, up to a point.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tools.chaos.oplog import ROOT, Link, Mark, Operation, Resize, Sync, Unlink, Write

_PAGE: Final = 4096
_SECTOR: Final = 512
# How much of what is unsynced arrives: nothing, everything, or something between.
_CHANCES: Final = (0.0, 0.1, 0.5, 0.9, 1.0)


@dataclass(slots=True)
class _File:
    content: bytearray = field(default_factory=bytearray)
    pending: list[Write | Resize] = field(default_factory=list)


@dataclass(slots=True)
class _Folder:
    names: dict[str, int] = field(default_factory=dict)
    pending: list[Link | Unlink] = field(default_factory=list)


class Disk:
    """What is durable and what is pending after some operations.

    Example:
        >>> disk = Disk()
        >>> synced = [Link(ROOT, "a", 1, is_folder=False), Write(1, 0, b"x"), Sync(1), Sync(ROOT)]
        >>> for each in [*synced, Write(1, 0, b"y")]:
        ...     disk.apply(each)
        >>> sorted({disk.survivor(random.Random(seed))["a"] for seed in range(20)})
        [b'x', b'y']
    """

    def __init__(self) -> None:
        self._nodes: dict[int, _File | _Folder] = {ROOT: _Folder()}

    def apply(self, operation: Operation) -> None:
        """Do it to the page cache, or, for a Sync, to the disk."""
        if isinstance(operation, Mark):
            return
        if isinstance(operation, Sync):
            _sync(self._nodes[operation.node])
            return
        if isinstance(operation, Link | Unlink):
            if isinstance(operation, Link) and operation.node not in self._nodes:
                self._nodes[operation.node] = _Folder() if operation.is_folder else _File()
            folder = self._nodes[operation.folder]
            assert isinstance(folder, _Folder)
            folder.pending.append(operation)
            return
        file = self._nodes[operation.node]
        assert isinstance(file, _File)
        file.pending.append(operation)

    def survivor(self, rng: random.Random) -> dict[str, bytes | None]:
        """What is found after the power cut: content by path, None for a folder."""
        found: dict[str, bytes | None] = {}
        self._walk(ROOT, "", rng, rng.choice(_CHANCES), found)
        return found

    def _walk(self, node: int, path: str, rng: random.Random, chance: float, found: dict[str, bytes | None]) -> None:
        there = self._nodes[node]
        if isinstance(there, _File):
            found[path] = _torn(there, rng, chance)
            return
        if path:
            found[path] = None
        names = dict(there.names)
        for operation in there.pending[: rng.randint(0, len(there.pending))]:
            _rename(names, operation)
        for name, each in sorted(names.items()):
            self._walk(each, f"{path}/{name}" if path else name, rng, chance, found)


def lay_out(found: dict[str, bytes | None], folder: Path) -> None:
    """Make real files of a survivor; folders come before what is in them."""
    for path, content in found.items():
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)


def _sync(node: _File | _Folder) -> None:
    if isinstance(node, _Folder):
        for operation in node.pending:
            _rename(node.names, operation)
    else:
        for change in node.pending:
            _change(node.content, change)
    node.pending.clear()


def _rename(names: dict[str, int], operation: Link | Unlink) -> None:
    if isinstance(operation, Unlink):
        names.pop(operation.name, None)
        return
    if operation.gone is not None:
        names.pop(operation.gone, None)
    names[operation.name] = operation.node


def _change(content: bytearray, change: Write | Resize) -> None:
    if isinstance(change, Resize):
        if len(content) < change.size:
            content.extend(bytes(change.size - len(content)))
        elif not change.at_least:
            del content[change.size :]
        return
    end = change.offset + len(change.content)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    content[change.offset : end] = change.content


def _torn(file: _File, rng: random.Random, chance: float) -> bytes:
    content = bytearray(file.content)
    for change in file.pending:
        if isinstance(change, Resize):
            if rng.random() < chance:
                _change(content, change)
            continue
        for piece in _pieces(change, _PAGE):
            if rng.random() < chance:
                _change(content, piece)
            elif chance > 0 and rng.random() < 0.1:
                for sector in _pieces(piece, _SECTOR):
                    if rng.random() < chance:
                        _change(content, sector)
    return bytes(content)


def _pieces(write: Write, size: int) -> list[Write]:
    """A write cut at multiples of `size`."""
    pieces, at, end = [], write.offset, write.offset + len(write.content)
    while at < end:
        until = min(end, (at // size + 1) * size)
        pieces.append(Write(write.node, at, write.content[at - write.offset : until - write.offset]))
        at = until
    return pieces
