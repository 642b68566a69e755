"""The compiled twin of `context_model.py`: the definition itself, function by function, so that no bit can differ."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

from edgeclient.compress._jit_numba import njit
from edgeclient.wire.frame import context_model as model


def _compiled() -> dict[str, Callable[..., Any]]:
    """Each function over a namespace in which the ones that it calls are compiled already."""
    names: dict[str, Any] = dict(vars(model))
    for function in (model.bit, model.mixed, model.learn, model.value_bit, model.value, model.tie, model.code):
        assert isinstance(function, FunctionType)
        over = FunctionType(function.__code__, names, function.__name__)
        names[function.__name__] = njit()(over)
    return names


code = _compiled()["code"]
