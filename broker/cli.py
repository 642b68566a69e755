"""The command `edgebroker`."""

import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from broker.commands import fleet, store, story, top
from broker.demo import run
from broker.demo.plan import DemoError, Plan
from broker.ledger.opening import open_ledger
from broker.ledger.protocol import Ledger, LedgerError
from broker.page.serving import watching
from broker.processes import children
from broker.processes.embedded import EmbeddedBroker, EmbeddedBrokerError
from broker.registry.blobs import RegistryError
from broker.service import Service, add_task
from broker.settings import Aggregator, Task
from broker.upkeep.accounts import AccountError
from broker.upkeep.backup import UpkeepError
from edgeclient import __version__
from edgeclient.link.mqtt import Endpoint
from edgeclient.logs import output
from edgeclient.settings import ConfigError, load
from edgeclient.wire.errors import WireError

EXPECTED = (
    ConfigError,
    LedgerError,
    RegistryError,
    EmbeddedBrokerError,
    WireError,
    DemoError,
    AccountError,
    UpkeepError,
    OSError,
)
CONFIG = click.argument("config", type=click.Path(path_type=Path, dir_okay=False))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgebroker")
def cli() -> None:
    """The side beside the MQTT broker: counts every upload exactly once and makes new global models.

    \b
    Example:
      edgebroker demo --seconds 60        see the whole loop on this machine
    """


@cli.command()
@CONFIG
@output.options
def serve(config: Path, log_format: str, log_level: str) -> None:
    """Aggregate all tasks of the ledger, until stopped.

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
    settings = load(config, Aggregator)
    if not settings.ledger.exists():
        raise LedgerError(f"{settings.ledger} does not exist: add a task first, see edgebroker task add --help")
    with ExitStack() as stack:
        embedded = None
        if settings.embedded is not None:
            started = EmbeddedBroker(
                settings.directory / "mqtt", host=settings.embedded.host, port=settings.embedded.port
            )
            embedded = stack.enter_context(started)
            endpoint = Endpoint(settings.embedded.reached_at, embedded.port)
        else:
            assert settings.mqtt is not None
            endpoint = Endpoint.of(settings.mqtt)
        evaluators: list[subprocess.Popen[bytes]] = []
        stack.callback(lambda: children.end_all(evaluators))

        def spawn(command: list[str]) -> subprocess.Popen[bytes]:
            process = children.spawn(command, log=settings.directory / "evaluate.log", pipes=True)
            evaluators.append(process)
            return process

        tend = embedded.tend if embedded is not None else None
        service = Service(settings, endpoint, spawn, stack.enter_context(watching(settings)), tend)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: service.stop())
        click.echo(f"aggregating on {endpoint.url}, stop with Ctrl-C")
        service.run()


@cli.group()
def task() -> None:
    """Add and list tasks: one model, learned by one fleet.

    \b
    Example:
      edgebroker task list --config broker.toml
    """


@task.command("add")
@click.argument("name")
@click.argument("bundle_file", metavar="BUNDLE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The aggregator's file.")
@click.option(
    "--settings", "settings_file", type=click.Path(path_type=Path, dir_okay=False), help="TOML: goal, policy …"
)
def task_add(name: str, bundle_file: Path, config: Path, settings_file: Path | None) -> None:
    """Make the parameters of a training BUNDLE version 0 of a new task NAME.

    \b
    Example:
      edgebroker task add har watch-har.bundle --config broker.toml --settings har.toml
    \b
    Example har.toml:
      goal = 8                    # updates per version
      [policy]
      density = 0.01              # fraction of coordinates that an update keeps
    """
    add_task(
        load(config, Aggregator), name, bundle_file.read_bytes(), load(settings_file, Task) if settings_file else Task()
    )
    click.echo(f"task {name} added: devices may join once edgebroker serve runs")


@task.command("list")
@click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The aggregator's file.")
@click.option("--json", "as_json_", is_flag=True, help="One JSON object.")
def task_list(config: Path, *, as_json_: bool) -> None:
    """List tasks with their current version.

    \b
    Example:
      edgebroker task list --config broker.toml --json
    """
    with _reading(load(config, Aggregator)) as ledger:
        rows = [
            {"task": name, "version": last.number, "bundle": digest, "metrics": last.metrics}
            for name, digest, _ in ledger.tasks()
            for last in ledger.versions(name, last=1)
        ]
    if as_json_:
        click.echo(json.dumps({"tasks": rows}))
    for row in rows if not as_json_ else ():
        click.echo(f"{row['task']}  version {row['version']}  {_metrics(row['metrics'])}")


@cli.command()
@CONFIG
@click.option("--json", "as_json_", is_flag=True, help="One JSON object.")
def status(config: Path, *, as_json_: bool) -> None:
    """Show versions and what every device has contributed; works while `serve` runs.

    \b
    Example:
      edgebroker status broker.toml --json
    """
    with _reading(load(config, Aggregator)) as ledger:
        tasks: list[dict[str, Any]] = []
        for name, _, _ in ledger.tasks():
            versions = ledger.versions(name)
            counts, lost = ledger.frame_counts(name), ledger.lost_to_restore(name)
            tasks.append(
                {
                    "task": name,
                    "version": versions[-1].number,
                    "metrics": versions[-1].metrics,
                    "updates_waiting": ledger.pending(name).updates,
                    "devices": {
                        device: {"applied": applied, "refused": refused, "lost_to_restore": lost.get(device, 0)}
                        for device, (applied, refused, _) in (dict.fromkeys(lost, (0, 0, 0)) | counts).items()
                    },
                }
            )
    if as_json_:
        click.echo(json.dumps({"tasks": tasks}))
        return
    for each in tasks:
        click.echo(
            f"task {each['task']}: version {each['version']}, {each['updates_waiting']} updates wait for the next"
        )
        click.echo(f"  {_metrics(each['metrics'])}")
        for device, count in each["devices"].items():
            gap = f", {count['lost_to_restore']} lost to a restore" if count["lost_to_restore"] else ""
            click.echo(f"  {device}: {count['applied']} frames applied, {count['refused']} refused{gap}")


@cli.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-run"),
    show_default=True,
    help="Folder for logs, stores and the report; an earlier demo's is replaced.",
)
@click.option(
    "--seconds", type=click.FloatRange(5, 3600), default=60.0, show_default=True, help="How long devices learn."
)
@click.option("--devices", type=click.IntRange(1, 16), default=16, show_default=True, help="Device processes.")
@click.option(
    "--density",
    type=click.FloatRange(1e-4, 0.05),
    default=0.01,
    show_default=True,
    help="Fraction of coordinates per update.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31),
    default=0,
    show_default=True,
    help="Of batch order and of which device is killed.",
)
@click.option(
    "--sabotage",
    type=click.Choice(["drop", "double", "residual"]),
    help="Break one promise on purpose; the report must notice.",
)
@click.option("--web/--no-web", default=True, help="Serve a web page of it, whose address is printed.")
def demo_command(
    out: Path, *, seconds: float, devices: int, density: float, seed: int, sabotage: str | None, web: bool
) -> None:
    """Run the whole loop on this machine: MQTT broker, aggregator and device processes on real sensor data.

    Ten people wore a smartwatch while exercising; each wrist of eight of them is one device with only its
    own data, the other two people are the test. At mid-run one device and the aggregator are killed.
    Ends with report.json and report.html in --out. Exit code 1 when the account does not add up.

    \b
    Example:
      edgebroker demo --seconds 60 --devices 16 --out demo-run
    """
    plan = Plan(out, seconds=seconds, devices=devices, density=density, seed=seed, sabotage=sabotage, web=web)
    sys.exit(0 if run.run(plan) else 1)


for _command in (
    *(fleet.init, fleet.devices, story.why, story.events, top.top),
    *(store.backup, store.restore, store.ledger),
):
    cli.add_command(_command)


def _reading(settings: Aggregator) -> Ledger:
    if not settings.ledger.exists():
        raise LedgerError(f"{settings.ledger} does not exist: add a task first, see edgebroker task add --help")
    return open_ledger(settings.ledger, read_only=True)


def _metrics(metrics: Any) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in metrics.items()) or "not evaluated"


def main() -> None:
    """Entry point of the command."""
    output.end(cli, "edgebroker", EXPECTED)


if __name__ == "__main__":
    main()
