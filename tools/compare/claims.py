"""What the literature claims of each family of compressors, beside what was measured: figure by figure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.monitor.measures import paired

MEASURES: Final = ("late", "avg")
NOTABLE: Final = 0.01  # of accuracy; less may be chance


@dataclass(frozen=True, slots=True)
class Claim:
    """Of a family, and the schemes that it is held against.

    Attributes:
        family: its name.
        compression: typical, from and to, of dense float32, as fractions.
        needs_feedback: whether it is said to.
        schemes: with error feedback, and the same without; None: that is not in the comparison.
    """

    family: str
    compression: tuple[float, float]
    needs_feedback: bool
    schemes: tuple[tuple[str, str | None], ...]


CLAIMS: Final = (
    Claim("top-k", (0.90, 0.99), needs_feedback=True,
          schemes=(("top-k 1 %, EF", "top-k 1 %"), ("top-k 0.25 %, EF", "top-k 0.25 %"))),
    Claim("quantised", (0.75, 0.94), needs_feedback=False,
          schemes=(("8 bits, EF", None), ("4 bits, EF", None), ("1 bit, EF", "1 bit"))),
    Claim("low rank", (0.80, 0.95), needs_feedback=True,
          schemes=(("PowerSGD rank 1, EF", None), ("PowerSGD rank 4, EF", "PowerSGD rank 4"))),
)  # fmt: skip


def beside(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each scheme what its family is said to do, and the figures of all tasks that it was run on.

    Args:
        rows: summaries, of all tasks.

    Returns:
        family, scheme, claimed, tasks, and in the order of the tasks: compression (what is saved of dense), overhead
        (the client's time beside training), cosine, and what error feedback is worth, `late` and `avg` with it less
        those without, over the seeds that both have; None where that was not run. `against`: what contradicts the
        literature, in words.
    """
    by_scheme: dict[str, dict[str, Mapping[str, Any]]] = {}
    for each in rows:
        if each["seeds"]:
            by_scheme.setdefault(each["scheme"], {})[each["task"]] = each
    told = []
    for claim in CLAIMS:
        for scheme, plain in claim.schemes:
            found, without = by_scheme.get(scheme, {}), by_scheme.get(plain or "", {})
            compression = [1 - 1 / each["reduction"] for each in found.values()]
            late, avg = ([_worth(each, without.get(task), name) for task, each in found.items()] for name in MEASURES)
            told.append({
                "family": claim.family, "scheme": scheme, "claimed": claim.compression, "tasks": list(found),
                "compression": compression, "late": late, "avg": avg,
                "overhead": [each["client_ms"] / each["training_ms"] for each in found.values()],
                "cosine": [each["cosine"] for each in found.values()], "against": _against(claim, compression, avg),
            })  # fmt: skip
    return told


def _worth(found: Mapping[str, Any], plain: Mapping[str, Any] | None, name: str) -> float | None:
    ours, theirs = found["by_seed"][name], plain["by_seed"][name] if plain else {}
    shared = [seed for seed in ours if theirs.get(seed) is not None and ours[seed] is not None]
    return paired([ours[seed] for seed in shared], [theirs[seed] for seed in shared]).mean if shared else None


def _against(claim: Claim, compression: Sequence[float], worth: Sequence[float | None]) -> str:
    known = [each for each in worth if each is not None]
    told = []
    if any(each < claim.compression[0] for each in compression):
        told.append("compresses less")
    if any(each > claim.compression[1] for each in compression):
        told.append("compresses more")
    if claim.needs_feedback and any(each <= 0 for each in known):
        told.append("no gain from error feedback on every task")
    if not claim.needs_feedback and any(each > NOTABLE for each in known):
        told.append("error feedback is needed")
    return ", ".join(told)
