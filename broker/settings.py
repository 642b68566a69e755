"""Configuration of the broker side: the aggregator's file and a task's settings."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Literal

import attrs
from attrs.validators import matches_re

from edgeclient.settings import Mqtt, Source, structure, within
from edgeclient.wire.announcement import Policy

AUTO: Final = "auto"


def _auto_or(check: Any) -> Any:
    """An attrs validator: "auto", or what another one lets pass."""

    def either(made: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if value != AUTO:
            check(made, attribute, value)

    return either


@attrs.frozen
class Embedded:
    """The MQTT broker that `edgebroker serve` starts itself."""

    # 0.0.0.0 lets devices on the network in; there are no passwords on it yet (README: limits).
    host: str = "127.0.0.1"
    port: int = attrs.field(default=1883, validator=within(1, 65535))

    @property
    def reached_at(self) -> str:
        """Where the aggregator beside it connects."""
        return "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104 (a comparison)


@attrs.frozen
class Monitor:
    """The web page, and what Prometheus asks, over HTTP; without a [monitor] on this machine alone."""

    # Any address but this machine's own (127.0.0.1) asks for a token_file.
    host: str = "127.0.0.1"
    # 0 takes a free one, which the log tells.
    port: int = attrs.field(default=9464, validator=within(0, 65535))
    # Monitoring endpoint of a NATS server that is not the embedded one, such as http://127.0.0.1:8222: its figures are
    # in the metrics then. Mosquitto's come over MQTT ($SYS).
    nats_url: str = attrs.field(default="", validator=matches_re(r"(https?://.+)?"))
    # The operator's token, 16 characters or more on one line; only its owner may read it (mode 600).
    token_file: Path | None = None
    # By these names browsers may call it, as in http://NAME:9464, beside localhost and addresses.
    names: tuple[str, ...] = ()
    # false: neither page nor metrics.
    enabled: bool = True


@attrs.frozen
class Aggregator:
    """The file that `edgebroker serve` reads: exactly one of [mqtt] and [embedded]."""

    # Ledger, model versions and the embedded broker's store live here.
    directory: Path
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


@attrs.frozen
class Task:
    """What `edgebroker task add` keeps of a task, from an optional TOML file."""

    # A version is made of this many updates; "auto": of half as many as devices took part in the last four versions,
    # at least one and at most 64 ...
    goal: int | Literal["auto"] = attrs.field(default=AUTO, validator=_auto_or(within(1, 4096)))
    # ... or of what has come this long after the first of them; "auto": twice as long as so many took lately, between
    # one minute and ten.
    deadline_s: float | Literal["auto"] = attrs.field(default=AUTO, validator=_auto_or(within(0.1, 1e7)))
    # Versions are at least this far apart.
    min_interval_s: float = attrs.field(default=5.0, validator=within(0, 1e7))
    # new = old + learning_rate · weighted mean of the updates.
    learning_rate: float = attrs.field(default=1.0, validator=within(1e-6, 100))
    # Every version is evaluated on this file, when given: any source of data that a device may have.
    evaluation: Source | None = None
    # Frames of so many past versions stay in the ledger; negative keeps all, so that versions can be made again.
    keep_frames_of_versions: int = 3
    # So many newest versions are kept, and of older ones ever fewer: about one in two of the next so many, one in four
    # of the twice as many before them, and so on. All stay when keep_frames_of_versions is negative.
    keep_versions: int = attrs.field(default=50, validator=within(3, 1_000_000))
    # How devices are asked to train.
    policy: Policy = attrs.field(factory=Policy)


def task_settings(name: str, values: Mapping[str, Any]) -> Task:
    """The settings of a task as the ledger has them.

    Raises:
        ConfigError: they were written by another release.
    """
    return structure(values, Task, where=f"settings of task {name}")


def as_json(task: Task) -> dict[str, Any]:
    """For the ledger; `task_settings` reads it back."""
    return {**attrs.asdict(task), "policy": asdict(task.policy)}
