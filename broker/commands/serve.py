"""`edgebroker serve`: the aggregator, with the MQTT broker and the page that its file asks for."""

import logging
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from broker.commands.options import CONFIG
from broker.ledger.protocol import LedgerError
from broker.monitor.listener import endpoint_of
from broker.monitor.mqtt_health import TOPICS
from broker.monitor.watch import Watch
from broker.page.gate import read_token
from broker.page.serving import watching
from broker.processes import children
from broker.processes.embedded import EmbeddedBroker, monitoring_url
from broker.service import Service
from broker.settings import Aggregator
from edgeclient.link.mqtt import Link
from edgeclient.logs import output
from edgeclient.settings import ConfigError, load
from edgeclient.settings.signals import Signals

_LOG = logging.getLogger(__name__)
_NOT_TAKEN: Final = "the configuration is not taken, the old one goes on: %s"


@click.command("serve")
@CONFIG
@output.options
def serve_command(config: Path, log_format: str, log_level: str) -> None:
    """Aggregate all tasks of the ledger, until stopped. SIGHUP reads CONFIG again.

    CONFIG is a TOML file: where to keep ledger and models, and which MQTT broker to use or to start.

    \b
    Example broker.toml:
      directory = "broker-data"
      [embedded]                  # or [mqtt] with host and port of your own broker
      host = "0.0.0.0"
      port = 1883
      [monitor]                   # web page, /metrics, /healthz and /readyz; http://127.0.0.1:9464 when left out
      host = "0.0.0.0"            # for others than this machine ...
      token_file = "operator.token"   # ... who then need this token
    \b
    Example:
      edgebroker task add har watch-har.bundle --config broker.toml
      edgebroker serve broker.toml
    """
    output.configure(log_format, log_level)
    settings, signals = load(config, Aggregator), Signals()
    if not settings.ledger.exists():
        raise LedgerError(f"{settings.ledger} does not exist: add a task first, see edgebroker task add --help")
    with ExitStack() as outlives:
        tend = None
        if (wanted := settings.embedded) is not None:
            embedded = EmbeddedBroker(settings.directory / "mqtt", host=wanted.host, port=wanted.port)
            tend = outlives.enter_context(embedded).tend
        before: Aggregator | None = None  # what the last life went by
        while True:
            try:
                _live(settings, signals, tend)
            except ConfigError as error:  # such as a port that another program has
                if before is None:
                    raise
                _LOG.error(_NOT_TAKEN, error)
                settings, before = before, None
                continue
            if signals.ending:
                return
            settings, before = _reloaded(config, settings), settings


def _live(settings: Aggregator, signals: Signals, tend: Callable[[], None] | None) -> None:
    """Aggregate until a signal."""
    endpoint = endpoint_of(settings)
    with ExitStack() as stack:
        evaluators: list[subprocess.Popen[bytes]] = []
        stack.callback(lambda: children.end_all(evaluators))

        def spawn(command: list[str]) -> "subprocess.Popen[bytes]":
            process = children.spawn(command, log=settings.directory / "evaluate.log", pipes=True)
            evaluators.append(process)
            return process

        watch = stack.enter_context(watching(settings))
        link = Link(endpoint, client_id_prefix="aggregator", exact=True)
        service = Service(settings, link, spawn, watch, tend, health=_health(settings, watch))
        signals.begin(service.stop)
        click.echo(f"aggregating on {endpoint.url}, stop with Ctrl-C")
        service.run()


def _reloaded(config: Path, before: Aggregator) -> Aggregator:
    """What the file says now; as before where that cannot be, which is told."""
    try:
        found = _checked(config, before)
    except ConfigError as error:
        _LOG.error(_NOT_TAKEN, error)
        return before
    _LOG.info("the configuration is read again")
    return found


def _checked(config: Path, before: Aggregator) -> Aggregator:
    """What the file says now, with every file that it names."""
    found = load(config, Aggregator)
    if (found.directory, found.embedded) != (before.directory, before.embedded):
        raise ConfigError(f"{config}: another directory or [embedded] needs a restart")
    endpoint_of(found)
    if found.monitor is not None:
        read_token(found.monitor.host, found.monitor.token_file)
    return found


def _health(settings: Aggregator, watch: Watch) -> Sequence[str]:
    """The watch hears of the MQTT broker: over HTTP from NATS, else from these topics."""
    url = settings.monitor.nats_url if settings.monitor is not None else ""
    if url:
        watch.asks(lambda: url)
    elif settings.embedded is not None:
        watch.asks(lambda: monitoring_url(settings.directory / "mqtt"))
    elif watch.listens:
        return tuple(TOPICS)
    return ()
