"""Configuration of the broker side: the aggregator's file and a task's settings."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs

from edgeclient.settings import Mqtt, Source, structure
from edgeclient.settings.keys import auto_or, ruled
from edgeclient.wire.announcement import Policy
from edgeclient.wire.fields import integer, number, pattern

AUTO: Final = "auto"


@attrs.frozen(field_transformer=ruled)
class Embedded:
    """The MQTT broker that `edgebroker serve` starts itself."""

    host: Annotated[
        str,
        "where it listens; 0.0.0.0 or :: lets devices on the network in: there are no passwords on it (README: limits)",
    ] = "127.0.0.1"
    port: Annotated[int, integer(1, 65535), "where it listens"] = 1883

    @property
    def reached_at(self) -> str:
        """Where the aggregator beside it connects."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 (a comparison)


@attrs.frozen(field_transformer=ruled)
class Monitor:
    """The web page, and what Prometheus asks, over HTTP; without a [monitor] on this machine alone."""

    host: Annotated[str, "any address but this machine's own (127.0.0.1) asks for a token_file"] = "127.0.0.1"
    port: Annotated[int, integer(0, 65535), "0 takes a free one, which the log tells"] = 9464
    nats_url: Annotated[
        str,
        pattern(r"(https?://.+)?", "http://127.0.0.1:8222"),
        "monitoring endpoint of a NATS server that is not the embedded one: its figures are in the metrics then;"
        " Mosquitto's come over MQTT ($SYS)",
    ] = ""
    token_file: Annotated[
        Path | None, "the operator's token, 16 characters or more on one line; only its owner may read it (mode 600)"
    ] = None
    names: Annotated[
        tuple[str, ...],
        "by these browsers may call it, as in http://NAME:9464 or https://NAME of a proxy, beside addresses",
    ] = ()
    base_path: Annotated[
        str,
        pattern(r"(/[\w.~-]+)*", "/fleet"),
        "what a proxy passes on: /fleet for https://NAME/fleet/; one that takes the path away needs nothing here",
    ] = ""
    enabled: Annotated[bool, "false: neither page nor metrics"] = True


@attrs.frozen(field_transformer=ruled)
class Aggregator:
    """The file that `edgebroker serve` reads: exactly one of [mqtt] and [embedded]."""

    directory: Annotated[Path, "ledger, model versions and the embedded broker's store live here"]
    # An MQTT broker that is already there.
    mqtt: Mqtt | None = None
    embedded: Embedded | None = None
    # Not given: as if it were there, but a note instead of an error when the page cannot be served.
    monitor: Monitor | None = None

    def __attrs_post_init__(self) -> None:
        if (self.mqtt is None) == (self.embedded is None):
            raise ValueError("give either an [embedded] broker to start or an [mqtt] broker to use")

    @property
    def ledger(self) -> Path:
        """The ledger's database."""
        return self.directory / "ledger.db"

    @property
    def registry(self) -> Path:
        """The folder of model versions and bundles."""
        return self.directory / "registry"


@attrs.frozen(field_transformer=ruled)
class Task:
    """What `edgebroker task add` keeps of a task, from an optional TOML file."""

    goal: Annotated[
        int | Literal["auto"],
        auto_or(integer(1, 4096)),
        "a version is made of this many updates; auto: of half as many as devices took part in the last four versions,"
        " at least one and at most 64",
    ] = AUTO
    deadline_s: Annotated[
        float | Literal["auto"],
        auto_or(number(0.1, 1e7)),
        "or of what has come this long after the first of them; auto: twice as long as so many took lately, between one"
        " minute and ten",
    ] = AUTO
    min_interval_s: Annotated[float, number(0, 1e7), "versions are at least this far apart"] = 5.0
    learning_rate: Annotated[
        float, number(1e-6, 100), "of the aggregator: new = old + learning_rate · weighted mean of the updates"
    ] = 1.0
    evaluation: Annotated[
        Source | None, "every version is evaluated on it, when given: any source of data that a device may have"
    ] = None
    evaluation_options: Annotated[
        dict[str, Any],
        "how that data is read: what [data.options] of a device are, such as labels, classes, columns, window",
    ] = attrs.field(factory=dict)
    evaluation_wait_s: Annotated[
        float,
        number(0, 86400),
        "a version is published when its evaluation has come, or this long after it was made; one that evaluates as"
        " broken is not, and devices go on from the one before",
    ] = 60.0
    max_versions: Annotated[
        int, integer(0, 2**31), "after so many versions the task rests until new data comes; 0: it goes on for ever"
    ] = 0
    patience: Annotated[
        int,
        integer(0, 2**31),
        "after so many evaluated versions without a better one it rests likewise; 0: it goes on for ever",
    ] = 0
    keep_frames_of_versions: Annotated[
        int,
        integer(-1, 2**31),
        "frames of so many past versions stay in the ledger; -1 keeps all, so that versions can be made again",
    ] = 3
    keep_versions: Annotated[
        int,
        integer(3, 1_000_000),
        "so many newest versions are kept, and of older ones ever fewer: about one in two of the next so many, one in"
        " four of the twice as many before them, and so on; all when keep_frames_of_versions is negative",
    ] = 50
    # How devices are asked to train.
    policy: Policy = attrs.field(factory=Policy)

    def __attrs_post_init__(self) -> None:
        if self.patience and self.evaluation is None:
            raise ValueError("patience needs evaluation: give data on which versions are measured")
        if self.evaluation_options and self.evaluation is None:
            raise ValueError("evaluation_options need evaluation: give the data, or set evaluation_options= as well")


def task_settings(name: str, values: Mapping[str, Any]) -> Task:
    """The settings of a task as the ledger has them.

    Raises:
        ConfigError: they were written by another release.
    """
    return structure(values, Task, where=f"settings of task {name}")


def measures(task: Task) -> tuple[Source | None, dict[str, Any]]:
    """On what versions are measured: when that changes, what was measured before tells nothing."""
    return task.evaluation, task.evaluation_options


def differences(before: Task, after: Task) -> Iterator[tuple[str, Any, Any]]:
    """Every key that is another, as task settings have it, with both values.

    Example:
        >>> list(differences(Task(goal=8), Task(policy=Policy(density=0.1))))
        [('goal', 8, 'auto'), ('policy.density', 0.01, 0.1)]
    """
    for key, old in task_values(before).items():
        new = task_values(after)[key]
        if isinstance(old, dict):
            names = dict.fromkeys((*old, *new))
            yield from (
                (f"{key}.{name}", old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
            )
        elif old != new:
            yield key, old, new


def task_values(task: Task) -> dict[str, Any]:
    """For the ledger; `task_settings` reads it back."""
    return {**attrs.asdict(task), "policy": asdict(task.policy)}
