"""What may stand in a key is said once: reader and writer follow the annotations."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from edgeclient.wire import fields
from edgeclient.wire.errors import WireError
from edgeclient.wire.fields import FLAG, array, choice, hexadecimal, integer, nullable, number, record, row, table, text


@dataclass(frozen=True)
class Inner:
    share: Annotated[float, number(0, 1), "of the whole"]
    on: Annotated[bool, FLAG, "or off"] = False


@dataclass(frozen=True)
class Outer:
    name: Annotated[str, text(5), "of it"]
    part: Annotated[Inner, record(Inner), "one"]
    strict: Annotated[Inner | None, record(Inner, whole=True), "with all keys"] = None
    note: Annotated[str, text(5, cut=True), "cut"] = ""
    kind: Annotated[str, choice("a", "b"), "a or b"] = "a"
    digest: Annotated[str, hexadecimal(4), "short"] = "0000"
    most: Annotated[int | None, nullable(integer(1, 9)), "or none"] = None
    pairs: Annotated[tuple[Any, ...], array(row(text(3), integer(0, 9)), 2), "name and number"] = ()
    by_name: Annotated[dict[str, int] | None, table(integer(0, 9)), "any names"] = None
    own: int = 7


GIVEN: dict[str, Any] = {"name": "n", "part": {"share": 0.5}}


def test_round_trip_leaves_out_what_has_its_default() -> None:
    value = Outer("n", Inner(0.5), note="hello", most=3, pairs=(("x", 1),), by_name={"any": 2})
    told = fields.encode(value)
    assert told == GIVEN | {"note": "hello", "most": 3, "pairs": (("x", 1),), "by_name": {"any": 2}}
    assert fields.decode(Outer, fields.json_object(fields.json_bytes(told)), "it") == value
    assert fields.encode(Inner(0.5), whole=True) == {"share": 0.5, "on": False}


def test_what_json_does_not_know_is_not_read() -> None:
    assert "own" not in fields.of(Outer)
    assert fields.decode(Outer, GIVEN | {"own": 9, "later": []}, "it").own == 7


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": 3}, "json: it.name must be str, not '3'"),
        ({"name": "longer"}, "range: it.name has 6 characters, at most 5 are allowed"),
        ({"part": {}}, "json: it.part.share is missing"),
        ({"part": {"share": True}}, "json: it.part.share must be int or float"),
        ({"part": {"share": 1.5}}, "range: it.part.share is 1.5, allowed are 0 to 1"),
        ({"part": {"share": float("nan")}}, "range: it.part.share is nan"),
        ({"strict": {"share": 1}}, "json: it.strict.on is missing"),
        ({"strict": {"share": 1, "on": True, "more": 1}}, "json: it.strict.more is unknown"),
        ({"kind": "c"}, "range: it.kind is 'c', allowed are a, b"),
        ({"digest": "00FF"}, "range: it.digest must be 4 hexadecimal digits"),
        ({"most": 10}, "range: it.most is 10"),
        ({"most": 1.0}, "json: it.most must be int"),
        ({"pairs": [["x", 1, 2]]}, "range: it.pairs[0] has 3 elements, not 2"),
        ({"pairs": [["x", 1]] * 3}, "range: it.pairs has 3 elements, at most 2 are allowed"),
        ({"by_name": {"any": -1}}, "range: it.by_name.any is -1"),
        ({"by_name": None}, "json: it.by_name must be dict"),
    ],
)
def test_what_is_refused_and_how_it_is_named(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(WireError) as caught:
        fields.decode(Outer, GIVEN | changes, "it")
    assert str(caught.value).startswith(why)


def test_long_text_is_cut_where_that_is_said() -> None:
    assert fields.decode(Outer, GIVEN | {"note": "too long"}, "it").note == "too l"


def test_a_value_made_by_hand_is_checked_alike() -> None:
    fields.check(Inner(1.0))
    with pytest.raises(ValueError, match=r"share is 2.0, allowed are 0 to 1"):
        fields.check(Inner(2.0))
