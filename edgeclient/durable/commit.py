"""The ONE commit of a round: its frames wait and its residual is the live one, or neither is so.

A frame without its residual would count twice, a residual without its frame would lose.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from edgeclient.durable.database import move
from edgeclient.wire.life import Event


class Round(NamedTuple):
    """What the account says from then on: slot and checksum of the residual, base version, and the round's name."""

    slot: int
    checksum: int
    base_version: int
    token: str


def commit(
    db: sqlite3.Connection, layers: Sequence[Sequence[bytes]], made: Round, *, merged: Sequence[int], made_s: float
) -> None:
    """Within the caller's transaction, and after the residual is synced in its slot: see `Store.commit_round`."""
    db.executemany(
        "INSERT INTO frame (state, layer, base_version, created, body) VALUES ('queued', ?, ?, ?, ?)",
        [(layer, made.base_version, made_s, body) for layer, bodies in enumerate(layers) for body in bodies],
    )
    move(db, Event.MERGE, "id", merged)
    db.execute(
        "UPDATE account SET slot = ?, checksum = ?, trained_version = ?, round_token = ?, rounds = rounds + 1,"
        " next_update = next_update + 1",
        made,
    )
