"""`edgebroker simulate`: a dry run before anything is deployed."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from broker.commands.options import FILE, JSON
from broker.commands.task import assigned
from broker.settings import Task
from broker.simulate import charts, findings
from broker.simulate.crew import Crew
from broker.simulate.links import Availability, Links
from broker.simulate.population import populate
from broker.simulate.progress import shown
from broker.simulate.rehearsal import Rehearsal, rehearse
from broker.simulate.search import DENSITIES
from broker.simulate.split import Split
from broker.simulate.trial import Trial
from edgeclient import files
from edgeclient.bundle import archive
from edgeclient.settings import ConfigError, load
from edgeclient.wire.errors import WireError

_CHILDREN: Final = 2
# Who trains when: every device that is there on each version; cohorts that begin together; always so many at work.
_STRATEGIES: Final = ("service", "rounds", "buffered")


@click.command("simulate")
@click.argument("bundle_file", metavar="BUNDLE", type=FILE)
@click.option("--data", "source", required=True, help="What [data] source of a device may be.")
@click.option(
    "--option", "options", multiple=True, metavar="KEY=VALUE", help="Of that data, as in [data.options]; repeatable."
)
@click.option("--test", type=FILE, help="What versions are judged on; without it, a fifth of the data is kept aside.")
@click.option(
    "--split", "how", default="even", show_default=True, metavar="HOW",
    help="by=COLUMN, dirichlet=0.3 (shares of labels), classes=2 (of each device), or even.",
)  # fmt: skip
@click.option("--devices", type=click.IntRange(1), help="16, or as many as by=COLUMN tells apart.")
@click.option("--rounds", "versions", type=click.IntRange(1), default=100, show_default=True, help="Versions to make.")
@click.option("--settings", "settings_file", type=FILE, help="TOML, as for task add: what the fleet has now.")
@click.option("--density", "densities", metavar="D,D", help="To try, such as .01,.0025.")
@click.option(
    "--strategy", type=click.Choice(_STRATEGIES),
    help="service: whoever is there trains on each version (default); rounds: cohorts begin together (with --cohort);"
    " buffered: always so many are at work.",
)  # fmt: skip
@click.option("--cohort", type=click.IntRange(1), help="Devices that train at once.")
@click.option("--links", metavar="A..B", help="Of devices, such as 10kbit..10Mbit; without it, 1Mbit.")
@click.option("--availability", type=FILE, help="CSV: device,from_s,to_s; when devices are there, over and over.")
@click.option("--no-search", is_flag=True, help="These settings alone, and those of --density.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Charts, JSON and task.toml go there.")
@JSON
def simulate_command(**given: Any) -> None:
    """Let a fleet learn on this machine before there is one: your model, your data, nothing sent, nothing kept.

    Answers which learning rate, how many epochs, which density, and whether the data is enough: settings are chosen on
    one part of the examples kept aside and confirmed on another. Devices, frames and aggregator are the product's own;
    time is virtual. Ctrl-C ends it with what is known.

    \b
    Example:
      edgebroker simulate model.bundle --data mine.npz --split by=person --rounds 50
      edgebroker simulate model.bundle --data mine.csv --option labels=activity --split dirichlet=0.3 --devices 100 \\
          --links 10kbit..10Mbit --density .01,.0025 --out dry-run
    """
    asked = _Asked(**given)
    content = asked.bundle_file.read_bytes()
    try:
        manifest = archive.decode(content).manifest
    except WireError as error:
        raise ConfigError(f"{asked.bundle_file}: {error.detail}") from None
    settings = load(asked.settings_file.absolute(), Task) if asked.settings_file else Task()
    densities, started = _densities(asked.densities), _started(asked.strategy, asked.cohort)
    links = Links.of(asked.links) if asked.links else Links()
    population = populate(
        manifest, asked.source, assigned(asked.options), split=Split.of(asked.how), devices=asked.devices,
        seed=asked.seed, test=_judged(asked, settings),
    )  # fmt: skip
    count, aside = len(population.devices), len(population.test[-1])
    if started.get("cohort", 0) > count:
        raise ConfigError(f"--cohort {asked.cohort}: there are {count} devices")
    there = _availability(asked.availability, count)
    trial = Trial(settings, asked.versions, seed=asked.seed, links=links, availability=there, **started)
    told = f"{count} devices with {population.examples} examples, {aside} to judge on; {asked.versions} versions"
    click.echo(f"{asked.bundle_file}: {told}", err=True)
    search = not asked.no_search
    rehearsal = Rehearsal(trial, densities or (DENSITIES if search else ()))
    children = _CHILDREN if search and (os.cpu_count() or 1) > 1 else 0
    with Crew(content, population, children) as crew, shown(asked.versions) as tell:
        rehearse(crew, rehearsal, tell, search=search)
    found = {"devices": count, "examples": population.examples, "judged_on": aside, **findings.document(rehearsal)}
    if asked.as_json:
        click.echo(json.dumps(found))
    else:
        for line in findings.told(rehearsal):
            click.echo(line)
        text = found["settings"] or "# all as it is by default\n"
        click.echo(f"\n# task.toml, for edgebroker task add --settings\n{text}", nl=False)
    if asked.out is not None:
        _write(asked.out, found, rehearsal, manifest.layout.size)


@dataclass(frozen=True, slots=True)
class _Asked:
    """The command line."""

    bundle_file: Path
    source: str
    options: tuple[str, ...]
    test: Path | None
    how: str
    devices: int | None
    versions: int
    settings_file: Path | None
    densities: str | None
    strategy: str | None
    cohort: int | None
    links: str | None
    availability: Path | None
    no_search: bool
    seed: int
    out: Path | None
    as_json: bool


def _judged(asked: _Asked, settings: Task) -> tuple[str, dict[str, Any]] | None:
    """Data that versions are judged on, if somebody says which, and how it is read."""
    if asked.test is not None:
        return str(asked.test), assigned(asked.options)
    return None if settings.evaluation is None else (str(settings.evaluation), settings.evaluation_options)


def _write(out: Path, found: dict[str, Any], rehearsal: Rehearsal, parameters: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "dry-run.json").write_text(json.dumps(found), encoding="utf-8")
    (out / "task.toml").write_text(found["settings"], encoding="utf-8")
    undrawn = charts.draw(rehearsal, parameters, out)
    click.echo(undrawn or f"{out}: {charts.BY_VERSION}, {charts.BY_BYTES}, dry-run.json, task.toml", err=True)


def _densities(text: str | None) -> tuple[float, ...]:
    """What is tried, as a policy allows it."""
    try:
        found = tuple(float(each) for each in text.split(",")) if text else ()
    except ValueError:
        raise ConfigError(f"--density {text}: numbers with commas between are wanted, such as .01,.0025") from None
    if wrong := [each for each in found if not 0 < each <= 1]:
        raise ConfigError(f"--density {wrong[0]:g}: a fraction of the parameters is wanted, over 0 and at most 1")
    return found


def _availability(path: Path | None, devices: int) -> Availability:
    if path is None:
        return Availability()
    try:
        return Availability.read(files.text(path).splitlines(), devices, str(path))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def _started(strategy: str | None, cohort: int | None) -> dict[str, Any]:
    """Who begins when, as a trial has it."""
    if cohort is None:
        if strategy in {"rounds", "buffered"}:
            raise click.UsageError(f"--strategy {strategy} needs --cohort: how many train at once")
        return {}
    if strategy == "service":
        raise click.UsageError("--strategy service has no --cohort: whoever is there trains")
    return {"cohort": cohort, "refill": "always" if strategy == "buffered" else "version"}
