"""Content-addressed files: a name can only ever mean one content."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final

import numpy as np

from edgeclient import failpoint, files
from edgeclient.compress.arrays import F32

POINTS: Final = ("registry.before-put", "registry.after-put", "registry.before-remove", "registry.after-remove")

_NAME: Final = re.compile(r"[0-9a-f]{64}(\.new)?")
# A task that is being added puts its contents before the ledger names them.
_YOUNG_S: Final = 3600.0


class RegistryError(Exception):
    """Content is missing or damaged; the text says which file and what to do."""


class RegistryUnavailable(RegistryError):
    """Nothing can be written for now: the disk is full or failing; the same call may succeed later."""


class Blobs:
    """A folder of immutable files named by digest."""

    def __init__(self, directory: Path) -> None:
        files.make_directory(directory)
        self._directory = directory

    def put(self, content: bytes) -> str:
        """Store `content` durably and return its SHA-256 (hex).

        Raises:
            RegistryUnavailable: the disk is full or failing; nothing is left of it.
        """
        digest = sha256(content).hexdigest()
        path = self.path(digest)
        if not path.exists():
            failpoint.hit("registry.before-put")
            try:
                files.replace(path, content)
            except OSError as error:
                with contextlib.suppress(OSError):
                    path.with_name(path.name + ".new").unlink(missing_ok=True)
                raise RegistryUnavailable(f"{path} cannot be written: {error.strerror}") from None
            failpoint.hit("registry.after-put")
        return digest

    def get(self, digest: str) -> bytes:
        """The content, verified.

        Raises:
            RegistryError: missing or damaged.
        """
        path = self.path(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RegistryError(f"{path}: {error.strerror}: restore it from a backup") from None
        if sha256(content).hexdigest() != digest:
            raise RegistryError(f"{path} is damaged (its SHA-256 is another): restore it from a backup")
        return content

    def put_parameters(self, parameters: F32) -> str:
        """Store all parameters of a model, float32 (n,), as `put` does."""
        return self.put(parameters.astype("<f4").tobytes())

    def parameters(self, digest: str) -> F32:
        """The parameters, float32 (n,), as `get` does."""
        return np.frombuffer(self.get(digest), "<f4").astype(np.float32)

    def path(self, digest: str) -> Path:
        """Where the content of this digest is or would be."""
        return self._directory / digest

    def remove(self, digest: str) -> None:
        """Forget a content that nobody needs any more."""
        failpoint.hit("registry.before-remove")
        self.path(digest).unlink(missing_ok=True)
        failpoint.hit("registry.after-remove")

    def size(self) -> tuple[int, int]:
        """How many contents there are, and their bytes."""
        sizes = [found.st_size for _, found in self._files()]
        return len(sizes), sum(sizes)

    def remove_strays(self, named: set[str]) -> None:
        """Forget files that nothing names, an hour old or more: a kill came between registry and ledger."""
        now = time.time()
        for path, found in self._files():
            if path.name not in named and now - found.st_mtime >= _YOUNG_S:
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in sorted(self._directory.iterdir()):
            if _NAME.fullmatch(path.name):
                with contextlib.suppress(FileNotFoundError):  # the aggregator removes old ones meanwhile
                    yield path, path.stat()
