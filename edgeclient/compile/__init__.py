"""Workstation only: a forward ONNX model in, a training bundle out."""
