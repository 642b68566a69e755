"""Signals to a program that runs until stopped: an end with goodbye, or another life by what its files say now."""

import os
import signal
from collections.abc import Callable


class Signals:
    """SIGINT and SIGTERM end the program. So does SIGHUP where a terminal is behind it: that has gone.

    For a service, SIGHUP ends one life, and the next reads the configuration again. What `nohup` ignores stays ignored.

    Args:
        reloads: whether there is another life; else SIGHUP is the end.

    Attributes:
        ending: whether the program shall end.
    """

    def __init__(self, *, reloads: bool = True) -> None:
        self.ending = False
        self._reloads = reloads and not any(map(os.isatty, range(3)))
        self._stop: Callable[[], None] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._hang_up)

    def begin(self, stop: Callable[[], None]) -> None:
        """A life begins, which `stop` ends, soon and in order; called in a signal handler."""
        self._stop = stop
        if self.ending:  # since the last one
            stop()

    def _end(self, *_: object) -> None:
        self.ending = True
        if self._stop is not None:
            self._stop()

    def _hang_up(self, *_: object) -> None:
        self.ending = self.ending or not self._reloads
        if self._stop is not None:
            self._stop()
