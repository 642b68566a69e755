"""The optimisers in NumPy against the artifacts' own."""

from pathlib import Path

import numpy as np
import pytest
from native_operators import model, node

from edgeclient.bundle.manifest import Optimiser
from edgeclient.compile.artifacts import Artifacts
from edgeclient.compile.forward import in_training_form, parameters
from edgeclient.compile.generate import generate
from edgeclient.compile.loss import Loss, with_loss
from edgeclient.train.native import import_training
from edgeclient.train.optimiser import stepper


def artifacts(optimiser: Optimiser) -> Artifacts:
    prepared = in_training_form(
        model([node("MatMul", ["xp", "w"], ["y"])], (70,), {"w": (70, 50)}), batch_norm="shared"
    )
    return generate(with_loss(prepared, Loss("mse")), parameters(prepared, ["*"], []), optimiser)


@pytest.mark.parametrize(
    "optimiser",
    [
        Optimiser("sgd"),
        Optimiser("adamw"),
        Optimiser("adamw", beta1=0.8, beta2=0.95, epsilon=1e-5, weight_decay=0.1),
        Optimiser("adamw", weight_decay=0.1, correct_bias=False),
    ],
    ids=["sgd", "adamw", "adamw decay", "adamw uncorrected"],
)
def test_twenty_steps_as_the_artifacts_take_them(optimiser: Optimiser, tmp_path: Path) -> None:
    made = artifacts(optimiser)
    assert made.optimiser == optimiser
    for name, content in made.files.items():
        (tmp_path / name).write_bytes(content)
    import_training()
    from onnxruntime.training import api  # noqa: PLC0415 (only after import_training)

    state = api.CheckpointState.load_checkpoint(tmp_path / "checkpoint")
    module = api.Module(tmp_path / "training_model.onnx", state, tmp_path / "eval_model.onnx")
    native = api.Optimizer(tmp_path / "optimizer_model.onnx", module)
    native.set_learning_rate(0.01)
    names = list(made.trainable)
    ours = np.concatenate([made.trainable[name].ravel() for name in names])
    start = ours.copy()
    steps = stepper(optimiser, len(ours))
    rng = np.random.default_rng(0)
    for _ in range(20):
        module(rng.normal(size=(8, 70)).astype(np.float32), rng.normal(size=(8, 50)).astype(np.float32))
        gradients = np.concatenate([np.ravel(state.parameters[name].grad) for name in names]).astype(np.float32)
        native.step()
        module.lazy_reset_grad()
        steps.step(ours, gradients, 0.01)
        theirs = np.concatenate([np.ravel(state.parameters[name].data) for name in names])
        # Each step rounds parameters of size 1 to 6e-8: 8e-6 of the way after twenty steps of 0.01.
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs - start)
