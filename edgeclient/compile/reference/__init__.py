"""The oracle: an ONNX graph evaluated in float64, and gradients checked by its differences.

Standard ai.onnx ops and arrays in, arrays and errors out. Knows nothing of ONNX Runtime, bundles or how gradients
were made; it shares no formula with the lowering.
"""

from edgeclient.compile.reference.differences import (
    GradientError,
    Probe,
    TensorError,
    directional_derivative,
    gradient_error,
    probe,
)
from edgeclient.compile.reference.evaluate import Reference

__all__ = [
    "GradientError",
    "Probe",
    "Reference",
    "TensorError",
    "directional_derivative",
    "gradient_error",
    "probe",
]
