"""The ORT training package in an environment of its own."""

import importlib
import os
from importlib import metadata

import pytest

from edgeclient.train.native import import_training


def test_the_training_package_is_the_only_runtime() -> None:
    assert metadata.version("onnxruntime-training-cpu")
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("onnxruntime")


def test_it_imports_without_torch_and_without_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    import_training()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    assert importlib.import_module("onnxruntime.training.api").Module
    assert importlib.import_module("onnxruntime.training.artifacts").generate_artifacts
