"""A training graph with ONNX Runtime's training-only ops in, the same graph in standard ai.onnx ops out.

One file per family of ops: adjoints as free functions over a `Builder`, and the rules that map a training-only
node onto them. Knows nothing of files, optimisers or the runtime.
"""
