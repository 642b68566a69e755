"""FORMAT.md is normative: its tables are compared with the code, its examples are decoded."""

import dataclasses
import json
import re
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from edgeclient import wire
from edgeclient.bundle import archive, manifest, safetensors
from edgeclient.bundle.archive import EVAL, FORWARD, FROZEN, MAX_FILES, MAX_NAME, PARAMETERS, TRAINING
from edgeclient.bundle.manifest import MANIFEST
from edgeclient.compress.update import StepValues
from edgeclient.wire import announcement, claim, fields, frame, limits, messages, reader, status
from edgeclient.wire.errors import REASONS
from edgeclient.wire.frame import body, codes, header, positions, write_values

TEXT = (Path(wire.__file__).parent / "FORMAT.md").read_text()


def section(title: str) -> str:
    """The text under a heading that begins with `title`, up to the next heading of any depth."""
    found = re.search(rf"^#+ {re.escape(title)}.*?\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def tables(text: str, first_column: str) -> list[list[list[str]]]:
    """Tables whose first heading is `first_column`, as rows of cells."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [
            [re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in line.strip().strip("|").split("|")]
            for line in block.splitlines()
        ]
        if rows[0][0] == first_column:
            found.append(rows[2:])
    return found


def layout(title: str) -> list[list[str]]:
    """The fields of a message, those included that all begin with."""
    (prefix,) = tables(section("2. Topics"), "offset")
    (rows,) = tables(section(title), "offset")
    return prefix + rows


def fields_of(form: str) -> list[int]:
    """Sizes of the fields of a struct format, `8s` being one field."""
    return [struct.calcsize("<" + field) for field in re.findall(r"\d*s|[A-Za-z]", form.lstrip("<"))]


def example(name: str) -> bytes:
    found = re.search(rf"<!-- example: {name} -->\n```\n(.*?)```", TEXT, re.DOTALL)
    assert found, name
    digits = [re.match(r"(?:[0-9a-f]{2,} ?)+", line) for line in found[1].splitlines()]
    assert all(digits), name
    return bytes.fromhex("".join(match[0] for match in digits if match))


def annotated(name: str) -> list[tuple[str, str]]:
    """(hex, field name) of each line of an example."""
    found = re.search(rf"<!-- example: {name} -->\n```\n(.*?)```", TEXT, re.DOTALL)
    assert found, name
    lines = [re.split(r"\s{2,}", line) for line in found[1].splitlines()]
    return [(line[0].replace(" ", ""), line[1]) for line in lines]


@pytest.mark.parametrize(
    ("title", "form", "checksum"),
    [
        ("3.1 Header", header.HEADER.format, False),
        ("4. HELLO", messages._HELLO.format, True),
        ("4.1 WITHDRAW", messages._WITHDRAW.format, False),
        ("5. RECEIPT", messages._RECEIPT.format, False),
    ],
)
def test_layout_tables_are_the_structs(title: str, form: str, checksum: bool) -> None:
    rows = layout(title)
    sizes = fields_of(form) + [4] * checksum
    assert [int(row[1]) for row in rows] == sizes
    assert [int(row[0]) for row in rows] == [sum(sizes[:i]) for i in range(len(sizes))]
    assert sum(sizes) == struct.calcsize(form) + 4 * checksum
    assert form.startswith(messages._PREFIX.format)


def test_offsets_that_the_prose_and_the_code_name() -> None:
    at = {row[2]: int(row[0]) for row in layout("3.1 Header")}
    assert (at["epoch"], at["sequence"]) == (header.IDENTITY_AT, header.IDENTITY_AT + 8)
    assert f"These {header.HEADER.size} bytes are followed by varints" in section("3.1 Header")
    assert f"The header has {messages._RECEIPT.size} bytes" in section("5. RECEIPT")


def test_limits() -> None:
    (rows,) = tables(section("1. Limits"), "limit")
    in_code = {name: value for name, value in vars(limits).items() if name.isupper()}
    assert {row[0]: int(row[1]) for row in rows} == in_code


def test_refusals() -> None:
    (rows,) = tables(section("5. RECEIPT"), "code")
    assert [(int(row[0]), row[1]) for row in rows] == [(int(each), each.reason) for each in messages.Refusal]


def test_reasons() -> None:
    (rows,) = tables(section("The wire format"), "reason")
    assert len(rows) == len(REASONS)
    assert {row[0] for row in rows} == REASONS


def test_message_kinds_and_modes() -> None:
    kinds = {"FRAME": messages.FRAME, "HELLO": messages.HELLO, "WITHDRAW": messages.WITHDRAW, "RECEIPT": 4}
    (rows,) = tables(section("2. Topics"), "offset")
    assert {name: int(code) for code, name in re.findall(r"(\d) ([A-Z]+)", rows[2][3])} == kinds
    (rows,) = tables(section("3.4 Values"), "value mode")
    assert [(int(row[0]), row[1]) for row in rows] == list(enumerate(write_values.MODES))
    (rows,) = tables(section("3.2 Segments"), "position mode")
    numbers = {"Rice": positions.RICE, "context": positions.CONTEXT, "dense": positions.DENSE}
    assert {row[1]: int(row[0]) for row in rows} == numbers
    (rows,) = tables(section("3.1 Header"), "offset")
    said = next(row[3] for row in rows if row[2] == "flags")
    for name, bit in [("signed", header.SIGNED), ("part", header.PART), ("tensors", header.TENSORS)]:
        assert f"bit {bit.bit_length() - 1}: {name}" in said
    assert f"at most {body.ENTRIES_PER_BYTE} × (its bytes" in " ".join(section("3.2").split()).replace(
        "has at most", "at most"
    )
    rows, _ = tables(section("3.4 Values"), "part")
    form = next(row[2] for row in rows if row[0] == "form")
    for name, bit in [("runs", write_values.RUNS), ("row", write_values.ROW)]:
        assert f"bit {bit.bit_length() - 1}: {name}" in form
    (rows,) = tables(section("3.2 Segments"), "part")
    assert f"bits 0 to {codes.MAX_BITS.bit_length() - 1}: bits b" in rows[0][2]


def amount(value: float) -> str:
    """A limit as the tables write it."""
    if value < 0:
        return f"−{amount(-value)}"
    for power in range(-30, 64):
        if value == 10.0**power and not -1 < power < 4:
            return f"10^{power}"
        if value == 2.0**power and not -10 < power < 10:
            return f"2^{power}"
        if power > 10 and value == 2**power - 1:
            return f"2^{power} − 1"
    return f"{value:g}"


def stated(kind: type, *, whole: bool) -> list[list[str]]:
    """The rows of the table of a JSON object, as the annotations of its dataclass say them."""
    rows = []
    for name, each in fields.of(kind).items():
        said = {dataclasses.MISSING: "required", None: "unknown"}.get(
            each.default, json.dumps(each.default, default=str)
        )
        low, high = each.rule.low, each.rule.high
        limits = "" if low is None or high is None else f"{amount(low)} to {amount(high)}"
        rows.append([name, each.rule.kind, *([] if whole else [said]), limits, each.about])
    return rows


@pytest.mark.parametrize(
    ("title", "first", "kind", "whole"),
    [
        ("6. Announcement", "key", announcement.Announcement, True),
        ("6. Announcement", "blob key", announcement.Blob, True),
        ("6. Announcement", "policy key", announcement.Policy, False),
        ("6.1 Claim", "key", claim.Claim, True),
        ("7. Status", "key", status.Status, False),
        ("8. Bundle", "key", manifest.Manifest, True),
        ("8. Bundle", "tensor key", manifest.Tensor, True),
        ("8. Bundle", "buffer key", manifest.Buffer, True),
        ("8. Bundle", "optimiser key", manifest.Optimiser, True),
        ("8. Bundle", "file key", manifest.File, True),
    ],
)
def test_tables_of_json_are_what_the_fields_say(title: str, first: str, kind: type, whole: bool) -> None:
    (rows,) = tables(section(title), first)
    apart = {"format", "parameters", "layout"} if kind is manifest.Manifest else {"format"}
    said = [[cell.strip("`") if i < 3 else cell for i, cell in enumerate(row)] for row in rows if row[0] not in apart]
    assert said == stated(kind, whole=whole)
    if {row[0] for row in rows} & apart:
        assert rows[0][:3] == ["format", "integer", str(manifest.FORMAT)]


def test_files_of_a_bundle() -> None:
    (rows,) = tables(section("8. Bundle"), "file")
    assert {row[0] for row in rows if row[1] == "yes"} == {MANIFEST, PARAMETERS, TRAINING, EVAL}
    assert {row[0] for row in rows if row[1] == "no"} == {FROZEN, FORWARD, "native/…"}
    said = " ".join(section("8. Bundle").split())
    assert f"at most {MAX_FILES} stored files" in said
    assert f"at most {MAX_NAME} characters" in said
    assert f"`{archive._NAME.pattern}`" in said
    assert f"at most 2^{safetensors.MAX_HEADER_BYTES.bit_length() - 1}, the header" in said


def test_words_of_a_status() -> None:
    words = re.search(r"`doing` is one of (.*?):", section("7. Status"), re.DOTALL)
    assert words is not None
    assert tuple(re.findall(r"`([a-z-]+)`", words[1])) == status.DOINGS


def test_version_history_ends_with_the_version_in_use() -> None:
    (rows,) = tables(section("10. Version history"), "version")
    assert [int(row[0]) for row in rows] == list(range(limits.WIRE_VERSION, limits.FRAME_VERSION + 1))


def test_docstrings_refer_to_sections_that_exist() -> None:
    package = Path(wire.__file__).parents[1]
    for path in (*package.glob("wire/**/*.py"), *package.glob("bundle/*.py"), *package.glob("compile/*.py")):
        for numbers in re.findall(r"FORMAT\.md,\s+sections?\s+([\d., and]+)", path.read_text()):
            for number in re.findall(r"\d+(?:\.\d+)?", numbers):
                assert section(number + ("." if "." not in number else "")), (path, number)


def test_frame_example() -> None:
    data = example("frame")
    made = frame.decode(data)
    assert made.wire_version == limits.FRAME_VERSION
    assert (made.address, made.layout_tag.hex()) == (frame.address("har", "pi-7"), "00112233")
    assert (made.epoch, made.sequence, made.number) == (0x0123456789ABCDEF, 3, 2)
    assert (made.part, made.parts, made.base_version, made.num_examples) == (0, 1, 4, 320)
    assert (made.update.size, made.update.indices.tolist()) == (40, [5, 9, 30])
    assert made.update.values.decoded().tolist() == [1.125, -1.125, 2.5]
    assert isinstance(made.update.values, StepValues)
    assert made.update.values.threshold == np.float32(1.0)
    assert made.update.values.levels.tolist() == [0, 0, 1]
    origin = frame.Origin("har", "pi-7", made.layout_tag, 2, 4, 320)
    (again,) = frame.encode_update(made.update, origin, limits.MAX_FRAME_BYTES)
    assert frame.stamp(again, epoch=made.epoch, sequence=3) == data


def test_withdraw_example() -> None:
    withdraw = messages.Withdraw(
        0x0123456789ABCDEF, ((2, sha256(b"a").digest()[:8]), (5, sha256(b"b").digest()[:8])), "fedcba9876543210"
    )
    assert messages.decode_withdraw(example("withdraw")) == withdraw
    assert messages.encode_withdraw(withdraw) == example("withdraw")


def test_hello_example() -> None:
    hello = messages.Hello(0x0123456789ABCDEF, 4, 2, "fedcba9876543210")
    assert messages.decode_hello(example("hello")) == hello
    assert messages.encode_hello(hello) == example("hello")


def test_receipt_example() -> None:
    refused = ((1, messages.Refusal.STALE), (4, messages.Refusal.VALUE_LIMIT))
    receipt = messages.Receipt(0x0123456789ABCDEF, 2, 5, None, (3,), refused)
    assert messages.decode_receipt(example("receipt")) == receipt
    assert messages.encode_receipt(receipt) == example("receipt")


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("frame", "3.1 Header"),
        ("hello", "4. HELLO"),
        ("withdraw", "4.1 WITHDRAW"),
        ("receipt", "5. RECEIPT"),
    ],
)
def test_example_lines_are_the_fields_of_the_table(name: str, title: str) -> None:
    rows = layout(title)
    lines = annotated(name)
    assert [(len(digits) // 2, field) for digits, field in lines[: len(rows)]] == [(int(r[1]), r[2]) for r in rows]
    assert reader.unsealed(example(name)).hex() + lines[-1][0] == "".join(digits for digits, _ in lines)
