"""What a silence is taken for."""

from dataclasses import replace

import pytest

from broker.monitor.silence import WORDS, Contact, guess, silent_s
from edgeclient.wire import status

ONLINE = status.Status("online", "s", version=5, doing="next-version")
GONE = status.Status("offline", "s", note="connection lost")
CASES = [
    (Contact(None, asked=False), "unknown"),
    (Contact(None, asked=False, counted=True), "unknown"),
    (Contact(None), "never-connected"),
    (Contact(None, counted=True), "left"),
    (Contact(replace(ONLINE, state="offline", doing="stopped")), "stopped"),
    (Contact(replace(GONE, note="stopped")), "stopped"),
    (Contact(replace(GONE, note="ended: data.csv has no column 'x'", doing="stopped")), "ended"),
    (Contact(replace(GONE, battery_percent=10)), "battery-empty"),
    (Contact(replace(GONE, battery_percent=11)), "connection-lost"),
    (Contact(replace(GONE, battery_percent=90, temperature_c=80.0)), "overheated"),
    (Contact(replace(GONE, temperature_c=79.9)), "connection-lost"),
    (Contact(GONE, age_s=1e6), "connection-lost"),
    (Contact(replace(GONE, cut=1)), "short-spells"),
    (Contact(replace(GONE, fruitless=2)), "short-spells"),
    (Contact(replace(GONE, fruitless=1)), "connection-lost"),
    (Contact(replace(ONLINE, heartbeat_s=60), age_s=136.0), "hangs"),
    (Contact(replace(ONLINE, doing="battery"), age_s=silent_s(ONLINE) + 1), "hangs"),
    (Contact(replace(ONLINE, doing="battery"), age_s=silent_s(ONLINE)), "waits"),
    *(
        (Contact(replace(ONLINE, doing=doing)), "waits")
        for doing in ("paused", "quiet-hours", "metered", "heat", "wear")
    ),
    (Contact(replace(ONLINE, doing="failed")), "failed"),
    (Contact(replace(ONLINE, doing="training")), "training"),
    (Contact(replace(ONLINE, doing="model", version=-1)), "no-model"),
    (Contact(status.Status("online", "s")), "no-model"),
    (Contact(replace(ONLINE, doing="receipts", sent=2)), "no-receipts"),
    (Contact(replace(ONLINE, doing="sending", queued=2)), "slow-link"),
    (Contact(replace(ONLINE, doing="", sent=1)), "slow-link"),
    (Contact(ONLINE), "up-to-date"),
    (Contact(replace(ONLINE, doing="a word of later")), "up-to-date"),
]


@pytest.mark.parametrize(("contact", "word"), CASES)
def test_guesses(contact: Contact, word: str) -> None:
    assert guess(contact) == word


def test_every_word_is_guessed_and_every_doing_has_a_guess() -> None:
    assert {word for _, word in CASES} == WORDS.keys()
    for doing in status.DOINGS:
        assert guess(Contact(replace(ONLINE, doing=doing))) in WORDS
