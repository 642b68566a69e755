"""What every measuring command prints: a table for people, one JSON object for programs (BENCH.md)."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("numpy", "numba", "onnxruntime", "onnxruntime-training-cpu", "onnx")


def host() -> dict[str, Any]:
    """CPU, SIMD, cores and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    simd = [name for name in ("avx512f", "avx2", "avx", "sve", "asimd") if name in flags]
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": facts.get("model name", platform.processor() or platform.machine()),
        "machine": platform.machine(),
        "simd": simd[:1],
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
    }


def tell(summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, as_json: bool, seed: int) -> None:
    """Print the rows as a table and the summary, or everything as one JSON object on the last line."""
    if as_json:
        print(json.dumps({"host": host(), "seed": seed, **summary, "rows": list(rows)}))
        return
    if rows:
        heads = list(rows[0])
        cells = [heads, *[[_cell(row.get(head)) for head in heads] for row in rows]]
        widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
        for line in cells:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    for key, value in summary.items():
        print(f"{key}: {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return np.format_float_positional(value, precision=4, fractional=False, trim="-")
    return str(value)
