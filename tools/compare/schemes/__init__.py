"""The compressors of the field: those that are settings of the product, and those for the comparison alone.

Ternary as in STC (1903.02891) is the product's frame with values of sign and mean magnitude: its positions are coded
no worse than by Golomb's code.
"""

from typing import Final

from broker.simulate.scheme import Scheme, Sparse
from tools.compare.schemes.dense import Dense
from tools.compare.schemes.layerwise import LayerWise
from tools.compare.schemes.powersgd import PowerSgd
from tools.compare.schemes.random_k import RandomK
from tools.compare.schemes.sparseloco import SparseLoco

_PRODUCT: Final[tuple[Scheme, ...]] = (
    Sparse("float32, density 1", "float32", feedback=False, policy={"density": 1.0}),
    Sparse("8 bits, EF", "int8", policy={"density": 1.0}),
    Sparse("4 bits, EF", "int4", policy={"density": 1.0}),
    Sparse("1 bit, EF", "sign", policy={"density": 1.0}),
    Sparse("1 bit", "sign", feedback=False, policy={"density": 1.0}),
    Sparse("top-k 1 %, EF", policy={"density": 0.01}),
    Sparse("top-k 1 %", feedback=False, policy={"density": 0.01}),
    Sparse("top-k 0.25 %, EF", policy={"density": 0.0025}),
    Sparse("top-k 0.25 %", feedback=False, policy={"density": 0.0025}),
    Sparse("top-k 1 % float32, EF", "float32", policy={"density": 0.01}),
    Sparse("threshold 1 %, EF", policy={"density": 0.01, "steady": True}),
    Sparse("ternary 1 % (STC), EF", "sign", policy={"density": 0.01}),
)
_FIELD: Final[tuple[Scheme, ...]] = (
    Dense(),
    RandomK("random-k 1 %, EF", 0.01),
    RandomK("random-k 1 %, unbiased", 0.01, feedback=False, half=False),
    PowerSgd("PowerSGD rank 1, EF", 1),
    PowerSgd("PowerSGD rank 4, EF", 4),
    PowerSgd("PowerSGD rank 4", 4, feedback=False),
    LayerWise("layer-wise top-k 1 %, EF", 0.01),
    SparseLoco("SparseLoCo 1 %, EF", 0.01),
)
# Every compressor of the comparison by its name in tables; each of them sits the exam in tests/compare.
SCHEMES: Final[dict[str, Scheme]] = {each.name: each for each in (*_FIELD, *_PRODUCT)}
