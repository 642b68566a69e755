"""A forward model in, a forward model out that computes the same and whose every op has a gradient.

Each module is one pass, a pure function from model to model. Parameters stay initializers under their own names;
what a pass adds besides nodes are Constant nodes, which nobody takes for parameters. Knows nothing of losses, of which
parameters train, of ONNX Runtime, or of how gradients are generated.
"""
