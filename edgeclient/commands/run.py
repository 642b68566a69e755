"""The command `edgeclient run`: one process lets a device take part in one task or several."""

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from edgeclient.agent import Agent
from edgeclient.commands.options import FILE
from edgeclient.durable.lock import StoreError
from edgeclient.link.mqtt import Endpoint
from edgeclient.logs import output
from edgeclient.settings import ConfigError, Device, load
from edgeclient.settings.signals import Signals
from edgeclient.train.batches import DataError
from edgeclient.train.data import check_source
from edgeclient.train.runtime import check_runtimes
from edgeclient.train.trainer import TrainingError

_LOG = logging.getLogger(__name__)
_TURN_S: Final = 0.5  # for all tasks together


@click.command("run")
@click.argument("configs", metavar="CONFIG...", nargs=-1, required=True, type=FILE)
@output.options
def run_command(configs: tuple[Path, ...], log_format: str, log_level: str) -> None:
    """Take part in a task until stopped: fetch the model, train, upload. SIGHUP reads the configuration again.

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
    output.configure(log_format, log_level)
    signals, every = Signals(), devices(configs)
    agents = opened(every, signals)
    click.echo("stop with Ctrl-C")
    take_part(agents)
    while not signals.ending:
        try:
            again = devices(configs)
            agents = opened(again, signals)
            every = again
        except (ConfigError, DataError, StoreError, OSError) as error:
            _LOG.error("the configuration is not taken, the old one goes on: %s", error)
            agents = opened(every, signals)
        take_part(agents)


def devices(configs: Sequence[Path]) -> list[Device]:
    """What the files say.

    Raises:
        ConfigError: a file cannot be used, or two want one directory.
    """
    every = [load(config, Device) for config in configs]
    if len({settings.directory.resolve() for settings in every}) < len(every):
        raise ConfigError("two tasks in one directory: give each configuration a directory of its own")
    return every


def opened(every: Sequence[Device], signals: Signals) -> list[Agent]:
    """Agents that share what the owner grants; signals stop them."""
    agents: list[Agent] = []
    for settings in every:  # all that can be wrong, before the first takes its directory
        check_source(settings.data.source)
        Endpoint.of(settings.mqtt)
    for settings in every:
        settings.directory.mkdir(parents=True, exist_ok=True)
        os.nice(max(0, settings.training.nice - os.nice(0)))
        agents.append(Agent(settings, guard=agents[0].guard if agents else None))
        click.echo(f"{settings.device} learns {settings.task} at {Endpoint.of(settings.mqtt).url}")

    def stop() -> None:
        for agent in agents:
            agent.stop()

    signals.begin(stop)
    return agents


def take_part(agents: Sequence[Agent], *, once: bool = False) -> None:
    """Let the tasks of a device live, one process and one thread for all, until they are stopped.

    A task that cannot go on is closed; the others do.

    Args:
        agents: one for each task.
        once: end when none has anything to do, or when conditions forbid it.

    Raises:
        StoreError, DataError, TrainingError, ConfigError: a task cannot take part, and no other is left; the text says
            what to do.
    """
    check_runtimes()
    living = list(agents)
    failed: Exception | None = None
    with ExitStack() as stack:
        for agent in agents:
            stack.callback(agent.close)
            agent.start(once=once)
        while living and not any(agent.stopping for agent in agents):
            for agent in list(living):
                try:
                    agent.turn(_TURN_S / len(living))
                except (ConfigError, StoreError, DataError, TrainingError, OSError) as error:
                    failed = error
                    if len(agents) > 1:
                        _LOG.error("%s learns no longer, the other tasks go on: %s", agent, error)
                    agent.close(f"ended: {error}")
                    living.remove(agent)
            if once and all(agent.standing.done or agent.standing.forbidden for agent in living):
                break
    if failed and (once or not living):
        raise failed
