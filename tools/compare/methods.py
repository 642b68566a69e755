"""The schemes and the tasks of the comparison, by name."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

from broker.simulate.scheme import Scheme, Sparse
from tools.compare.tasks.convex import convex
from tools.compare.tasks.fashion_mnist import DEBIAN, fashion_mnist
from tools.compare.tasks.next_word import next_word
from tools.compare.tasks.task import Task
from tools.compare.tasks.watch_har import watch_har

DENSE: Final = "dense"
FEEDBACK, PLAIN, SPARSER = "top-k 1 %, EF", "top-k 1 %", "top-k 0.25 %, EF"
# Of the convex task, at the density that it asks for.
TENTH, PLAIN_TENTH = "top-k 10 %, EF", "top-k 10 %"

METHODS: Final[dict[str, Scheme]] = {
    each.name: each
    for each in (
        Sparse(DENSE, "float32", feedback=False, policy={"density": 1.0}),
        Sparse(FEEDBACK, policy={"density": 0.01}),
        Sparse(PLAIN, feedback=False, policy={"density": 0.01}),
        Sparse(SPARSER, policy={"density": 0.0025}),
        Sparse(TENTH, policy={"density": 0.1}),
        Sparse(PLAIN_TENTH, feedback=False, policy={"density": 0.1}),
    )
}
CONVEX: Final = "convex"
OF_CONVEX: Final = (DENSE, TENTH, PLAIN_TENTH)
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
