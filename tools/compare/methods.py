"""The schemes and the tasks of the comparison, by name."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from broker.simulate.scheme import Scheme, Sparse
from tools.compare.schemes import SCHEMES
from tools.compare.tasks.convex import convex
from tools.compare.tasks.fashion_mnist import DEBIAN, fashion_mnist
from tools.compare.tasks.next_word import next_word
from tools.compare.tasks.task import Task
from tools.compare.tasks.watch_har import watch_har

DENSE: Final = "dense float32, 4n"
FEEDBACK, PLAIN, SPARSER = "top-k 1 %, EF", "top-k 1 %", "top-k 0.25 %, EF"
# Rows of several seeds, and those of them that are tuned.
MAIN: Final = (DENSE, FEEDBACK, PLAIN, SPARSER)
TUNED: Final = (DENSE, FEEDBACK)
# Of the convex task, at the density that it asks for.
TENTH, PLAIN_TENTH = "top-k 10 %, EF", "top-k 10 %"
OF_CONVEX: Final = (DENSE, TENTH, PLAIN_TENTH)
# One of each kind.
SHORT: Final = (DENSE, FEEDBACK, PLAIN, "4 bits, EF", "random-k 1 %, EF", "PowerSGD rank 4, EF")

METHODS: Final[dict[str, Scheme]] = {
    **{name: SCHEMES[name] for name in (*MAIN, *SCHEMES)},
    TENTH: Sparse(TENTH, policy={"density": 0.1}),
    PLAIN_TENTH: Sparse(PLAIN_TENTH, feedback=False, policy={"density": 0.1}),
}
CONVEX: Final = "convex"
TASKS: Final[dict[str, Callable[[Path], Task]]] = {
    "fashion-mnist": fashion_mnist,
    "watch-har": lambda _: watch_har(),
    "next-word": lambda _: next_word(),
    CONVEX: lambda _: convex(),
}


@cache
def task_of(name: str, data: Path = DEBIAN) -> Task:
    """A task, read once.

    Raises:
        FileNotFoundError: its data is not there; the text says what to install.
        ValueError: its data is something else.
    """
    return TASKS[name](data)
