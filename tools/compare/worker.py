"""Runs cells one after the other: `python -m tools.compare.worker` reads a line of JSON for each, and answers it.

It ends with its input, so that nothing is left behind when whoever asked was killed.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeclient.settings import ConfigError
from edgeclient.train.trainer import TrainingError
from tools.compare.cell import Cell, Tuning, outcome
from tools.compare.methods import METHODS, task_of


def cell_of(values: Mapping[str, Any]) -> Cell:
    """As it was written."""
    return Cell(**{**values, "tuning": Tuning(**values["tuning"])})


def work(cell: Cell, data: Path, file: Path, commit: str) -> dict[str, Any]:
    """Run a cell into a file, which is there whole or not at all."""
    began_s = time.process_time()
    task, scheme = task_of(cell.task, data), METHODS[cell.scheme]
    try:
        found = outcome(cell, task, scheme)
    except (TrainingError, ConfigError) as error:
        found = {"failed": str(error), "points": []}
    found |= {"commit": commit, "cpu_s": time.process_time() - began_s}
    written = file.with_suffix(f".{os.getpid()}.tmp")
    written.write_text(json.dumps(found, allow_nan=False) + "\n")
    written.replace(file)
    return found


def main() -> None:
    """Answer every line of standard input."""
    for line in sys.stdin:
        asked = json.loads(line)
        work(cell_of(asked["cell"]), Path(asked["data"]), Path(asked["file"]), asked["commit"])
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
