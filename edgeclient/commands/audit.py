"""The command `edgeclient audit`: both sides of a device's account, for a check from outside."""

import json
from pathlib import Path

import click
import numpy as np

from edgeclient.audit import Auditor
from edgeclient.bundle.manifest import read_manifest
from edgeclient.commands.options import CONFIG, FILE, JSON
from edgeclient.durable.lock import StoreError
from edgeclient.durable.store import Store
from edgeclient.models.slots import Models
from edgeclient.settings import ConfigError, Device, load
from edgeclient.wire.life import State


@click.command("audit")
@CONFIG
@click.option("--out", required=True, type=FILE, help="The .npz file to write.")
@JSON
def audit_command(config: Path, out: Path, *, as_json: bool) -> None:
    """Export what was trained and what waits, so that the account can be checked from outside.

    Needs `audit = true` in CONFIG, and `run` not running. The file holds both sides of the law of
    conservation: trained, absolute, rounds (kept apart from the store); residual, frames (the store's). The frames
    are read with `tensors`.

    \b
    Example:
      edgeclient audit device.toml --out account.npz --json
    """
    settings = load(config, Device)
    if not settings.audit:
        raise ConfigError(f"{config}: audit is off: set audit = true before the device trains")
    model = Models(settings.models).active()
    if model is None:
        raise StoreError(f"{settings.directory} holds no model yet: there is nothing to audit")
    announced = model.announcement
    layout = read_manifest(model.bundle_directory).layout
    with Store(settings.store, layout=announced.layout, size=announced.size) as store:
        account = store.account()
        auditor = Auditor(
            settings.directory / "audit", epoch=account.epoch, size=account.size, committed=account.round_token
        )
        frames = store.frames()
        np.savez(
            out,
            tensors=np.array(layout.tensors, np.int64),
            trained=auditor.trained,
            absolute=auditor.absolute,
            residual=store.residual(),
            frame_bytes=np.frombuffer(b"".join(each.body for each in frames), np.uint8),
            frame_lengths=np.array([len(each.body) for each in frames], np.int64),
            frame_states=np.array([each.state.value for each in frames], np.str_),
            frame_sequences=np.array([-1 if each.sequence is None else each.sequence for each in frames], np.int64),
        )
        told = {
            "device": settings.device,
            "epoch": account.epoch,
            "next_sequence": account.next_sequence,
            "rounds": auditor.rounds,
            "renewals": account.renewals,
            **{state.value: count for state, count in store.outbox().counts().items()},
        }
    if as_json:
        click.echo(json.dumps(told))
        return
    waiting = ", ".join(f"{told[state.value]} {state.value}" for state in State)
    click.echo(f"{settings.device}: {told['rounds']} rounds; frames: {waiting} → {out}")
