"""Which tests are the device's, and how they run on an emulated processor."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.processes import children

# What a device runs, with what it has: no onnx, no MQTT broker, no import linter. What reaches kernels runs with the
# numba twins and without, since which of them is used is the device's choice; the rest runs once, in either pass.
KERNELS: Final = (
    "compress/test_compress.py",
    "wire/test_golden.py",
    "house/test_imports.py",
    "system/test_laws.py",
    "wire/test_wire.py",
)
# test_select compares the twins with their definitions; golden vectors do so for the codes of a frame.
WITH_NUMBA: Final = (
    *KERNELS,
    "bundle/test_bundle.py",
    "commands/test_warmup.py",
    "train/test_data.py",
    "train/test_golden_training.py",
    "bundle/test_safetensors.py",
    "compress/test_select.py",
    "house/test_settings.py",
    "train/test_train.py",
    "uplink/test_uplink.py",
)
WITHOUT_NUMBA: Final = (
    *KERNELS,
    "commands/test_cli.py",
    "durable/test_durable.py",
    "house/test_firmware_configs.py",
    "wire/test_format_doc.py",
    "models/test_models.py",
)
# What the processor decides: arithmetic, rounding, what is compiled for it. The rest is the same Python everywhere.
SHORT: Final = {
    "compress/test_select.py",
    "system/test_laws.py",
    "train/test_golden_training.py",
    "train/test_train.py",
    "wire/test_golden.py",
}
# Tests in them that are not.
ELSEWHERE: Final = (
    "house/test_imports.py::test_import_contracts",
    # Here every processor is another one.
    "compress/test_select.py::test_a_generic_cpu_selects_the_same",
    "compress/test_select.py::test_the_select_benchmark",
    "compress/test_select.py::test_the_scale_benchmark",
)
NEED_NUMBA: Final = (
    "compress/test_compress.py::test_both_kernels_are_the_definition",
    "compress/test_compress.py::test_selection_takes_views_that_are_not_contiguous[numba]",
    "compress/test_compress.py::test_the_backend_is_visible",
    "compress/test_compress.py::test_a_twin_is_loaded_when_it_is_worth_it_or_asked_for",
    "compress/test_compress.py::test_the_twins_agree_on_large_vectors",
)
_TEST_S: Final = 600
_PASS_S: Final = 1500.0
STEPS_VARIABLE: Final = "EDGECLIENT_STEPS"


@dataclass(frozen=True, slots=True)
class Pass:
    """One run of the suite by pytest."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def passed(self) -> bool:
        """Waits for the end."""
        try:
            return self.process.wait(_PASS_S) == 0
        except subprocess.TimeoutExpired:
            children.end(self.process)
            return False

    def summary(self) -> str:
        """pytest's own: all it said when something failed, else its last lines."""
        said = self.log.read_text(errors="replace")
        return said if self.process.returncode else said[said.rfind("\n=") + 1 :]


def start(
    name: str,
    python: Path,
    environment: Mapping[str, str],
    log: Path,
    files: Sequence[str],
    without: Sequence[str] = (),
) -> Pass:
    """Begin to run these files of the suite, but for the tests `without` and ELSEWHERE; the log is a new one."""
    log.unlink(missing_ok=True)
    options = ["--quiet", "--continue-on-collection-errors", f"--override-ini=timeout={_TEST_S}"]
    options += ["-p", "no:cacheprovider", "-p", "tools.emulation.profile"]
    options += [f"--deselect=tests/{each}" for each in (*ELSEWHERE, *without)]
    # The broker's command line is not the device's.
    # So say those that run once with each backend which one it is.
    options += ["-k", "not broker.cli and not -numba" if without else "not broker.cli"]
    command = [str(python), "-m", "pytest", *options, *(f"tests/{file}" for file in files)]
    return Pass(name, children.spawn(command, log=log, env=environment), log)
