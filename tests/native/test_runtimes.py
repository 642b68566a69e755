"""The ORT training package in an environment of its own."""

import os
import subprocess
import sys
from importlib import metadata

import pytest


def test_the_training_package_is_the_only_runtime() -> None:
    assert metadata.version("onnxruntime-training-cpu")
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("onnxruntime")


CODE = """
import importlib, os, sys
from edgeclient.train.native import import_training

import_training()
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
assert importlib.import_module("onnxruntime.training.api").Module
assert importlib.import_module("onnxruntime.training.artifacts").generate_artifacts
assert "torch" not in sys.modules
"""


def test_it_imports_without_torch_and_without_telemetry() -> None:
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", CODE], env=clean, check=True)
