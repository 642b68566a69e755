"""The command `edgeclient`."""

import json
import os
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgeclient import __version__, logs
from edgeclient import agent as agent_module
from edgeclient.agent import Agent
from edgeclient.audit import Auditor
from edgeclient.bundle import archive
from edgeclient.commands.compile import compile_command
from edgeclient.commands.doctor.command import doctor_command
from edgeclient.commands.frame import frame_command
from edgeclient.commands.install.command import install_command, logs_command, uninstall_command
from edgeclient.commands.new.command import new_command
from edgeclient.commands.owner import join_command, leave_command, pause_command, resume_command
from edgeclient.commands.store import store_command
from edgeclient.commands.warmup import warmup_command
from edgeclient.compile.errors import CompileError
from edgeclient.conditions.guard import PAUSED
from edgeclient.durable.lock import StoreError, in_use
from edgeclient.durable.rows import State
from edgeclient.durable.store import Store
from edgeclient.models.slots import Models
from edgeclient.settings import ConfigError, Device, load
from edgeclient.train.data import DataError, Dataset, check_source, open_data
from edgeclient.train.local import open_measured
from edgeclient.train.statistics import Statistics
from edgeclient.train.trainer import Evaluation, Trainer, TrainingError
from edgeclient.train.trainers import open_trainer
from edgeclient.wire.errors import WireError

EXPECTED = (ConfigError, CompileError, StoreError, DataError, TrainingError, WireError, OSError)
CONFIG = click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeclient")
def cli() -> None:
    """Learn from data that never leaves this device, and upload a few kilobytes when nobody minds.

    \b
    Example:
      edgeclient run device.toml
    """


@cli.command()
@click.argument(
    "configs", metavar="CONFIG...", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False)
)
@logs.options
def run(configs: tuple[Path, ...], log_format: str, log_level: str) -> None:
    """Take part in a task until stopped: fetch the model, train, upload.

    CONFIG is a TOML file: who this device is, where the MQTT broker is, where the data is. With several, the device
    takes part in several tasks, one at a time; the [conditions] of the first hold for all, and its budgets are shared.

    \b
    Example device.toml:
      device = "pi-7"
      task = "har"
      directory = "edge-data"     # store, model, status
      [mqtt]
      host = "192.168.1.10"
      [data]
      source = "windows.npz"      # arrays x and labels; or package.module:function
    \b
    Example:
      edgeclient run device.toml
    """
    logs.configure(log_format, log_level)
    agents = _agents(configs)
    click.echo("stop with Ctrl-C")
    agent_module.run(agents)


@cli.command()
@CONFIG
@click.option("--timeout", "timeout_s", default=1800.0, show_default=True, help="Give up after so many seconds.")
@JSON
@logs.options
def once(config: Path, timeout_s: float, log_format: str, log_level: str, *, as_json: bool) -> None:
    """Train on the current version, wait until what came of it is counted, and end: for timers and job schedulers.

    The exit code is 0 when everything is done, and 3 when conditions forbid it now or the time is over; what was learnt
    is kept, and the next run goes on.

    \b
    Example:
      edgeclient once device.toml --timeout 600
    """
    logs.configure(log_format, log_level)
    (agent,) = _agents([config])
    timer = threading.Timer(timeout_s, agent.stop)
    timer.daemon = True
    timer.start()
    agent_module.run([agent], once=True)
    timer.cancel()
    why = "" if agent.outcome["done"] else agent.forbidden or f"stopped, or not done after {timeout_s:.0f} s"
    if as_json:
        click.echo(json.dumps(agent.outcome | {"because": why}))
    else:
        click.echo(why or f"version {agent.outcome['version']} is trained on, and every frame is counted")
    if why:
        sys.exit(3)


def _agents(configs: Sequence[Path]) -> list[Agent]:
    """Agents that share what the owner grants; signals stop them."""
    every = [load(config, Device) for config in configs]
    if len({settings.directory.resolve() for settings in every}) < len(every):
        raise ConfigError("two tasks in one directory: give each configuration a directory of its own")
    agents: list[Agent] = []
    for settings in every:
        check_source(settings.data.source)
        settings.directory.mkdir(parents=True, exist_ok=True)
        os.nice(max(0, settings.training.nice - os.nice(0)))
        agents.append(Agent(settings, guard=agents[0].guard if agents else None))
        where = f"{'mqtts' if settings.mqtt.tls else 'mqtt'}://{settings.mqtt.host}:{settings.mqtt.port}"
        click.echo(f"{settings.device} learns {settings.task} at {where}")

    def stop(*_: object) -> None:
        for agent in agents:
            agent.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return agents


@cli.command()
@CONFIG
@JSON
def status(config: Path, *, as_json: bool) -> None:
    """What the device does or waits for; works while `run` runs.

    \b
    Example:
      edgeclient status device.toml --json
    """
    settings = load(config, Device)
    path = settings.directory / "status.json"
    if not path.exists():
        raise StoreError(f"{path} does not exist: this device has not run yet, start it with edgeclient run {config}")
    said: dict[str, Any] = json.loads(path.read_text())
    said["running"] = in_use(settings.directory / "store" / "lock")
    if as_json:
        click.echo(json.dumps({"device": settings.device, "task": settings.task, **said}))
        return
    idle = "not running" + ", and paused: edgeclient resume lets it go on" * (settings.directory / PAUSED).exists()
    click.echo(f"{settings.device}: {said['note'] if said['running'] else idle}")
    click.echo(f"  model version {said['version']}, {said['rounds']} rounds trained")
    frames = ", ".join(f"{said[state]} {state}" for state in ("queued", "sent", "returned", "applied", "refused"))
    click.echo(f"  frames: {frames}")
    if gained := said.get("gain"):
        losses = f"{gained['loss_before']:.4f} → {gained['loss_after']:.4f}"
        click.echo(
            f"  loss on {gained['num_examples']} held-out examples: {losses} by the round from {gained['version']}"
        )
    click.echo(f"  {said['up_bytes']} bytes uploaded since it started")


@cli.command()
@click.argument("config", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--bundle",
    "bundle_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A training bundle, instead of CONFIG.",
)
@click.option("--data", "source", help="With --bundle: an .npz file or package.module:function.")
@click.option(
    "--parameters",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --bundle: flat float32 numbers, instead of the bundle's own.",
)
@click.option(
    "--follow", is_flag=True, help="With --bundle: evaluate the parameter file named on each line of standard input."
)
@JSON
def evaluate(
    config: Path | None,
    bundle_file: Path | None,
    source: str | None,
    parameters: Path | None,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    """Measure a model on data: this device's own (its holdout, if it has one), or any bundle on any data.

    \b
    Example:
      edgeclient evaluate device.toml
      edgeclient evaluate --bundle watch-har.bundle --data held_out.npz --json
    """
    if (config is None) == (bundle_file is None):
        raise click.UsageError("give either a device's CONFIG or --bundle with --data")
    if config is not None:
        settings = load(config, Device)
        model = Models(settings.directory / "models").active()
        if model is None:
            raise StoreError(f"{settings.directory} holds no model yet: start edgeclient run {config} first")
        manifest = archive.read_manifest((model.bundle_directory / "manifest.json").read_bytes())
        data = open_measured(settings.data, manifest, directory=settings.directory, device=settings.device)
        trainer = open_trainer(model.bundle_directory, settings.training.runtime, settings.training.threads)
        _tell(trainer.evaluate(model.parameters, data, Statistics(model.bundle_directory).load()), as_json=as_json)
        return
    if source is None:
        raise click.UsageError("--bundle needs --data")
    assert bundle_file is not None
    opened = archive.decode(bundle_file.read_bytes())
    data = open_data(source, {}, opened.manifest)
    with _unpacked(opened) as directory:
        trainer = open_trainer(directory)
        if follow:
            _follow(trainer, data, sys.stdin, opened.manifest.layout.size)
            return
        numbers = opened.parameters if parameters is None else _numbers(parameters, opened.manifest.layout.size)
        _tell(trainer.evaluate(numbers, data), as_json=as_json)


@cli.command()
@CONFIG
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The .npz file to write.")
@JSON
def audit(config: Path, out: Path, *, as_json: bool) -> None:
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
    model = Models(settings.directory / "models").active()
    if model is None:
        raise StoreError(f"{settings.directory} holds no model yet: there is nothing to audit")
    announced = model.announcement
    layout = archive.read_manifest((model.bundle_directory / "manifest.json").read_bytes()).layout
    with Store(settings.directory / "store", layout=announced.layout, size=announced.size) as store:
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
            **{state.value: count for state, count in store.counts().items()},
        }
    if as_json:
        click.echo(json.dumps(told))
        return
    waiting = ", ".join(f"{told[state.value]} {state.value}" for state in State)
    click.echo(f"{settings.device}: {told['rounds']} rounds; frames: {waiting} → {out}")


cli.add_command(compile_command)
cli.add_command(doctor_command)
cli.add_command(frame_command)
cli.add_command(install_command)
cli.add_command(logs_command)
cli.add_command(new_command)
cli.add_command(store_command)
for command in (pause_command, resume_command, join_command, leave_command):
    cli.add_command(command)
cli.add_command(uninstall_command)
cli.add_command(warmup_command)


@contextmanager
def _unpacked(opened: archive.Bundle) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgeclient-") as directory:
        for name, content in opened.files.items():
            path = Path(directory) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(directory)


def _follow(trainer: Trainer, data: Dataset, lines: Iterable[str], size: int) -> None:
    for line in lines:
        try:
            answer = asdict(trainer.evaluate(_numbers(Path(line.rstrip("\n")), size), data))
        except EXPECTED as error:
            answer = {"error": str(error)}
        click.echo(json.dumps(answer))
        sys.stdout.flush()


def _numbers(path: Path, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    content = path.read_bytes()
    if len(content) != 4 * size:
        raise DataError(f"{path} has {len(content)} bytes, the bundle's {size} parameters need {4 * size}")
    return np.frombuffer(content, "<f4").astype(np.float32)


def _tell(result: Evaluation, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(asdict(result)))
        return
    accuracy = "" if result.accuracy is None else f"accuracy {result.accuracy:.4f}, "
    majority = "" if result.majority is None else f" (always the most common class: {result.majority:.4f})"
    click.echo(f"{accuracy}loss {result.loss:.4f} on {result.num_examples} examples{majority}")


def main() -> None:
    """Entry point: errors that a user can act on are one line and an exit code."""
    try:
        cli.main(prog_name="edgeclient", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except EXPECTED as error:
        click.echo(f"edgeclient: {error}", err=True)
        sys.exit(1)
    except sqlite3.DatabaseError as error:
        click.echo(f"edgeclient: the store cannot be read ({error}): edgeclient store check says more", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
