"""`edgebroker demo`: the whole loop on this machine."""

import sys
from pathlib import Path

import click

from broker.demo import run
from broker.demo.plan import Plan


@click.command("demo")
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
