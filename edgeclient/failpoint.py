"""Named crash points and deliberate sabotage, free when off.

`EDGECLIENT_FAILPOINTS` holds a comma-separated list of `name=action`. A crash point is a line
`failpoint.hit("durable.before-commit")`: with `durable.before-commit=kill` the process ends there by
SIGKILL, with `…=kill@3` at the third passage. `failpoint.sabotaged("drop")` is true with
`sabotage.drop=on`: a way to break one promise of the product on purpose, so that the auditor can be
shown to notice.

Example:
    >>> sabotaged("drop")
    False
"""

import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping

VARIABLE = "EDGECLIENT_FAILPOINTS"


def _parse(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name.strip(): action.strip() for name, _, action in pairs}


def _die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_ACTIONS = _parse(os.environ.get(VARIABLE, ""))
_PASSED: Counter[str] = Counter()
_KILL: Callable[[str], None] = _die


def arm(actions: Mapping[str, str], kill: Callable[[str], None] = _die) -> None:
    """What the environment does at the start of a process, later; `kill(name)` takes the place of SIGKILL."""
    global _ACTIONS, _KILL
    _ACTIONS, _KILL = dict(actions), kill
    _PASSED.clear()


def hit(name: str) -> None:
    """Pass the crash point `name`; ends the process there when the environment says so."""
    if not _ACTIONS:
        return
    action, _, nth = _ACTIONS.get(name, "").partition("@")
    if action == "kill":
        _PASSED[name] += 1
        if _PASSED[name] >= int(nth or 1):
            _KILL(name)


def sabotaged(promise: str) -> bool:
    """Whether `promise` is to be broken on purpose in this process."""
    return bool(_ACTIONS) and _ACTIONS.get(f"sabotage.{promise}") == "on"
