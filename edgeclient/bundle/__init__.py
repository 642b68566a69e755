"""The container that a task is made of: graphs, parameters, layout and manifest in one file.

Knows nothing of ONNX Runtime; NumPy alone reads it.
"""
