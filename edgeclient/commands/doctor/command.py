"""The command `edgeclient doctor`."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from edgeclient.commands.doctor import android, bench, machine, software, task
from edgeclient.commands.doctor.data import data
from edgeclient.commands.doctor.findings import Check, Finding, found, table, worst
from edgeclient.commands.doctor.learning import learning
from edgeclient.commands.options import FILE, JSON
from edgeclient.conditions.board import Board
from edgeclient.settings import Device
from edgeclient.train.batches import DataError
from edgeclient.train.trainer import TrainingError
from edgeclient.wire.errors import WireError

T = TypeVar("T", bound=tuple[Any, ...])
# Compiling a kernel that is not cached takes a Raspberry Pi several seconds.
_SLOW_S: Final = 60.0
_QUICK_S: Final = 5.0
_BROKER_S: Final = 15.0
_SHOWN_AFTER_S: Final = 2.0


@click.command("doctor")
@click.argument("config", required=False, type=FILE)
@click.option("--bench", "with_bench", is_flag=True, help="Measure selection, codecs and training as well: seconds.")
@JSON
def doctor_command(config: Path | None, *, with_bench: bool, as_json: bool) -> None:
    """Say what is installed, which kernels run, what the board tells; with CONFIG, whether the device can take part.

    Every line is ok, warn (it works, but worse than it could) or fail, and says what to do. The exit code is 1 if one
    fails. Nothing is changed.

    \b
    Example:
      edgeclient doctor device.toml
      edgeclient doctor --bench --json
    """
    findings: list[Finding] = []
    settings = None
    if config is not None:
        settings, finding = task.configuration(config)
        findings.append(finding)
    for name, check, timeout_s in _shown(checks(settings), as_json=as_json):
        findings += found(name, check, timeout_s)
    measured: list[bench.Measured] = []
    if with_bench:
        for name, run in _shown(measurements(settings), as_json=as_json):
            try:
                measured += run()
            except (TrainingError, DataError, WireError, OSError, MemoryError) as error:
                findings.append(Finding("fail", name, str(error) or type(error).__name__))
    level = worst(findings)
    if as_json:
        said = {"level": level, "findings": [asdict(each) for each in findings]}
        click.echo(json.dumps(said | ({"bench": [asdict(each) for each in measured]} if with_bench else {})))
    else:
        click.echo(table(findings))
        for each in measured:
            click.echo(f"{each.name:<48} {each.value:>10.2f} {each.unit}")
    if level == "fail":
        sys.exit(1)


def checks(settings: Device | None) -> list[tuple[str, Check, float]]:
    """What is looked at, and for how many seconds at most."""
    made: list[tuple[str, Check, float]] = [
        ("python", software.python, _QUICK_S),
        ("packages", software.packages, _QUICK_S),
        # Before what makes the board busy.
        ("conditions", machine.conditions, _BROKER_S),
        *([] if settings is None else [("conditions now", partial(machine.granted, settings), _BROKER_S)]),
        ("onnxruntime", software.onnxruntime, _SLOW_S),
        ("kernels", software.kernels, _SLOW_S),
        ("memory", machine.memory, _BROKER_S),
        ("clock", machine.clock, _QUICK_S),
        ("android", android.processes, _BROKER_S),
        ("disk", partial(machine.disk, Path() if settings is None else settings.directory), _BROKER_S),
    ]
    if settings is not None:
        made += [
            ("data", partial(data, settings), _SLOW_S),
            ("learning", partial(learning, settings), _SLOW_S),
            ("broker", partial(task.broker, settings), _BROKER_S),
        ]
    return made


def measurements(settings: Device | None) -> list[tuple[str, Callable[[], Iterable[bench.Measured]]]]:
    """What --bench measures."""
    made: list[tuple[str, Callable[[], Iterable[bench.Measured]]]] = [
        (f"selection, {n:,} parameters", partial(bench.selection, n)) for n in bench.sizes(Board().observe().free_bytes)
    ]
    made.append(("codecs", bench.codecs))
    if settings is not None:
        made.append(("training", partial(bench.training, settings)))
    return made


def _shown(steps: Iterable[T], *, as_json: bool) -> Iterator[T]:
    """The steps, each with its name first; after some seconds it is said which one runs."""
    began = time.monotonic()
    for step in steps:
        if not as_json and time.monotonic() - began > _SHOWN_AFTER_S:
            click.echo(f"… {step[0]}", err=True)
        yield step
