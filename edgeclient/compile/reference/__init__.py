"""The oracle: an ONNX graph evaluated in float64, and gradients checked by its differences.

Standard ai.onnx ops and arrays in, arrays and errors out. Knows nothing of ONNX Runtime, bundles or how gradients
were made; it shares no formula with the lowering.
"""
