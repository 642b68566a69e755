"""Who may import whom, and what an import costs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOADED = """
import importlib, json, pkgutil, sys
before = set(sys.modules)
package = importlib.import_module(sys.argv[1])
for each in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not each.name.endswith("_numba"):
        importlib.import_module(each.name)
found = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(found - set(sys.stdlib_module_names))))
"""


def loaded(package: str) -> set[str]:
    """Top-level packages beyond the standard library that importing all of `package` loads."""
    done = subprocess.run([sys.executable, "-c", LOADED, package], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("package", ["edgeclient.wire", "edgeclient.compress"])
def test_formats_and_numerics_load_numpy_alone(package: str) -> None:
    assert loaded(package) == {"edgeclient", "numpy"}


def test_numba_is_loaded_only_when_used() -> None:
    code = (
        "import sys, numpy as np; from edgeclient.compress.select import top_k;"
        "top_k(np.ones(1000, np.float32), 3); print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_store_loads_no_network_and_no_trainer() -> None:
    assert loaded("edgeclient.durable") <= {"edgeclient", "numpy"}


@pytest.mark.parametrize("stage", ["conditions", "models", "presence", "uplink"])
def test_stages_load_no_trainer(stage: str) -> None:
    assert loaded(f"edgeclient.{stage}") <= {
        "attr",
        "attrs",
        "cattrs",
        "edgeclient",
        "numpy",
        "paho",
        "typing_extensions",
    }


def test_import_contracts() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
