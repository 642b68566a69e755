"""What is installed: Python, packages, ONNX Runtime, and which kernels run."""

import importlib
import os
import platform
import re
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from edgeclient.commands.doctor.findings import Finding
from edgeclient.compress import select
from edgeclient.train.runtime import load
from edgeclient.train.trainer import TrainingError
from edgeclient.wire.frame import context, rice

_ACCEL: Final = "pip install '.[accel]' in the clone"
# Every module that holds compiled kernels; the context coder's twin shows its outermost one.
_TWINS: Final = ("compress._select_numba", "compress._add_numba", "wire.frame._rice_numba", "wire.frame._context_numba")


def python() -> Iterator[Finding]:
    """Interpreter and machine."""
    yield judge_python(platform.python_version(), 8 * struct.calcsize("P"), platform.machine())


def judge_python(version: str, bits: int, machine: str) -> Finding:
    """A 32-bit system has neither ONNX Runtime nor room to map a large residual."""
    what = f"{version}, {bits} bit, {machine}"
    if bits < 64:
        return Finding("fail", "python", what, "install a 64-bit operating system, such as Raspberry Pi OS (64-bit)")
    return Finding("ok", "python", what)


def packages() -> Iterator[Finding]:
    """What edgeclient requires wherever it runs, and what is there of it; cryptography, where it is there."""
    versions = {}
    for line in metadata.requires("edgeclient") or ():
        if ";" not in line and (name := re.match(r"[\w.-]+", line)) is not None:
            versions[name[0]] = _version(name[0])
    if (signs := _version("cryptography")) is not None:
        versions["cryptography"] = signs
    yield judge_packages(versions)


def judge_packages(versions: Mapping[str, str | None]) -> Finding:
    """Versions by name; None for what is missing."""
    what = ", ".join(f"{name} {version or 'missing'}" for name, version in sorted(versions.items()))
    missing = sorted(name for name, version in versions.items() if version is None)
    if missing:
        return Finding("fail", "packages", what, f"pip install {' '.join(missing)}")
    return Finding("ok", "packages", what)


def onnxruntime() -> Iterator[Finding]:
    """Whether the runtime is there, alone, new enough, and can be imported."""
    try:
        yield Finding("ok", "onnxruntime", str(load().__version__))
    except TrainingError as error:
        what, _, advice = str(error).partition(": pip ")
        yield Finding("fail", "onnxruntime", what, advice and f"pip {advice}")


def kernels() -> Iterator[Finding]:
    """Which kernels run, and whether rounds will find them compiled."""
    why = select.KERNEL.why_not()
    yield judge_numba(_version("numba"), why)
    selection, streams, pools = (each.backend(each.numba_from) for each in (select.KERNEL, context.KERNEL, rice.KERNEL))
    since = f" from {select.KERNEL.numba_from:,} parameters" if selection == "numba" else ""
    what = f"selection {selection}{since}, context coder {streams}, Rice coder {pools}"
    yield Finding("ok", "kernels", what)
    if why is None:
        yield cache()


def judge_numba(version: str | None, why: str | None) -> Finding:
    """Its absence is a choice, a broken one is not."""
    if why is None:
        return Finding("ok", "numba", str(version))
    if version is None:
        return Finding("ok", "numba", "not installed: NumPy kernels, same results", f"for more speed: {_ACCEL}")
    what = f"{version} cannot be used ({why}): NumPy kernels, same results"
    if "no locator" in why:  # numba's word for it: a read-only root, an account without a home
        return Finding("warn", "numba", what, "set NUMBA_CACHE_DIR to a folder that can be written")
    return Finding("warn", "numba", what, f"{_ACCEL}, or pip uninstall numba llvmlite")


def cache() -> Finding:
    """What the cache on disk holds; call where numba works."""
    missing, path, compiled = [], Path(), False
    for name in _TWINS:
        for kernel in vars(importlib.import_module(f"edgeclient.{name}")).values():
            if not hasattr(kernel, "py_func") or kernel.targetoptions.get("inline") == "always":
                continue
            folder = Path(kernel.stats.cache_path)
            path = path if path.name else folder
            compiled |= sum(kernel.stats.cache_misses.values()) > 0
            if not (folder / _index_file(kernel.py_func)).exists():
                missing.append(kernel.py_func.__name__)
    wanted = os.environ.get("NUMBA_CACHE_DIR")
    writeable = os.access(path, os.W_OK)
    return judge_cache(path, Path(wanted) if wanted else None, missing, writeable=writeable, compiled=compiled)


def _index_file(function: Any) -> str:
    """As numba names it."""
    module, code = function.__module__.rpartition(".")[2], function.__code__
    version = f"{sys.version_info.major}{sys.version_info.minor}{sys.abiflags}"
    return f"{module}.{function.__qualname__}-{code.co_firstlineno}.py{version}.nbi"


def judge_cache(path: Path, wanted: Path | None, missing: Sequence[str], *, writeable: bool, compiled: bool) -> Finding:
    """Whether rounds will find their kernels compiled.

    Args:
        path: the folder of those that select.
        wanted: NUMBA_CACHE_DIR, None where it is not set.
        missing: kernels that are not there.
        writeable: whether new ones can be kept there.
        compiled: whether one had to be compiled just now.
    """
    if wanted is not None and not path.is_relative_to(wanted):
        what = f"NUMBA_CACHE_DIR={wanted} cannot be written: {path} is used"
        return Finding("warn", "numba cache", what, f"mkdir -p {wanted}, and make it this user's own")
    if missing:
        what = f"{len(missing)} kernels not compiled yet in {path}"
        if not writeable:
            return Finding("warn", "numba cache", f"{what}, which cannot be written", "set NUMBA_CACHE_DIR")
        return Finding("warn", "numba cache", what, "edgeclient warmup")
    if compiled:
        what = f"{path}: what was there is for another CPU or version, compiled again just now"
        return Finding("warn", "numba cache", what, "edgeclient warmup; NUMBA_CPU_NAME=generic suits images for many")
    return Finding("ok", "numba cache", f"warmed up, {path}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
