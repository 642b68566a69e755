"""Which ONNX Runtime is installed, and its first import: without telemetry."""

import os
import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any, Final

from edgeclient.train.trainer import TrainingError

INFERENCE: Final = "onnxruntime"
TRAINING: Final = frozenset({"onnxruntime-training-cpu", "onnxruntime-training"})
# The first that keeps a graph's external data inside its folder (1.22.1 does not, 1.24.4 does: measured).
OLDEST: Final = (1, 24)
_MANY: Final = 1000
_QUIET: Final = 3  # ONNX Runtime's "error": one level below, it logs dozens of lines a model


def check_runtimes(installed: Mapping[str, str] | None = None) -> None:
    """Notice at the door what would fail in odd ways, or open one.

    Args:
        installed: version by name of distribution; None looks.

    Raises:
        TrainingError: two distributions that overwrite each other's files, which pip does not say; or a runtime that
            lets the graphs of a bundle read files outside its folder.

    Example:
        >>> check_runtimes({"numpy": "2.4.6", "onnxruntime": "1.32.0"})
    """
    found = _installed() if installed is None else installed
    if (training := found.keys() & TRAINING) and INFERENCE in found:
        raise TrainingError(
            f"onnxruntime and {min(training)} are both installed and overwrite each other's files: pip uninstall"
            " both, then install one: pip install '.[onnx]' in the clone ('.[build]' on workstations)"
        )
    if INFERENCE in found and _release(found[INFERENCE]) < OLDEST:
        raise TrainingError(
            f"onnxruntime {found[INFERENCE]} lets a model read any file of this device: pip install --upgrade"
            f" 'onnxruntime>={'.'.join(map(str, OLDEST))}'"
        )


@cache
def load() -> Any:
    """The module onnxruntime, whichever of the two is installed: checked at the first import, or looked for again.

    Raises:
        TrainingError: none is installed, or both.
    """
    check_runtimes()
    # A product that promises privacy does not phone home; read at the first import, for the process's life.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime  # noqa: PLC0415 (after the checks; 30 MiB, only when training)
    except ImportError as error:
        raise TrainingError(
            f"ONNX Runtime cannot be imported ({error}): pip install '.[onnx]' in the clone, in Termux pkg install"
            " python-onnxruntime"
        ) from None
    onnxruntime.set_default_logger_severity(_QUIET)
    return onnxruntime


def session_options(threads: int, operators: int = 0) -> Any:
    """For a device that has other work too: so many threads, none of them spinning, and memory in measure.

    A memory pattern reserves one block for a whole step, and one more for each new batch size: 12 MiB of 92 for a
    small transformer, which is no faster for it. Graphs of many small operators are: an unrolled LSTM by 16 %
    (measured on 1.32.0).

    Args:
        threads: for each operator.
        operators: nodes of the graph.
    """
    options = load().SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _QUIET
    options.enable_mem_pattern = operators >= _MANY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _installed() -> dict[str, str]:
    # Asked by name: to read what a hundred others say of themselves takes 0.2 s. A broken installation leaves folders
    # whose metadata have no name.
    return {
        name: (each.metadata.get_all("Version") or ["0"])[0]
        for name in (INFERENCE, *TRAINING)
        for each in metadata.distributions(name=name)
        if each.metadata.get_all("Name")
    }


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
