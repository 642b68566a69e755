"""Two models that others made and published: they compile and they train. tools/test fetches their packages."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command_lines import edgeclient
from trainer_exam import unpack

from edgeclient.bundle import archive
from edgeclient.train.compiled import compiled_trainer
from edgeclient.train.data import open_data
from edgeclient.train.trainer import Plan

MODELS = Path(sys.prefix) / "models"
# What both end with is a softmax: the loss wants what goes into it.
REAL = {
    "PP-OCR direction classifier": (
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        ["--shape", "x=-1,3,48,192", "--output", "linear_1.tmp_1"],
    ),
    "Magika file types": (
        "magika/models/standard_v3_3/model.onnx",
        ["--output", "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/Dense_1/AddV2:0"],
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_a_published_model_compiles_and_trains(name: str, tmp_path: Path) -> None:
    path, options = REAL[name]
    assert (MODELS / path).exists(), "run tools/test once: it fetches the models"
    done = edgeclient("compile", MODELS / path, *options, "--optimizer", "adamw", "--out", tmp_path / "b", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["gradient_error"] <= 1e-5
    opened = archive.decode((tmp_path / "b").read_bytes())
    trainer = compiled_trainer(unpack(opened, tmp_path / "unpacked"))
    rng = np.random.default_rng(0)
    (tensor,) = opened.manifest.inputs
    shape = (8, *tensor.shape[1:])
    x = rng.normal(size=shape).astype(np.float32) if tensor.dtype == "float32" else rng.integers(0, 256, shape)
    np.savez(tmp_path / "d.npz", **{tensor.name: x, "labels": rng.integers(0, 2, 8)})  # type: ignore[arg-type]  # a flag to mypy
    data = open_data(str(tmp_path / "d.npz"), {}, opened.manifest)
    made = trainer.train(opened.parameters, data, Plan(3e-4, 12, 8), rng)
    before = trainer.evaluate(opened.parameters, data)
    first = trainer.train(opened.parameters, data, Plan(3e-4, 1, 8), np.random.default_rng(0))
    assert made.loss < 0.7 * first.loss
    assert np.isfinite(before.loss)
