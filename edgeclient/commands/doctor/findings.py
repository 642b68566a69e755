"""What a check finds, and the bounds around it: no check hangs, and none ends the others."""

import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Level: TypeAlias = Literal["ok", "warn", "fail"]
Check: TypeAlias = Callable[[], Iterable["Finding"]]
_LEVELS: Final[tuple[Level, ...]] = ("ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the answer.

    Attributes:
        level: "warn": works, but worse than it could; "fail": the device cannot take part.
        topic: what was looked at.
        what: what is there.
        advice: what to do; empty where nothing is to be done.
    """

    level: Level
    topic: str
    what: str
    advice: str = ""


def found(topic: str, check: Check, timeout_s: float) -> list[Finding]:
    """What a check finds; one that hangs or breaks is a finding of its own."""
    answers: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(list(check()))
        except (Exception, SystemExit) as error:  # noqa: BLE001 (checks import the user's code and broken packages)
            answers.put([Finding("fail", topic, f"the check broke: {type(error).__name__}: {error}")])

    # A thread that hangs in a dead disk or a resolver must not keep the process from ending.
    try:
        threading.Thread(target=ask, daemon=True, name=f"doctor {topic}").start()
    except RuntimeError as error:  # there is no memory for its stack
        return [Finding("fail", topic, f"not looked at: {error}", "free memory, or raise the limit (ulimit -v)")]
    try:
        return answers.get(timeout=timeout_s)
    except queue.Empty:
        return [Finding("fail", topic, f"no answer within {timeout_s:g} s")]


def worst(findings: Iterable[Finding]) -> Level:
    """The gravest level; "ok" for none."""
    return max((each.level for each in findings), key=_LEVELS.index, default="ok")


def table(findings: Iterable[Finding]) -> str:
    """Lines for people."""
    rows = list(findings)
    width = max((len(each.topic) for each in rows), default=0)
    lines = []
    for each in rows:
        lines.append(f"{each.level:<4}  {each.topic:<{width}}  {each.what}")
        if each.advice:
            lines.append(f"{'':<4}  {'':<{width}}  → {each.advice}")
    return "\n".join(lines)
