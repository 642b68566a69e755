"""Collecting a blob from its retained chunks: a pure state machine.

At most 8 topics are subscribed at a time: a wildcard over retained chunks lost messages on every broker
tried.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from edgeclient.wire.announcement import Blob
from edgeclient.wire.errors import WireError

AT_A_TIME: Final = 8


class Fetch:
    """One blob on its way.

    Args:
        blob: what is fetched.
        parts: chunks that have come earlier.

    Example:
        >>> fetch = Fetch(Blob(sha256(b"abc").hexdigest(), size=3, chunk=2))
        >>> fetch.wanted()
        [0, 1]
        >>> fetch.receive(1, b"c"), str(fetch), fetch.receive(0, b"ab")
        (None, '1 of 2 chunks, 0 of 0 kB', b'abc')
    """

    def __init__(self, blob: Blob, parts: Mapping[int, bytes] | None = None) -> None:
        self.blob = blob
        self._parts = dict(parts or {})
        self._bytes = sum(map(len, self._parts.values()))

    def __str__(self) -> str:
        here, whole = self._bytes / 1000, self.blob.size / 1000
        return f"{len(self._parts):,} of {self.blob.chunks:,} chunks, {here:,.0f} of {whole:,.0f} kB"

    def __contains__(self, chunk: int) -> bool:
        return chunk in self._parts

    def wanted(self) -> list[int]:
        """The next missing chunks, at most 8."""
        missing = (chunk for chunk in range(self.blob.chunks) if chunk not in self._parts)
        return [chunk for chunk, _ in zip(missing, range(AT_A_TIME), strict=False)]

    @property
    def missing_bytes(self) -> int:
        """What has not come yet, at most."""
        return self.blob.size - self._bytes

    def receive(self, chunk: int, payload: bytes) -> bytes | None:
        """Take in a chunk; the whole content once it is complete and verified.

        Raises:
            WireError: "range" for a chunk that cannot be, "digest" when the whole is not what was
                announced; then everything is asked for again.
        """
        if not 0 <= chunk < self.blob.chunks:
            raise WireError("range", f"chunk {chunk} of {self.blob.chunks}")
        if len(payload) != (expected := self.blob.length(chunk)):
            raise WireError("range", f"chunk {chunk} has {len(payload)} bytes, not {expected}")
        if chunk not in self._parts:
            self._bytes += expected
        self._parts[chunk] = payload
        if len(self._parts) < self.blob.chunks:
            return None
        content = b"".join(self._parts[i] for i in range(self.blob.chunks))
        self._parts.clear()
        self._bytes = 0
        actual = sha256(content).hexdigest()
        if actual != self.blob.digest:
            raise WireError("digest", f"announced {self.blob.digest[:16]}…, received {actual[:16]}…")
        return content
