"""One task as the aggregator holds it in memory; everything here can be read again from ledger and registry."""

import time
from hashlib import sha256
from typing import Self

import numpy as np

from broker.aggregate.weight import weight
from broker.intake.admissible import Terms, refusal
from broker.intake.decode import FrameIn
from broker.ledger.protocol import Ledger
from broker.ledger.rows import Entry, Version
from broker.publish import retained
from broker.registry.blobs import Blobs
from broker.registry.evaluator import Evaluated, Evaluator
from broker.settings import Task
from edgeclient.bundle import archive
from edgeclient.compress.arrays import F32
from edgeclient.settings import structure
from edgeclient.wire import frame
from edgeclient.wire.announcement import VALUE_LIMIT, Announcement, Blob


class Running:
    """A task with its current version.

    Attributes:
        name: task id.
        settings: what it was added with.
        bundle: how its bundle is served.
        layout: of its parameters.
        version: the current one.
        parameters: of that version (n,).
        evaluator: measures versions, when the task asks for it.
        unwritten: what it has measured and the ledger does not know yet.
        cleared: digests whose chunks were taken off the broker.
        behind: whether the fleet has shown that it knows newer versions; None once that was dealt with.
    """

    def __init__(self, name: str, settings: Task, bundle_content: bytes, version: Version, parameters: F32) -> None:
        self.name = name
        self.settings = settings
        self.bundle = retained.blob_of(sha256(bundle_content).hexdigest(), len(bundle_content))
        self.layout = archive.decode(bundle_content).manifest.layout
        self.version = version
        self.parameters = parameters
        self.evaluator: Evaluator | None = None
        self.unwritten: list[Evaluated] = []
        self.cleared: set[str] = set()
        self.behind: bool | None = False

    @classmethod
    def load(cls, ledger: Ledger, blobs: Blobs, name: str, digest: str, values: dict[str, object]) -> Self:
        """The task as the ledger has it, with bundle `digest` and settings `values`.

        Raises:
            ConfigError, RegistryError: the settings or the contents cannot be used.
        """
        settings = structure(values, Task, where=f"settings of task {name}")
        (version,) = ledger.versions(name, last=1)
        parameters = np.frombuffer(blobs.get(version.digest), "<f4").astype(np.float32)
        return cls(name, settings, blobs.get(digest), version, parameters)

    @property
    def terms(self) -> Terms:
        """What is admitted now."""
        policy = self.settings.policy
        return Terms(self.layout.tag, self.layout.size, self.version.number, policy.max_staleness, VALUE_LIMIT)

    def entry(self, said: FrameIn) -> Entry:
        """A decoded frame as the ledger is asked to count it, judged by the terms of this moment."""
        made = said.frame
        return Entry(
            task=said.task,
            device=said.device,
            epoch=made.epoch,
            sequence=made.sequence,
            digest=frame.digest(said.body),
            number=made.number,
            part=made.part,
            parts=made.parts,
            base_version=made.base_version,
            num_examples=made.num_examples,
            weight=weight(made.num_examples, max(0, self.version.number - made.base_version)),
            refusal=refusal(made, frame.address(said.task, said.device), self.terms),
            body=said.body,
        )

    def shows_behind(self, more: int) -> bool:
        """Whether `more` versions or frames than the ledger knows are so few that an older one was put back.

        As many as may have come since the last version (Ledger.jump); whoever claims more is lying.
        """
        return 0 < more <= 1000 + max(0.0, time.time() - self.version.created_s)

    @property
    def snapshot(self) -> Blob:
        """How the current parameters are served."""
        return retained.blob_of(self.version.digest, 4 * self.layout.size)

    def announcement(self, service: str) -> Announcement:
        """Of the current version, by this start of the aggregator."""
        return Announcement(
            task=self.name,
            version=self.version.number,
            service=service,
            parameters=self.snapshot,
            bundle=self.bundle,
            layout=self.layout.digest,
            size=self.layout.size,
            policy=self.settings.policy,
        )

    def served(self, ledger: Ledger, last: int | None = None) -> tuple[list[str], list[str]]:
        """Digests that stay on the broker, and older ones that may go, of all versions or the last few.

        A version whose time lies ahead, since the clock was set back, is taken for an old one.
        """
        now = time.time()
        versions = ledger.versions(self.name, last)
        return retained.served([(v.digest, v.created_s if v.created_s <= now else 0.0) for v in versions], now)
