"""The story of one device in plain words: a pure function of what ledger and MQTT broker know."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from broker.monitor.silence import SILENT_S, WORDS, Contact, guess
from broker.monitor.text import age, printable
from broker.settings import Task
from edgeclient.settings import structure
from edgeclient.wire.messages import Refusal
from edgeclient.wire.status import OFFLINE, Status

REFUSED: Final = {
    Refusal.LAYOUT: "made for another model layout",
    Refusal.STALE: "trained from a version that is too old by now; its entries return and go out with a later update",
    Refusal.FUTURE: "trained from a version that does not exist here: does the device follow another aggregator?",
    Refusal.VALUE_LIMIT: "an entry is larger than the announced limit",
    Refusal.ADDRESS: "made for another task or device than its topic says",
    Refusal.CONFLICT: "its number was used before for other bytes: a cloned card or a restored copy of the store",
    Refusal.UPDATE: "a part that does not fit its update",
    Refusal.WITHDRAWN: "the device asked to forget it",
}


@dataclass(frozen=True, slots=True)
class Update:
    """The newest counted update of a device.

    Attributes:
        base_version: that it was trained from.
        received_s: Unix seconds; None when only its batch's record is left.
        version: that it is part of; None while it waits.
        made_s: when that was made, if the version is still kept (Unix seconds).
    """

    base_version: int
    received_s: float | None
    version: int | None
    made_s: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a device in one task.

    Attributes:
        task: task id.
        device: device id.
        now_s: Unix seconds, as are all times.
        version: the task's current one.
        max_staleness: versions that an update may be behind.
        waiting: updates that wait for the next version.
        goal: that make one.
        asked: whether the MQTT broker could be asked.
        said: the device's retained status.
        update: its newest counted update.

    What is not listed is what a ledger tells: see Past in ledger/views.py.
    """

    task: str
    device: str
    now_s: float
    version: int
    max_staleness: int
    waiting: int
    goal: int
    asked: bool = True
    said: Status | None = None
    epochs: int = 0
    applied: int = 0
    refused: int = 0
    lost: int = 0
    last_frame_s: float | None = None
    update: Update | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)
    last_refusal: tuple[int, str, float] | None = None


def joined(task: str, device: str, past: Mapping[str, Any], said: Status | None, *, asked: bool, now_s: float) -> Facts:
    """The facts, out of what a ledger knows of the device and what the device says of itself.

    Args:
        task: task id.
        device: device id.
        past: Past of ledger.views, as a dictionary.
        said: the device's status.
        asked: whether the MQTT broker could be asked for it.
        now_s: Unix seconds.
    """
    settings = structure(past["settings"], Task, where=f"settings of task {task}")
    known = {name: value for name, value in past.items() if name not in {"settings", "update"}}
    return Facts(
        **known,
        task=task,
        device=device,
        now_s=now_s,
        max_staleness=settings.policy.max_staleness,
        goal=settings.goal,
        asked=asked,
        said=said,
        update=past["update"] and Update(*past["update"]),
    )


def told(facts: Facts) -> list[str]:
    """The story, a sentence a line.

    Example:
        >>> said = Status("online", "a", note="waits for power", version=3, queued=2)
        >>> for line in told(Facts("har", "pi-7", 1e9, 4, 10, 0, 8, said=said, applied=6, epochs=1)): print(line)
        It is connected; it says: waits for power.
        It has version 3, the current one is 4.
        On it 2 frames have not left yet, 0 await a receipt, 0 were refused and go out with a later update.
        When its last frame came is not known any more.
        6 frames were counted, 0 refused.
    """
    return [*_contact(facts), *_health(facts), *_uploads(facts), *_silence(facts), *_account(facts)]


def _contact(facts: Facts) -> Iterator[str]:
    said = facts.said
    if said is None and not facts.asked:
        yield "The MQTT broker cannot be reached, so that what the device says of itself is unknown."
    if said is None:
        if facts.asked:
            yield "The MQTT broker knows nothing of it: it has left, was never connected, or uses another broker."
        return
    note = f"; it says: {printable(said.note)}" if said.note else ""
    yield f"It is {'not connected' if said.state == OFFLINE else 'connected'}{note}."
    if said.session and said.version < 0 and said.state == OFFLINE and not said.rounds:
        return  # a last will knows no more
    if said.version < 0:
        yield f"It has no model yet, the current version is {facts.version}."
    elif facts.version > said.version:
        late = facts.version - said.version > facts.max_staleness
        why = ": what it trained from that is too old to be counted" if late else ""
        yield f"It has version {said.version}, the current one is {facts.version}{why}."
    elif said.version > facts.version:
        yield f"It says that it has version {said.version}, but the current one is {facts.version}."
    else:
        yield f"It has the current version, {said.version}."
    if said.queued or said.sent or said.returned:
        yield (
            f"On it {said.queued} frames have not left yet, {said.sent} await a receipt, {said.returned} were refused"
            " and go out with a later update."
        )


def _health(facts: Facts) -> Iterator[str]:
    said = facts.said
    if said is None:
        return
    told = [
        f"release {printable(said.software)}" if said.software else "",
        "" if said.battery_percent is None else f"battery at {said.battery_percent} %",
        "" if said.temperature_c is None else f"{said.temperature_c:.0f} °C",
        f"its oldest frame waits {age(said.oldest_s)}" if said.oldest_s else "",
        "" if said.residual_norm is None else f"residual norm {said.residual_norm:.3g}",
    ]
    if any(told):
        when = f" {age(facts.now_s - said.time_s)} ago, by its own clock" if said.time_s > 0 else ""
        yield f"It said{when}: {', '.join(filter(None, told))}."


def _silence(facts: Facts) -> Iterator[str]:
    """A guess, where nothing has come for an hour or nobody is there."""
    said = facts.said
    told_s = facts.now_s - said.time_s if said is not None and said.time_s > 0 else None
    counted = facts.applied + facts.refused > 0
    word = guess(Contact(said, asked=facts.asked, counted=counted, age_s=told_s, version=facts.version))
    late = facts.last_frame_s is not None and facts.now_s - facts.last_frame_s > SILENT_S
    if late or said is None or said.state == OFFLINE or word == "hangs":
        yield f"Why nothing comes, probably: {word}. {WORDS[word]}"


def _uploads(facts: Facts) -> Iterator[str]:
    update = facts.update
    if facts.last_frame_s is not None:
        yield f"Its last frame came {age(facts.now_s - facts.last_frame_s)} ago."
    elif facts.applied or facts.refused:
        yield "When its last frame came is not known any more."
    else:
        yield "No frame of it has come."
    if update is None:
        return
    base = f"Its last counted update was trained from version {update.base_version}"
    if update.version is None:
        yield f"{base} and waits for the next one: {facts.waiting} of {facts.goal} updates are there."
    else:
        made = "" if update.made_s is None else f", made {age(facts.now_s - update.made_s)} ago"
        yield f"{base} and is part of version {update.version}{made}."


def _account(facts: Facts) -> Iterator[str]:
    if facts.applied or facts.refused:
        yield f"{facts.applied} frames were counted, {facts.refused} refused."
    words = {each.reason: text for each, text in REFUSED.items()}
    for reason, count in sorted(facts.refusals.items(), key=lambda item: -item[1]):
        yield f"Refused {count} times as {reason}: {words[reason]}."
    if facts.last_refusal is not None:
        sequence, reason, when_s = facts.last_refusal
        yield f"The last refusal was of frame {sequence}, {reason}, {age(facts.now_s - when_s)} ago."
    if facts.lost:
        yield f"{facts.lost} frames that it had settled are unknown since a restore: what they carried is lost."
    renewals = max(facts.epochs - 1, 0 if facts.said is None else facts.said.renewals)
    if renewals:
        yield f"It has begun anew {renewals} times; each time what it had not sent yet was dropped."
