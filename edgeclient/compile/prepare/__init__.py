"""A forward model in, a forward model out that computes the same and whose every op has a right gradient.

Each module with a public function of models is one pass: opset, constants, unroll, decompose, in this order. None
modifies the model that it is given; all but the first want ai.onnx opset 13 or later.
Parameters stay initializers under their own names; what a pass adds besides nodes are Constant nodes, which nobody
takes for parameters. Of ONNX Runtime it knows only which gradients that has; of losses, of which parameters train, and
of how gradients are generated, nothing.
"""
