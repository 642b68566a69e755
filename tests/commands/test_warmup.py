"""`edgeclient warmup`: every kernel is compiled now, none later."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WARM = """
import importlib, pathlib
from edgeclient.commands.warmup import warm
made = warm()
names = [".".join(path.with_suffix("").parts) for path in pathlib.Path("edgeclient").rglob("_*numba.py")]
kernels = [each for name in names for each in vars(importlib.import_module(name)).values() if hasattr(each, "py_func")]
late = [each.__name__ for each in kernels if not each.signatures and each.targetoptions.get("inline") != "always"]
print(made["backend"], len(names) > 3, len(kernels) > 8, late)
"""


def cache(environment: dict[str, str]) -> dict[str, str]:
    """What the doctor says of it."""
    command = [sys.executable, "-m", "edgeclient.cli", "doctor", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    (found,) = [each for each in json.loads(done.stdout)["findings"] if each["topic"] == "numba cache"]
    return dict(found)


def test_warm_up_compiles_every_kernel(tmp_path: Path) -> None:
    """With an empty cache, and nothing is compiled later."""
    cold = cache({"PATH": "", "NUMBA_CACHE_DIR": str(tmp_path / "cold")})
    assert (cold["level"], cold["advice"]) == ("warn", "edgeclient warmup")
    assert "kernels not compiled yet" in cold["what"]
    environment = {"PATH": "", "NUMBA_CACHE_DIR": str(tmp_path / "warm")}
    done = subprocess.run(
        [sys.executable, "-c", WARM], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "numba True True []\n"
    assert cache(environment)["level"] == "ok"


def test_warm_up_without_numba_says_so(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('no numba here')\n")
    command = [sys.executable, "-m", "edgeclient.cli", "warmup"]
    environment = {"PATH": "", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["backend"] == "numpy"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "NumPy kernels: numba cannot be used (ImportError: no numba here)\n"
