"""Who may serve a task, judged as values: every row of the table in LEDGER.md, 6."""

from typing import Any

import fleet
import numpy as np
import pytest

from broker.ledger.rows import Start
from broker.task.candidacy import ANSWER_S, Candidacy, Verdict
from broker.views import Contact
from edgeclient.wire.announcement import MAX_TERM, Announcement
from edgeclient.wire.claim import Claim

MINE, OTHER = "aa" * 8, "bb" * 8
ME = Start(MINE, 5, "5e" * 8, "here")
BEFORE = ME._replace(term=4, service="4e" * 8)


def head(ledger: str, service: str, term: int = 4, **more: Any) -> Announcement:
    zeros = np.zeros(fleet.LAYOUT.size, np.float32)
    return fleet.announcement("t", 7, zeros, service, ledger=ledger, term=term, **more)


def judged(lineage: dict[str, Start], *heard: Announcement | Claim, at_s: float) -> Verdict | None:
    candidacy = Candidacy("t", ME, lineage, asked_s=0.0)
    for each in heard:
        if isinstance(each, Claim):
            candidacy.claimed(each, now=0.1)
        else:
            candidacy.announced(each)
    candidacy.claimed(candidacy.claim, now=0.1)
    return candidacy.verdict(now=at_s)


SOON, LATE = 0.3, ANSWER_S
SERVED = {MINE: BEFORE}


@pytest.mark.parametrize(
    ("lineage", "heard", "at_once"),
    [
        ({}, [], True),
        (SERVED, [], True),
        (SERVED, [head(MINE, BEFORE.service)], True),  # of this place, whose lock is ours
        (SERVED, [head(MINE, "99" * 8, term=9)], False),  # an older self was put back
        ({MINE: BEFORE._replace(place="there")}, [], False),  # the folder was moved or copied
        (SERVED, [head(OTHER, "99" * 8, term=9)], False),  # forged, or a stranger that is gone
        ({OTHER: Start(OTHER, 9)}, [head(OTHER, "99" * 8, term=9)], False),  # taken over
        ({**SERVED, OTHER: Start(OTHER, 9)}, [head(OTHER, "99" * 8, term=9, succeeds=(MINE,))], False),  # and back
        (SERVED, [Claim(OTHER, 99, "99" * 8, served=False)], True),  # asks at the same time, has never served
        (SERVED, [Claim(OTHER, 99, "99" * 8, served=True, answers="77" * 8)], True),  # answers somebody else
    ],
)
def test_it_serves(lineage: dict[str, Start], heard: list[Announcement | Claim], *, at_once: bool) -> None:
    soon, late = judged(lineage, *heard, at_s=SOON), judged(lineage, *heard, at_s=LATE)
    assert (soon is not None) is at_once
    assert late is not None
    assert (late.why, late.rival) == ("", None)
    own = [each.term for each in heard if isinstance(each, Announcement) and each.ledger == MINE and each.term > 5]
    assert late.above == max(own, default=late.above)


@pytest.mark.parametrize(
    ("lineage", "heard", "contact"),
    [
        ({}, [head(OTHER, "99" * 8)], Contact.SILENT),  # a stranger itself
        (SERVED, [head(OTHER, "99" * 8, succeeds=(MINE,))], Contact.SILENT),  # it was succeeded
        ({OTHER: Start(OTHER, 8)}, [head(OTHER, "99" * 8, term=9)], Contact.SILENT),  # a later start of the other
        ({OTHER: Start(OTHER, 9)}, [Claim(OTHER, 9, "99" * 8, True, ME.service)], Contact.ALIVE),
        (SERVED, [Claim(MINE, 4, "99" * 8, True, ME.service)], Contact.ALIVE),  # a copy beside the original
        ({}, [Claim(OTHER, 1, "99" * 8, served=True)], Contact.ALIVE),  # of two that ask, the one that has served
        (SERVED, [Claim(MINE, 6, "99" * 8, served=True)], Contact.ALIVE),
    ],
)
def test_it_does_not_serve(lineage: dict[str, Start], heard: list[Announcement | Claim], contact: Contact) -> None:
    verdict = judged(lineage, *heard, at_s=LATE)
    assert verdict is not None
    assert (bool(verdict.why), verdict.contact, len(verdict.why.splitlines())) == (True, contact, 1)
    assert verdict.rival is not None
    assert (judged(lineage, *heard, at_s=SOON) is not None) is (contact is Contact.ALIVE)


def test_a_forged_term_does_not_use_up_the_numbers() -> None:
    """Devices take no announcement with a term beyond 32 bits: one that lies would end the task for good."""
    verdict = judged(SERVED, head(MINE, "99" * 8, term=MAX_TERM), head(MINE, "98" * 8, term=9), at_s=LATE)
    assert verdict == Verdict(above=9)
