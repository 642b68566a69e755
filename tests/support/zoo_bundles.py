"""The zoo, compiled once per run where the training package is, for tests on the plain runtime."""

import subprocess
import sys
from pathlib import Path

import pytest
from native_session import has_training, has_wheel

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / ".venv-native/bin/python"


@pytest.fixture(scope="session")
def native_python() -> str:
    """The interpreter that can compile."""
    if has_training():
        return sys.executable
    if not NATIVE.exists():
        if not has_wheel():
            pytest.skip("compiling needs onnxruntime-training-cpu, which has no wheel for this platform")
        pytest.fail("run tools/test once: it makes .venv-native")
    return str(NATIVE)


@pytest.fixture(scope="session")
def zoo_folder(native_python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one unpacked bundle per model."""
    folder = tmp_path_factory.mktemp("zoo")
    command = [native_python, "-m", "tools.bundles", "zoo", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder
