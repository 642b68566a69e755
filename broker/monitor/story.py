"""The story of one device in plain words: a pure function of what ledger and MQTT broker know."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from broker.monitor import namesakes
from broker.monitor.learning import WORSE
from broker.monitor.silence import SILENT_S, WORDS, Contact, age_s, guess
from broker.monitor.text import age, counted, printable
from broker.settings import Task, task_settings
from broker.views import Past
from edgeclient.wire.messages import Refusal
from edgeclient.wire.status import OFFLINE, Status

REFUSED: Final = {
    Refusal.LAYOUT: "made for another model layout",
    Refusal.STALE: "trained from a version that is too old by now; its entries return and go out with a later update",
    Refusal.FUTURE: "trained from a version that does not exist here: does the device follow another aggregator?",
    Refusal.VALUE_LIMIT: "an entry is larger than the announced limit",
    Refusal.CONFLICT: "its number was used before for other bytes: a cloned card or a restored copy of the store",
    Refusal.UPDATE: "a part that does not fit its update",
    Refusal.WITHDRAWN: "the device asked to forget it",
    Refusal.DOMAIN: "a value outside the bounds that the model gives it: no device of ours sends that",
}


class Facts(NamedTuple):
    """What is known of a device in one task.

    Attributes:
        task: task id.
        past: what a ledger knows of it.
        said: its retained status.
        asked: whether the MQTT broker could be asked for that.
        now_s: Unix seconds.
        goal: updates that fill the batch which is open.
    """

    task: str
    past: Past
    said: Status | None
    asked: bool
    now_s: float
    goal: int

    @property
    def word(self) -> str:
        """The likeliest reason why nothing comes, a key of WORDS."""
        counted = self.past.applied + self.past.refused > 0
        told_s = age_s(self.said, self.past.last_frame_s, self.now_s)
        return guess(Contact(self.said, self.asked, counted, told_s, self.past.version))

    @property
    def settings(self) -> Task:
        """Of the task."""
        return task_settings(self.task, self.past.settings)


def told(facts: Facts) -> list[str]:
    """The story, a sentence a line.

    Example:
        >>> said = Status("online", "a", note="waits for power", version=3, queued=2)
        >>> past = Past({}, 4, 0, 1, 6, 0, 0, None, None, {}, None)
        >>> for line in told(Facts("har", past, said, True, 1e9, goal=8)): print(line)
        It is connected; it says: waits for power.
        It has version 3, the current one is 4.
        On it 2 frames have not left yet, 0 await a receipt, 0 were refused and go out with a later update.
        When its last frame came is not known any more.
        6 frames were counted, 0 refused.
    """
    return [
        *_contact(facts), *_starts(facts), *_health(facts), *_uploads(facts), *_silence(facts), *_account(facts)
    ]  # fmt: skip


def _contact(facts: Facts) -> Iterator[str]:
    past, said = facts.past, facts.said
    if said is None:
        nothing = "The MQTT broker knows nothing of it: it has left, was never connected, or uses another broker."
        unasked = "The MQTT broker cannot be reached, so that what the device says of itself is unknown."
        yield nothing if facts.asked else unasked
        return
    note = f"; it says: {printable(said.note)}" if said.note else ""
    silent = facts.word == "hangs"
    yield f"It is {'silent' if silent else 'not connected' if said.state == OFFLINE else 'connected'}{note}."
    if said.session and said.version < 0 and said.state == OFFLINE and not said.rounds:
        return  # a last will knows no more
    if said.version < 0:
        yield f"It has no model yet, the current version is {past.version}."
    elif past.version > said.version:
        late = past.version - said.version > facts.settings.policy.max_staleness
        why = ": what it trained from that is too old to be counted" if late else ""
        yield f"It has version {said.version}, the current one is {past.version}{why}."
    elif said.version > past.version:
        yield f"It says that it has version {said.version}, but the current one is {past.version}."
    else:
        yield f"It has the current version, {said.version}."
    if said.queued or said.sent or said.returned:
        yield (
            f"On it {said.queued} frames have not left yet, {said.sent} await a receipt, {said.returned} were refused"
            " and go out with a later update."
        )


def _starts(facts: Facts) -> Iterator[str]:
    """What it says of the starts before its last one."""
    said = facts.said
    if said is not None and said.cut:
        what = f"ended within a round, the last after about {age(said.spell_s)}"
        yield f"{_last(said.cut)} {what}: its rounds are made shorter."
    if said is not None and said.fruitless:
        yield f"{_last(said.fruitless)} got nothing done: no chunk of a model, no round, no receipt."


def _last(starts: int) -> str:
    return "Its last start" if starts == 1 else f"Its last {starts} starts"


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
    if (change := said.holdout_change or 0.0) > WORSE:
        yield (
            f"Its last round made the model {change:.0%} worse on its held-out examples: it learns its own by heart"
            " (fewer policy.local_epochs, a lower policy.learning_rate, or more data would help)."
        )
    if any(told):
        when = f" {age(facts.now_s - said.time_s)} ago, by its own clock" if said.time_s > 0 else ""
        yield f"It said{when}: {', '.join(filter(None, told))}."


def _silence(facts: Facts) -> Iterator[str]:
    """A guess, where nothing has come for an hour or nobody is there."""
    past, said = facts.past, facts.said
    word = facts.word
    late = past.last_frame_s is not None and facts.now_s - past.last_frame_s > SILENT_S
    if late or said is None or said.state == OFFLINE or word == "hangs":
        yield f"Why nothing comes, probably: {word}. {WORDS[word]}"


def _uploads(facts: Facts) -> Iterator[str]:
    past, update = facts.past, facts.past.update
    if past.last_frame_s is not None:
        yield f"Its last frame came {age(facts.now_s - past.last_frame_s)} ago."
    elif past.applied or past.refused:
        yield "When its last frame came is not known any more."
    else:
        yield "No frame of it has come."
    if update is None:
        return
    base = f"Its last counted update was trained from version {update.base_version}"
    if update.version is None:
        yield f"{base} and waits for the next one: {past.waiting} of {counted(facts.goal, 'update')} there."
    else:
        made = "" if update.made_s is None else f", made {age(facts.now_s - update.made_s)} ago"
        yield f"{base} and is part of version {update.version}{made}."


def _account(facts: Facts) -> Iterator[str]:
    past = facts.past
    if past.applied or past.refused:
        yield f"{past.applied} frames were counted, {past.refused} refused."
    words = {each.reason: text for each, text in REFUSED.items()}
    for reason, count in sorted(past.refusals.items(), key=lambda item: -item[1]):
        yield f"Refused {count} times as {reason}: {words[reason]}."
    if past.last_refusal is not None:
        sequence, reason, when_s = past.last_refusal
        yield f"The last refusal was of frame {sequence}, {reason}, {age(facts.now_s - when_s)} ago."
    if past.lost:
        yield f"{past.lost} frames that it had settled are unknown since a restore: what they carried is lost."
    renewals = 0 if facts.said is None else facts.said.renewals
    if namesakes.shared(past.stores, facts.now_s):
        yield f"{namesakes.SAID[0].upper()}{namesakes.SAID[1:]}. What each uploads is counted."
    elif past.epochs > renewals + 1:
        yield f"It has begun anew {past.epochs - 1} times, or another board has used its id: {past.epochs} stores."
    if renewals:
        yield f"It has begun anew {renewals} times; each time what it had not sent yet was dropped."
