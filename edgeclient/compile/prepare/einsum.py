"""Einsum as products of matrices: operands are taken two at a time, from the left."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_letters
from typing import Final

from edgeclient.compile.lower.builder import Dimension, Node
from edgeclient.compile.prepare.rewrite import Rewriter, Rule


@dataclass(frozen=True, slots=True)
class _Term:
    """A value and the letters of its axes, each once."""

    value: str
    letters: str


def _einsum(b: Rewriter, node: Node) -> Sequence[str]:
    terms, output = _parsed(b, node)
    product = _Product(b, node, _sizes(b, node, terms))
    made, *rest = terms
    for index, term in enumerate(rest):
        made = product.of(made, term, output + "".join(each.letters for each in rest[index + 1 :]))
    return [_ordered(b, _summed(b, made, output), output)]


def _parsed(b: Rewriter, node: Node) -> tuple[list[_Term], str]:
    """Operands and the letters of the output, an ellipsis spelled with letters that are free."""
    equation = node.attribute("equation", "").replace(" ", "")
    left, arrow, output = equation.partition("->")
    spelled = left.split(",")
    ranks = [b.rank(x) for x in node.inputs]
    hidden = [rank - len(part) + 3 if "..." in part else 0 for rank, part in zip(ranks, spelled, strict=True)]
    dots = "".join(each for each in ascii_letters if each not in equation)[: max(hidden)]
    terms = []
    for x, part, count in zip(node.inputs, spelled, hidden, strict=True):
        letters = part.replace("...", dots[len(dots) - count :])
        if len(set(letters)) != len(letters):
            raise node.refuse(f"a letter occurs twice in an operand of {equation}: take the diagonal with basic ops")
        terms.append(_Term(x, letters))
    if not arrow:
        every = left.replace("...", "").replace(",", "")
        return terms, dots + "".join(sorted(each for each in every if every.count(each) == 1))
    return terms, output.replace("...", dots)


def _sizes(b: Rewriter, node: Node, terms: Sequence[_Term]) -> Mapping[str, Dimension]:
    """A number for each letter where one is known."""
    sizes: dict[str, Dimension] = {}
    for term in terms:
        for letter, size in zip(term.letters, b.shape(term.value), strict=True):
            before = sizes.setdefault(letter, size)
            if isinstance(before, int) and isinstance(size, int) and before != size:
                raise node.refuse(f"axis {letter} has sizes {before} and {size}: stretch it with Expand first")
            if isinstance(size, int):
                sizes[letter] = size
    return sizes


def _summed(b: Rewriter, term: _Term, needed: str) -> _Term:
    """Without the axes that nobody needs."""
    gone = [index for index, letter in enumerate(term.letters) if letter not in needed]
    kept = "".join(each for each in term.letters if each in needed)
    return _Term(b.reduce("ReduceSum", term.value, gone, keepdims=False), kept)


def _ordered(b: Rewriter, term: _Term, letters: str) -> str:
    return b.transpose(term.value, [term.letters.index(each) for each in letters])


@dataclass(frozen=True, slots=True)
class _Product:
    b: Rewriter
    node: Node
    sizes: Mapping[str, Dimension]

    def of(self, first: _Term, second: _Term, later: str) -> _Term:
        """Two operands become one, summed over the letters that nobody reads later."""
        b = self.b
        first, second = _summed(b, first, second.letters + later), _summed(b, second, first.letters + later)
        shared = "".join(each for each in first.letters if each in second.letters)
        batch = "".join(each for each in shared if each in later)
        inner = "".join(each for each in shared if each not in later)
        rows = "".join(each for each in first.letters if each not in shared)
        columns = "".join(each for each in second.letters if each not in shared)
        if not inner:
            return self._elementwise(first, second, batch + rows + columns)
        # MatMul itself spreads the axes before the last two, unless the second operand has them too.
        row_axes = [rows] if batch or not rows else list(rows)
        left = self._grouped(_ordered(b, first, batch + rows + inner), [*batch, *row_axes, inner])
        right = self._grouped(_ordered(b, second, batch + inner + columns), [*batch, inner, columns])
        made = b.op("MatMul", left, right)
        return _Term(self._grouped(made, [*batch, *row_axes, columns], apart=True), batch + rows + columns)

    def _elementwise(self, first: _Term, second: _Term, letters: str) -> _Term:
        """Each operand gets axes of size one where it has none."""
        b, made = self.b, []
        for term in (first, second):
            value = _ordered(b, term, "".join(each for each in letters if each in term.letters))
            absent = [index for index, each in enumerate(letters) if each not in term.letters]
            made.append(b.op("Unsqueeze", value, b.int64(absent)) if absent else value)
        return _Term(b.op("Mul", *made), letters)

    def _grouped(self, value: str, groups: Sequence[str], *, apart: bool = False) -> str:
        """Each group of axes becomes one axis, of size one if it is empty; or `apart`, the other way.

        Raises:
            CompileError: more than one size must be known and is not.
        """
        single = next((index for index, group in enumerate(groups) if len(group) != 1), len(groups))
        if single == len(groups):
            return value
        wanted: list[Sequence[Dimension]] = [[self.sizes[letter] for letter in group] for group in groups[single:]]
        if apart:
            rest = [size if isinstance(size, int) else -1 for group in wanted for size in group]
        else:
            rest = [
                math.prod(known)
                if len(known := [each for each in group if isinstance(each, int)]) == len(group)
                else -1
                for group in wanted
            ]
        if rest.count(-1) > 1:
            raise self.node.refuse("more than one axis has no fixed size: export the model with fixed dimensions")
        return self.b.reshape(value, [0] * single + rest)


RULES: Final[dict[str, Rule]] = {"Einsum": _einsum}
