"""The comparison as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from broker.monitor.text import size
from tools.compare.summary import TARGET

BEGIN: Final = "<!-- measured: begin -->"
END: Final = "<!-- measured: end -->"
_FLOAT32: Final = 1e-7  # of a mean loss: less is rounding
_SHOWN: Final = (0.025, 0.1, 0.25, 0.5, 1.0)  # of all rounds, where the distance to the optimum is told


def between(text: str, tables: str) -> str:
    """A document with other tables between its markers.

    Raises:
        ValueError: it has no markers.

    Example:
        >>> between(f"a {BEGIN} b {END} c", "new")
        'a <!-- measured: begin -->\\n\\nnew\\n<!-- measured: end --> c'
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"it has no lines {BEGIN} and {END} to put the tables between")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def markdown(report: Mapping[str, Any]) -> str:
    """All tables of a report."""
    parts = [_origin(report)]
    for task in dict.fromkeys(each["task"] for each in report["rows"]):
        parts.append(f"### {task}")
        some = [each for each in report["rows"] if each["task"] == task]
        parts += [_accuracies(some), _costs(some)]
    parts += ["### Beside the literature", _claims(report["claims"])]
    if report["tuning"]:
        parts += ["### Tuning", _tuning(report["tuning"])]
    if report["convergence"]:
        parts += ["### Distance to a known optimum", _convergence(report["convergence"])]
    return "\n\n".join(parts) + "\n"


def _origin(report: Mapping[str, Any]) -> str:
    scale, host = report["scale"], report["host"]
    text = (
        f"{scale['versions']} rounds; commit {', '.join(report['commits']) or 'unknown'}; {host['cpu']},"
        f" {report['cpu_s'] / 60:.0f} minutes of one core in all."
    )
    missing = len(report["missing"])
    return f"{text} **Missing cells: {missing}.**" if missing else text


def _accuracies(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("scheme", "error feedback", "seeds", "late", "avg", "late − dense", "avg − dense", "cosine")
    return _table(
        head,
        [
            (
                each["scheme"], "yes" if each["feedback"] else "no", str(len(each["seeds"])),
                _share(each["late"], each["late_deviation"]), _share(each["avg"], each["avg_deviation"]),
                _gap(each["late_gap"], each["late_gap_deviation"]), _gap(each["avg_gap"], each["avg_gap_deviation"]),
                f"{each['cosine']:.2f}",
            )
            if each["seeds"]
            else (each["scheme"], *["…"] * (len(head) - 1))
            for each in rows
        ],
    )  # fmt: skip


def _costs(rows: Sequence[Mapping[str, Any]]) -> str:
    some = [each for each in rows if each["seeds"]]
    if not some:
        return ""
    per_cent = f"{TARGET:.0%}".replace("%", " %")
    head = (
        "scheme", "bytes an update", "less up", "less up + down", f"up to {per_cent}", f"down to {per_cent}",
        f"both to {per_cent}", "client ms", "server ms",
    )  # fmt: skip
    first = some[0]["first_fetch_bytes"]
    table = _table(
        head,
        [
            (
                each["scheme"], f"{each['update_bytes']:,.0f}", _times(each["reduction"]),
                _times(each["steady_reduction"]), _spent(each["target_uplink_bytes"]),
                _spent(each["target_downlink_bytes"]), _spent(each["target_bytes"]), f"{each['client_ms']:.1f}",
                f"{each['server_ms']:.1f}",
            )
            for each in some
        ],
    )  # fmt: skip
    training = min(each["training_ms"] for each in some)
    return f"{table}\n\nFirst fetches, apart: {size(round(first))}; training takes {training:.0f} ms an update."


def _claims(rows: Sequence[Mapping[str, Any]]) -> str:
    tasks = max((each["tasks"] for each in rows), key=len)
    head = (
        "family", "scheme", "saves, it is said", "saved here", "client ÷ training", "feedback's worth, late", "avg",
        "cosine", "against what is said",
    )  # fmt: skip
    table = _table(
        head,
        [
            (
                each["family"], each["scheme"], "-".join(f"{100 * share:.0f}" for share in each["claimed"]) + " %",
                " / ".join(f"{100 * share:.1f}" for share in each["compression"]) + " %",
                " / ".join(f"{share:.2f}" for share in each["overhead"]),
                " / ".join(_gap(worth, 0) for worth in each["late"]),
                " / ".join(_gap(worth, 0) for worth in each["avg"]),
                " / ".join(f"{cosine:.2f}" for cosine in each["cosine"]), each["against"],
            )
            for each in rows
            if each["tasks"]
        ],
    )  # fmt: skip
    return f"Figures in the order {' / '.join(tasks)}.\n\n{table}"


def _tuning(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("task", "scheme", "learning rate", "server rate", "passes", "late", "avg", "")
    return _table(
        head,
        [
            (
                each["task"], each["scheme"], f"× {each['rate']:g}", f"{each['server']:g}", f"× {each['epochs']:g}",
                _share(each["late"], 0), _share(each["avg"], 0), "**chosen**" if each["chosen"] else "",
            )
            for each in rows
        ],
    )  # fmt: skip


def _convergence(rows: Sequence[Mapping[str, Any]]) -> str:
    versions = sorted({int(version) for each in rows for version in each["gaps"]})
    last = versions[-1]
    shown = list(dict.fromkeys(min(versions, key=lambda at: abs(at - share * last)) for share in _SHOWN))
    head = ("scheme", "bytes an update", *(f"round {version:,}" for version in shown))
    return _table(
        head,
        [
            (each["scheme"], f"{each['update_bytes']:,.0f}", *(_distance(each["gaps"][version]) for version in shown))
            for each in rows
        ],
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def _share(value: float | None, deviation: float | None) -> str:
    """As .751 ± .011."""
    if value is None:
        return "-"
    told = f"{value:.3f}".removeprefix("0")
    return f"{told} ± {f'{deviation:.3f}'.removeprefix('0')}" if deviation else told


def _gap(value: float | None, deviation: float | None) -> str:
    if value is None:
        return "-"
    sign = "−" if value < 0 else "+"
    return sign + _share(abs(value), deviation)


def _distance(gap: float) -> str:
    return f"{gap:.1e}" if gap >= _FLOAT32 else f"under {_FLOAT32:.0e}"


def _times(value: float) -> str:
    return f"{value:,.0f}×" if value >= 10 else f"{value:.1f}×"


def _spent(value: float | None) -> str:
    return "never" if value is None else size(round(value))
