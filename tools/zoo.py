"""The zoo: forward models as PyTorch's exporters write them, made from nothing but code.

Every model has a named batch dimension "batch" first and one output, `logits` (batch, classes) float32; the loss is
cross-entropy. The same code gives the same bytes.

Example:
    >>> entry = ZOO["gru"]
    >>> x, labels = entry.batch(3, np.random.default_rng(1))
    >>> x.shape, labels.shape, entry.build().graph.output[0].name
    ((3, 50, 6), (3,), 'logits')
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeclient.compress.arrays import Array

Batch: TypeAlias = Callable[[int, np.random.Generator], tuple[Array, ...]]

_IR: Final = {17: 8, 20: 9}  # the IR version that came with each opset
_WIDTH, _HEADS, _TOKENS, _VOCABULARY = 64, 4, 32, 200
_RANK: Final = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the zoo.

    Args:
        name: its key in ZOO.
        build: makes the forward model; parameters are its float32 initializers, running statistics of
            BatchNormalization among them.
        batch: (size, generator) → inputs in the model's order, then labels (size,) int64.
        trainable: fnmatch patterns of the parameters that train; the others are frozen.
    """

    name: str
    build: Callable[[], onnx.ModelProto]
    batch: Batch
    trainable: tuple[str, ...] = ("*",)


class _Graph:
    """A model under construction; methods return names of values."""

    def __init__(self, seed: int, opset: int = 17) -> None:
        self.opset = opset
        self.rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._parameters: dict[str, Array] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(kind, inputs, 1, **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any) -> list[str]:
        name = f"/{kind}_{len(self._nodes)}"
        made = [f"{name}_output_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made

    def constant(self, value: Any, kind: type[np.generic] = np.float32) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value, kind)))

    def parameter(self, name: str, value: Array) -> str:
        self._parameters[name] = value.astype(np.float32)
        return name

    def normal(self, name: str, shape: tuple[int, ...], spread: float) -> str:
        return self.parameter(name, self.rng.normal(0, spread, shape))

    def linear(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """torch.nn.Linear on (batch, inputs)."""
        weight = self.normal(f"{name}.weight", (outputs, inputs), np.sqrt(2 / inputs))
        return self.op("Gemm", x, weight, self.normal(f"{name}.bias", (outputs,), 0.1), transB=1)

    def dense(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """torch.nn.Linear on (…, inputs), which exporters write as MatMul and Add."""
        weight = self.normal(f"{name}.weight", (inputs, outputs), np.sqrt(1 / inputs))
        return self.op("Add", self.op("MatMul", x, weight), self.normal(f"{name}.bias", (outputs,), 0.1))

    def conv(self, x: str, name: str, channels: tuple[int, int], kernel: tuple[int, ...], **attributes: Any) -> str:
        """A convolution from channels[0] to channels[1]; `bias=False` leaves the bias out."""
        bias, group = attributes.pop("bias", True), attributes.setdefault("group", 1)
        fan_in = channels[0] // group
        weight = (channels[1], fan_in, *kernel)
        inputs = [x, self.normal(f"{name}.weight", weight, np.sqrt(2 / (fan_in * np.prod(kernel))))]
        if bias:
            inputs.append(self.normal(f"{name}.bias", (channels[1],), 0.1))
        return self.op("Conv", *inputs, kernel_shape=list(kernel), **attributes)

    def batch_norm(self, x: str, name: str, channels: int) -> str:
        """In inference form, as exported after model.eval()."""
        values = {
            "weight": self.rng.uniform(0.5, 1.5, channels),
            "bias": self.rng.normal(0, 0.1, channels),
            "running_mean": self.rng.normal(0, 0.5, channels),
            "running_var": self.rng.uniform(0.5, 2, channels),
        }
        names = [self.parameter(f"{name}.{key}", value) for key, value in values.items()]
        return self.op("BatchNormalization", x, *names, epsilon=1e-5, momentum=0.9)

    def layer_norm(self, x: str, name: str) -> str:
        """Over the last axis, with one output."""
        gamma = self.parameter(f"{name}.weight", self.rng.uniform(0.5, 1.5, _WIDTH))
        beta = self.normal(f"{name}.bias", (_WIDTH,), 0.1)
        return self.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=1e-5)

    def gelu(self, x: str) -> str:
        """The operator from opset 20 on, before that the composition around Erf."""
        if self.opset >= 20:
            return self.op("Gelu", x)
        erf = self.op("Erf", self.op("Div", x, self.constant(np.sqrt(2))))
        return self.op("Mul", self.op("Mul", x, self.op("Add", erf, self.constant(1))), self.constant(0.5))

    def mean(self, x: str, axis: int) -> str:
        if self.opset >= 18:
            return self.op("ReduceMean", x, self.constant([axis], np.int64), keepdims=0)
        return self.op("ReduceMean", x, axes=[axis], keepdims=0)

    def finish(self, x: tuple[int, ...], classes: int, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        """The model from one input `x`, its shape given without the batch, to what the last node makes: the logits."""
        self._nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self._nodes,
            "main_graph",
            [helper.make_tensor_value_info("x", kind, ["batch", *x])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
            [numpy_helper.from_array(value, name) for name, value in self._parameters.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=_IR[self.opset], producer_name="zoo"
        )


def _mlp() -> onnx.ModelProto:
    g = _Graph(1)
    g.linear(g.op("Relu", g.linear("x", "hidden", 600, 64)), "output", 64, 7)
    return g.finish((600,), 7)


def _cnn() -> onnx.ModelProto:
    g = _Graph(2)
    x = "x"
    # The first convolution keeps its bias, whose gradient before a batch normalisation is mathematically zero.
    for name, channels, bias in (("1", (1, 8), True), ("2", (8, 16), False)):
        x = g.conv(x, f"conv{name}", channels, (3, 3), pads=[1, 1, 1, 1], bias=bias)
        x = g.op("Relu", g.batch_norm(x, f"norm{name}", channels[1]))
        x = g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    g.linear(g.op("Flatten", x, axis=1), "output", 16 * 7 * 7, 10)
    return g.finish((1, 28, 28), 10)


def _cnn1d() -> onnx.ModelProto:
    g = _Graph(3)
    x = g.op("Relu", g.conv("x", "stem", (6, 16), (5,), strides=[2], pads=[2, 2]))
    for name, channels, stride in (("block1", (16, 32), 1), ("block2", (32, 32), 2)):
        depth = (channels[0], channels[0])
        x = g.conv(x, f"{name}.depthwise", depth, (5,), group=depth[0], strides=[stride], pads=[2, 2])
        x = g.op("Relu", g.conv(x, f"{name}.pointwise", channels, (1,)))
    g.linear(g.op("Flatten", g.op("GlobalAveragePool", x), axis=1), "output", 32, 7)
    return g.finish((6, 100), 7)


def _stress() -> onnx.ModelProto:
    """Sizes 24×24 → 12×12 → 12×12 → 12×12 → 6×6 → 6×3 → 3×2; the last convolution leaves a column of its input over."""
    g = _Graph(4)
    x = g.op("Relu", g.conv("x", "conv1", (3, 8), (3, 3), strides=[2, 2], pads=[0, 1, 2, 1]))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    x = g.op("Relu", g.conv(x, "conv2", (8, 16), (3, 3), group=4, dilations=[2, 2], pads=[2, 2, 2, 2]))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = g.conv(x, "conv3", (16, 16), (3, 2), group=16, strides=[1, 2], pads=[1, 1, 1, 0])
    x = g.op("LeakyRelu", x, alpha=0.1)
    # No AveragePool: the native runtime's gradient of it fails or ends the process (its own test shows this).
    x = g.op("MaxPool", x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 0])
    g.linear(g.op("Flatten", x, axis=1), "output", 16 * 3 * 2, 10)
    return g.finish((3, 24, 24), 10)


def _transformer(seed: int, opset: int, rank: int = 0) -> onnx.ModelProto:
    """Two pre-norm blocks; with a rank, adapters x A B beside each projection of the attention."""
    g = _Graph(seed, opset)
    x = g.op("Gather", g.normal("token.weight", (_VOCABULARY, _WIDTH), 1), "x")
    x = g.op("Add", x, g.normal("position.weight", (_TOKENS, _WIDTH), 0.5))
    # torch.onnx.export with a dynamic batch computes the shapes of its Reshapes.
    batch = g.op("Shape", "x", start=0, end=1)
    split = g.op("Concat", batch, g.constant([_TOKENS, _HEADS, _WIDTH // _HEADS], np.int64), axis=0)
    merged = g.op("Concat", batch, g.constant([_TOKENS, _WIDTH], np.int64), axis=0)
    scale = g.constant((_WIDTH / _HEADS) ** -0.25)

    def project(x: str, name: str) -> str:
        y = g.dense(x, name, _WIDTH, _WIDTH)
        if not rank:
            return y
        # B starts at zero in practice and then hides the gradient of A: this is an adapter on its way.
        down = g.op("MatMul", x, g.normal(f"{name}.lora_A", (_WIDTH, rank), _WIDTH**-0.5))
        up = g.op("MatMul", down, g.normal(f"{name}.lora_B", (rank, _WIDTH), 0.1))
        return g.op("Add", y, g.op("Mul", up, g.constant(2)))

    def heads(x: str, name: str, order: list[int]) -> str:
        return g.op("Transpose", g.op("Reshape", project(x, name), split), perm=order)

    for block in ("blocks.0", "blocks.1"):
        normal = g.layer_norm(x, f"{block}.norm1")
        query = g.op("Mul", heads(normal, f"{block}.attention.query", [0, 2, 1, 3]), scale)
        key = g.op("Mul", heads(normal, f"{block}.attention.key", [0, 2, 3, 1]), scale)
        value = heads(normal, f"{block}.attention.value", [0, 2, 1, 3])
        attention = g.op("MatMul", g.op("Softmax", g.op("MatMul", query, key), axis=-1), value)
        attention = g.op("Reshape", g.op("Transpose", attention, perm=[0, 2, 1, 3]), merged)
        x = g.op("Add", x, project(attention, f"{block}.attention.output"))
        inner = g.gelu(g.dense(g.layer_norm(x, f"{block}.norm2"), f"{block}.up", _WIDTH, 2 * _WIDTH))
        x = g.op("Add", x, g.dense(inner, f"{block}.down", 2 * _WIDTH, _WIDTH))
    g.linear(g.mean(g.layer_norm(x, "norm"), 1), "output", _WIDTH, 4)
    return g.finish((_TOKENS,), 4, TensorProto.INT64)


def _embedding() -> onnx.ModelProto:
    """The next of 5000 words from the 20 before it, their order ignored."""
    g = _Graph(7)
    x = g.mean(g.op("Gather", g.normal("embedding.weight", (5000, 64), 1), "x"), 1)
    g.linear(g.op("Tanh", g.linear(x, "hidden", 64, 64)), "output", 64, 5000)
    return g.finish((20,), 5000, TensorProto.INT64)


def _recurrent(kind: str, gates: int, seed: int) -> onnx.ModelProto:
    """T = 50, 6 features, 32 hidden, batch first: torch.nn.GRU or LSTM without an initial state."""
    g = _Graph(seed)
    shapes = {"weight_ih": (1, gates * 32, 6), "weight_hh": (1, gates * 32, 32), "bias": (1, 2 * gates * 32)}
    weights = [g.normal(f"rnn.{name}", shape, 32**-0.5) for name, shape in shapes.items()]
    inputs = [g.op("Transpose", "x", perm=[1, 0, 2]), *weights]
    if kind == "GRU":  # h_n
        _, last = g.ops("GRU", inputs, 2, hidden_size=32, linear_before_reset=1)
        last = g.op("Squeeze", last, g.constant([0], np.int64))
    else:  # output[:, -1]
        every, *_ = g.ops("LSTM", inputs, 3, hidden_size=32)
        every = g.op("Transpose", g.op("Squeeze", every, g.constant([1], np.int64)), perm=[1, 0, 2])
        last = g.op("Gather", every, g.constant(-1, np.int64), axis=1)
    g.linear(last, "output", 32, 5)
    return g.finish((50, 6), 5)


def _features(*shape: int, classes: int) -> Batch:
    return lambda size, rng: (rng.normal(0, 1, (size, *shape)).astype(np.float32), rng.integers(0, classes, size))


def _words(length: int, *, vocabulary: int, classes: int) -> Batch:
    return lambda size, rng: (rng.integers(0, vocabulary, (size, length)), rng.integers(0, classes, size))


_TEXT: Final = _words(_TOKENS, vocabulary=_VOCABULARY, classes=4)
_WINDOW: Final = _features(50, 6, classes=5)

ZOO: Final[dict[str, Entry]] = {
    entry.name: entry
    for entry in (
        Entry("mlp", _mlp, _features(600, classes=7)),
        Entry("cnn", _cnn, _features(1, 28, 28, classes=10)),
        Entry("cnn1d", _cnn1d, _features(6, 100, classes=7)),
        Entry("stress", _stress, _features(3, 24, 24, classes=10)),
        Entry("transformer", lambda: _transformer(5, 20), _TEXT),
        Entry("lora", lambda: _transformer(6, 17, _RANK), _TEXT, ("*lora*",)),
        Entry("embedding", _embedding, _words(20, vocabulary=5000, classes=5000)),
        Entry("gru", lambda: _recurrent("GRU", 3, 8), _WINDOW),
        Entry("lstm", lambda: _recurrent("LSTM", 4, 9), _WINDOW),
    )
}
