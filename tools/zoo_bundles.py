"""Compiles models of the zoo into unpacked bundles: `python -m tools.zoo_bundles FOLDER [MODEL …]`.

Runs where the training package is; each folder gets the bundle's files, `native/` and `verified.json`.
"""

import json
import sys
from pathlib import Path

from edgeclient.bundle import archive
from edgeclient.bundle.manifest import Optimiser
from edgeclient.compile import compiler, verify
from edgeclient.compile.compiler import Options
from tools.zoo import ZOO


def make(name: str, place: Path) -> None:
    """One model."""
    entry = ZOO[name]
    options = Options(trainable=entry.trainable, optimiser=Optimiser("adamw"), native=True, provenance="tools/zoo.py")
    made = compiler.compile_model(entry.build(), options)
    place.mkdir(parents=True, exist_ok=True)
    (place / "verified.json").write_text(json.dumps(verify.verify(made).as_json()))
    for file, content in archive.decode(made.packed()).files.items():
        path = place / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


def main() -> None:
    """See above."""
    folder, *names = sys.argv[1:]
    for name in names or ZOO:
        make(name, Path(folder) / name)


if __name__ == "__main__":
    main()
