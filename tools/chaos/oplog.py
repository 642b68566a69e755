"""What a process did to the files of one folder, as operations on inodes, read from what strace wrote."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

_CALLS: Final = (
    "open,openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,pwrite64,writev,pwritev,truncate,ftruncate,fallocate,fsync,"
    "fdatasync,sync_file_range,msync,mmap,rename,renameat,renameat2,link,linkat,symlink,unlink,unlinkat,mkdir,mkdirat,"
    "rmdir,sendfile,copy_file_range"
)
# -xx makes every string hexadecimal, so that no argument holds a comma.
STRACE: Final = ("strace", "-y", "-xx", "-s", str(1 << 24), "-e", "signal=none", "-e", f"trace={_CALLS}")
ROOT: Final = 0
_LINE: Final = re.compile(r"(\w+)\((.*)\)\s+= (0x[0-9a-f]+|-?\d+|\?)")
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR: Final = re.compile(r"(AT_FDCWD|-?\d+)(?:<((?:\\x[0-9a-f]{2})*)>)?")
_UNKNOWN: Final = {"link", "linkat", "symlink", "sendfile", "copy_file_range"}


@dataclass(frozen=True, slots=True)
class Link:
    """A name in a folder now means `node`; at a rename within the folder the name `gone` goes with it."""

    folder: int
    name: str
    node: int
    is_folder: bool
    gone: str | None = None


@dataclass(frozen=True, slots=True)
class Unlink:
    """A name is gone."""

    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at an offset."""

    node: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A new size; with `at_least`, only if the file is smaller."""

    node: int
    size: int
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class Sync:
    """What was done to this file's content, or to this folder's names, is on the disk."""

    node: int


@dataclass(frozen=True, slots=True)
class Mark:
    """What the process said."""

    said: dict[str, Any]


Operation: TypeAlias = Link | Unlink | Write | Resize | Sync | Mark


class UnknownOperation(Exception):
    """The trace holds what this model of a disk does not know."""


@dataclass(slots=True)
class _Open:
    node: int
    offset: int
    append: bool


class Reader:
    """Reads a trace.

    Args:
        root: the folder, empty when the process began.
        marks: a file outside of it that the process writes JSON lines to. A line {"map": path, "copy": file}
            stands for bytes written through a mapping, which strace does not see: from here on they may reach the disk.

    Attributes:
        names: every inode that a path ever had, "" for the root.
        folders: inodes that are folders.
    """

    def __init__(self, root: Path, marks: Path) -> None:
        self._root = str(root)
        self._marks = str(marks)
        self._nodes: dict[str, int] = {"": ROOT}
        self.names: dict[str, set[int]] = defaultdict(set, {"": {ROOT}})
        self.folders = {ROOT}
        self._count = 1
        self._open: dict[int, _Open] = {}
        self._marking: set[int] = set()
        self._mapped: dict[str, int] = {}

    def read(self, lines: Iterable[str]) -> Iterator[Operation]:
        """Every operation, in order.

        Raises:
            UnknownOperation: hard links, renames across folders, and the like.
        """
        for line in lines:
            match = _LINE.match(line)
            if match is None or match[3] in {"-1", "?"}:
                continue
            yield from self._call(match[1], match[2].split(", "), match[2], match[3])

    def _call(self, name: str, arguments: list[str], whole: str, result: str) -> Iterator[Operation]:
        if name in {"open", "openat", "creat"}:
            yield from self._opened(name, arguments, int(result))
        elif name == "close":
            self._open.pop(_number(arguments[0]), None)
            self._marking.discard(_number(arguments[0]))
        elif name in {"dup", "dup2", "dup3"} or (name == "fcntl" and arguments[1].startswith("F_DUPFD")):
            if _number(arguments[0]) in self._open:
                self._open[int(result)] = self._open[_number(arguments[0])]
        elif name in {"write", "pwrite64", "writev", "pwritev"}:
            yield from self._written(name, arguments, whole, int(result))
        elif name in {"fsync", "fdatasync", "ftruncate", "fallocate", "lseek", "mmap", "msync"}:
            yield from self._descriptor(name, arguments, result)
        elif name in {"rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"}:
            yield from self._named(name, arguments)
        elif name == "truncate":
            node = self._node(_text(arguments[0]))
            if node is not None:
                yield Resize(node, int(arguments[1]))
        elif name in _UNKNOWN and _mentions(whole, self._root):
            raise UnknownOperation(f"{name} in the traced folder")

    def _opened(self, name: str, arguments: list[str], descriptor: int) -> Iterator[Operation]:
        path, flags = _path(name, arguments), arguments[-1] if name == "creat" else " ".join(arguments[1:])
        if path == self._marks:
            self._marking.add(descriptor)
        relative = self._relative(path)
        if relative is None:
            return
        node = self._nodes.get(relative)
        if node is None:
            node = self._new(relative)
            yield self._link(relative, node)
        elif "O_TRUNC" in flags or name == "creat":
            yield Resize(node, 0)
        self._open[descriptor] = _Open(node, 0, "O_APPEND" in flags)

    def _written(self, name: str, arguments: list[str], whole: str, length: int) -> Iterator[Operation]:
        descriptor = _number(arguments[0])
        if descriptor not in self._open and descriptor not in self._marking:
            return
        content = b"".join(bytes.fromhex(text.replace("\\x", "")) for text in _STRING.findall(whole))[:length]
        if descriptor in self._marking:
            for line in content.decode().splitlines():
                said = json.loads(line)
                if "map" in said:
                    yield Write(self._nodes[said["map"]], 0, Path(said["copy"]).read_bytes())
                else:
                    yield Mark(said)
            return
        file = self._open[descriptor]
        if name in {"pwrite64", "pwritev"}:
            yield Write(file.node, int(arguments[-1]), content)
            return
        if file.append:
            raise UnknownOperation("appending, whose offset the trace does not tell")
        yield Write(file.node, file.offset, content)
        file.offset += length

    def _descriptor(self, name: str, arguments: list[str], result: str) -> Iterator[Operation]:
        if name == "msync":
            if arguments[0] in self._mapped:
                yield Sync(self._mapped[arguments[0]])
            return
        if name == "mmap":
            file = self._open.get(_number(arguments[4])) if "MAP_ANONYMOUS" not in arguments[3] else None
            self._mapped.pop(result, None)
            if file is not None and "MAP_SHARED" in arguments[3] and "PROT_WRITE" in arguments[2]:
                self._mapped[result] = file.node
            return
        file = self._open.get(_number(arguments[0]))
        if file is None:
            return
        if name in {"fsync", "fdatasync"}:
            yield Sync(file.node)
        elif name == "ftruncate":
            yield Resize(file.node, int(arguments[1]))
        elif name == "fallocate":
            yield Resize(file.node, int(arguments[2]) + int(arguments[3]), at_least=True)
        else:
            file.offset = int(result)

    def _named(self, name: str, arguments: list[str]) -> Iterator[Operation]:
        path = self._relative(_path(name, arguments))
        if name.startswith("rename"):
            at = 2 if name != "rename" else 1
            to = self._relative(_joined(arguments[at], arguments[at + 1]) if at == 2 else _text(arguments[1]))
            if path is None and to is None:
                return
            if path is None or to is None or _parent(path) != _parent(to):
                raise UnknownOperation("a rename from one folder to another")
            yield self._rename(path, to)
        elif path is None:
            return
        elif name.startswith("mkdir"):
            node = self._new(path)
            self.folders.add(node)
            yield self._link(path, node)
        else:
            del self._nodes[path]
            yield Unlink(self._nodes[_parent(path)], path.rpartition("/")[2])

    def _rename(self, path: str, to: str) -> Link:
        for each in [each for each in self._nodes if each == to or each.startswith(f"{to}/")]:
            del self._nodes[each]
        for each in [each for each in self._nodes if each == path or each.startswith(f"{path}/")]:
            self._nodes[to + each[len(path) :]] = node = self._nodes.pop(each)
            self.names[to + each[len(path) :]].add(node)
        return self._link(to, self._nodes[to], gone=path.rpartition("/")[2])

    def _link(self, path: str, node: int, *, gone: str | None = None) -> Link:
        return Link(self._nodes[_parent(path)], path.rpartition("/")[2], node, node in self.folders, gone)

    def _new(self, path: str) -> int:
        node = self._nodes[path] = self._count
        self.names[path].add(node)
        self._count += 1
        return node

    def _relative(self, path: str) -> str | None:
        if path == self._root:
            return ""
        return path[len(self._root) + 1 :] if path.startswith(f"{self._root}/") else None

    def _node(self, path: str) -> int | None:
        relative = self._relative(path)
        return None if relative is None else self._nodes[relative]


def _text(argument: str) -> str:
    match = _STRING.fullmatch(argument)
    if match is None:
        raise UnknownOperation(f"{argument[:80]} is no string")
    return bytes.fromhex(match[1].replace("\\x", "")).decode()


def _number(argument: str) -> int:
    match = _DESCRIPTOR.match(argument)
    return int(match[1]) if match is not None and match[1] != "AT_FDCWD" else -1


def _path(name: str, arguments: list[str]) -> str:
    return _joined(arguments[0], arguments[1]) if "at" in name and name != "creat" else _text(arguments[0])


def _joined(descriptor: str, path: str) -> str:
    text = _text(path)
    match = _DESCRIPTOR.match(descriptor)
    if text.startswith("/") or match is None or match[2] is None:
        return text
    return bytes.fromhex(match[2].replace("\\x", "")).decode() + "/" + text


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _mentions(whole: str, root: str) -> bool:
    return "".join(f"\\x{byte:02x}" for byte in root.encode()) in whole
