"""Convolutions and transposed convolutions in one, two or three dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeclient.compile.lower.builder import Builder, Node
from edgeclient.compile.lower.registry import lowers


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a kernel walks: all per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    group: int = 1

    @property
    def pads(self) -> list[int]:
        """As ONNX writes them: all begins, then all ends."""
        return [*self.begin, *self.end]

    def span(self, axis: int) -> int:
        """Positions that the dilated kernel covers."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1


def geometry(b: Builder, node: Node, kernel: Sequence[int], x: str) -> Geometry:
    """The node's attributes, with automatic padding resolved from the spatial size of x."""
    count = len(kernel)
    strides = tuple(node.attribute("strides", None) or [1] * count)
    dilations = tuple(node.attribute("dilations", None) or [1] * count)
    pads = node.attribute("pads", None) or [0] * (2 * count)
    automatic = node.attribute("auto_pad", "NOTSET")
    if automatic == "VALID":
        pads = [0] * (2 * count)
    begin, end = tuple(pads[:count]), tuple(pads[count:])
    made = Geometry(tuple(kernel), strides, dilations, begin, end, node.attribute("group", 1))
    if automatic in {"SAME_UPPER", "SAME_LOWER"}:
        sizes = b.fixed(x, range(2, 2 + count), f"auto_pad {automatic}")
        total = [
            max((-(-size // strides[i]) - 1) * strides[i] + made.span(i) - size, 0) for i, size in enumerate(sizes)
        ]
        small, large = tuple(each // 2 for each in total), tuple(each - each // 2 for each in total)
        begin, end = (small, large) if automatic == "SAME_UPPER" else (large, small)
        return replace(made, begin=begin, end=end)
    return made


def _remainders(b: Builder, x: str, form: Geometry) -> list[int]:
    """Trailing positions of the padded input that no kernel position reaches."""
    axes = [axis for axis, stride in enumerate(form.strides) if stride > 1]
    sizes = dict(zip(axes, b.fixed(x, [2 + axis for axis in axes], "a stride") if axes else [], strict=True))
    return [
        (sizes[axis] + form.begin[axis] + form.end[axis] - form.span(axis)) % form.strides[axis] if axis in sizes else 0
        for axis in range(len(form.kernel))
    ]


def conv_input_adjoint(b: Builder, dy: str, x: str, w: str, form: Geometry) -> str:
    """dx = ConvTranspose(dY, W), with output padding where the stride did not fit."""
    return b.op(
        "ConvTranspose", dy, w, strides=list(form.strides), dilations=list(form.dilations), pads=form.pads,
        group=form.group, output_padding=_remainders(b, x, form),
    )  # fmt: skip


def conv_weight_adjoint(b: Builder, dy: str, x: str, form: Geometry) -> str:
    """dW = Conv(Xᵀ, dYᵀ) with strides and dilations exchanged, batch and channel axes exchanged.

    A group's channels of X join the batch: (N, g·c, …) → (c, g·N, …), so that one grouped convolution does all.
    """
    rank, group = b.rank(x), form.group
    spatial = list(range(2, rank))
    extra = []
    for i, rest in enumerate(_remainders(b, x, form)):
        # Convolutions refuse negative pads: what no kernel position reached is cut off instead.
        if (cut := max(rest - form.end[i], 0)) > 0:
            (size,) = b.fixed(x, [2 + i], "a stride")
            x = b.slice(x, 2 + i, 0, size - cut)
        extra.append(max(form.end[i] - rest, 0))
    if group == 1:
        moved_x, moved_dy = (b.transpose(each, [1, 0, *spatial]) for each in (x, dy))
    else:
        moved_x, moved_dy = _grouped(b, x, group, channels_first=True), _grouped(b, dy, group, channels_first=False)
    made = b.op(
        "Conv", moved_x, moved_dy, strides=list(form.dilations), dilations=list(form.strides),
        pads=[*form.begin, *extra], group=group,
    )  # fmt: skip
    return b.transpose(made, [1, 0, *spatial])


def _grouped(b: Builder, x: str, group: int, *, channels_first: bool) -> str:
    """(N, g·c, …) → (c, g·N, …), or (g·c, N, …) for the kernel side."""
    shape = b.shape(x)
    sizes = b.fixed(x, range(1, len(shape)), "a grouped convolution")
    spatial = list(range(3, len(shape) + 1))
    if not channels_first:
        return b.transpose(x, [1, 0, *(axis - 1 for axis in spatial)])
    apart = b.reshape(x, [-1, group, sizes[0] // group, *sizes[1:]])
    moved = b.transpose(apart, [2, 1, 0, *spatial])
    return b.reshape(moved, [sizes[0] // group, -1, *sizes[1:]])


def bias_adjoint(b: Builder, dy: str) -> str:
    """Σ dY over batch and space."""
    return b.reduce("ReduceSum", dy, [axis for axis in range(b.rank(dy)) if axis != 1], keepdims=False)


@lowers("ConvGrad")
def _conv(b: Builder, node: Node) -> Sequence[str | None]:
    dy, x, w = node.inputs
    form = geometry(b, node, b.fixed(w, range(2, b.rank(w)), "a convolution"), x)
    return [
        conv_input_adjoint(b, dy, x, w, form) if node.wants(0) else None,
        conv_weight_adjoint(b, dy, x, form) if node.wants(1) else None,
        bias_adjoint(b, dy) if node.wants(2) else None,
    ]


@lowers("ConvTransposeGrad")
def _conv_transpose(b: Builder, node: Node) -> Sequence[str | None]:
    """Y = ConvTranspose(X, W) is the adjoint of a convolution from Y to X: its own adjoint is that convolution."""
    dy, x, w = node.inputs
    if node.attribute("output_shape", None) or node.attribute("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        raise node.refuse("output_shape and auto_pad are not supported: export with explicit pads")
    form = geometry(b, node, b.fixed(w, range(2, b.rank(w)), "a convolution"), dy)
    attributes = {"strides": list(form.strides), "dilations": list(form.dilations), "pads": form.pads}
    dx = b.op("Conv", dy, w, group=form.group, **attributes) if node.wants(0) else None
    # The roles: X is the convolution's output gradient, dY its input; W is (in, out/g, …) as a convolution's is.
    dw = conv_weight_adjoint(b, x, dy, form) if node.wants(1) else None
    if dx is not None:
        # Output padding of at least a stride's remainder cannot add a position; the shapes agree, the type says so.
        b.describe(dx, x)
    return [dx, dw, bias_adjoint(b, dy) if node.wants(2) else None]
