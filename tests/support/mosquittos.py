"""Mosquitto as somebody else has set it up, on loopback."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import secured

NEEDED: Final = pytest.mark.skipif(secured.mosquitto_program() is None, reason="Mosquitto is not installed")
ANYBODY: Final = "allow_anonymous true"


@contextmanager
def mosquitto(folder: Path, more: str = ANYBODY, host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """With these lines in its configuration; its port."""
    program = secured.mosquitto_program()
    assert program is not None
    folder.mkdir(exist_ok=True)
    root = "user root\n" if os.geteuid() == 0 else ""

    def config(free: int) -> str:
        return f"listener {free} {host}\nlog_type all\n{root}{more}\n"

    with secured.running(folder, "mosquitto.conf", config, [program, "-c"], host, port) as there:
        yield there


def program(name: str) -> Callable[..., None]:
    """Of Mosquitto's own, as a function."""
    path = secured.mosquitto_program(name)
    assert path is not None

    def call(*arguments: object) -> None:
        subprocess.run([path, *map(str, arguments)], check=True, timeout=60)

    return call
