"""Statuses that have come and that nobody has looked at yet, the newest of each device, in bounded memory.

Uploads go first: reading a status takes as long as six uploads are counted in metrics, and can wait for an idle moment.
"""

import threading
from itertools import islice
from typing import Final

MOST_TOPICS: Final = 20_000
MOST_BYTES: Final = 16 << 20
_OFFLINE: Final = b'"offline"'


class Backlog:
    """Filled by the service's thread, emptied by it or by a scrape's.

    Example:
        >>> backlog = Backlog()
        >>> for payload in (b"old", b"new"): backlog.put("edge/v1/har/status/pi-7", payload)
        >>> backlog.take(9), backlog.take(9)
        ([('edge/v1/har/status/pi-7', b'new')], [])
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._payloads: dict[str, list[bytes]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._payloads)

    @property
    def full(self) -> bool:
        """Whether some must be taken before more is put."""
        return len(self._payloads) >= MOST_TOPICS or self._bytes >= MOST_BYTES

    def put(self, topic: str, payload: bytes) -> None:
        """The newest of a topic takes the place of the older one, which nobody needs.

        But for what may be a last will: a late one is told by the session that was there before.
        """
        with self._lock:
            before = self._payloads.get(topic, [])
            kept = [*before[:1], payload] if _OFFLINE in payload else [payload]
            self._bytes += sum(map(len, kept)) - sum(map(len, before))
            self._payloads[topic] = kept

    def take(self, most: int) -> list[tuple[str, bytes]]:
        """Topics and payloads of so many topics at most, in the order in which those came."""
        with self._lock:
            taken = [(topic, self._payloads.pop(topic)) for topic in list(islice(self._payloads, most))]
            found = [(topic, payload) for topic, payloads in taken for payload in payloads]
            self._bytes -= sum(len(payload) for _, payload in found)
            return found

    def clear(self) -> None:
        """Forget all of it."""
        with self._lock:
            self._payloads, self._bytes = {}, 0
