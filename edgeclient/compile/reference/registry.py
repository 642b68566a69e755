"""Which function evaluates which op.

onnx.reference evaluates the ops that are not here. Those that are here it does with Python loops, in float32, or not as
the specification says; what is wrong differs between its versions 1.17 and 1.23.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from onnx.reference.op_run import OpRun

from edgeclient.compress.arrays import Array

# Positional: the inputs, None for absent ones; by keyword: every attribute of the newest schema, None when it has no
# default. One value per output; the evaluator ignores those that the node does not ask for.
Evaluation: TypeAlias = Callable[..., tuple[Array, ...]]

EVALUATIONS: Final[list[type[Any]]] = []


def evaluates(kind: str) -> Callable[[Evaluation], Evaluation]:
    """Register the function that evaluates ops of this type."""

    def register(function: Evaluation) -> Evaluation:
        def run(self: Any, *inputs: Array | None, **attributes: Any) -> tuple[Array, ...]:
            del self
            return function(*inputs, **attributes)

        EVALUATIONS.append(type(kind, (OpRun,), {"op_domain": "", "_run": run}))
        return function

    return register
