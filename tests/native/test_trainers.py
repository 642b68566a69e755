"""Both trainers sit one exam where the training package is; the compiled one agrees with the native one."""

from pathlib import Path

import numpy as np
import pytest
from trainer_exam import PLAN, TrainerExam, unpack, windows

from edgeclient.bundle import archive
from edgeclient.bundle.archive import Bundle
from edgeclient.compile import compiler
from edgeclient.compile.compiler import Options
from edgeclient.train.trainers import open_trainer
from tools.bundles import demo_model


@pytest.fixture(scope="session")
def opened() -> Bundle:
    return archive.decode(compiler.compile_model(demo_model(), Options(native=True)).packed())


class TestNative(TrainerExam):
    runtime = "native"


class TestCompiled(TrainerExam):
    runtime = "compiled"


def test_they_agree(opened: Bundle, tmp_path: Path) -> None:
    folder = unpack(opened, tmp_path)
    data = windows(opened, tmp_path)
    native, compiled = (
        open_trainer(folder, kind).train(opened.parameters, data, PLAN, np.random.default_rng(1))
        for kind in ("native", "compiled")
    )
    assert np.linalg.norm(native.delta - compiled.delta) <= 1e-5 * np.linalg.norm(native.delta)
    assert native.loss == pytest.approx(compiled.loss, rel=1e-5)
