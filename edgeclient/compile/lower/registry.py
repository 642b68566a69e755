"""Which rule lowers which training-only op."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from edgeclient.compile.lower.builder import Builder, Node

# One value per output of the node; None for outputs that the rule does not make.
Rule: TypeAlias = Callable[[Builder, Node], Sequence[str | None]]

RULES: Final[dict[str, Rule]] = {}


def lowers(*kinds: str) -> Callable[[Rule], Rule]:
    """Register a rule for ops of these types, whatever their domain: no two domains share a name here."""

    def register(rule: Rule) -> Rule:
        for kind in kinds:
            assert kind not in RULES, kind
            RULES[kind] = rule
        return rule

    return register
