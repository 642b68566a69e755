"""The comparison: what is run, what is tuned, what it comes to, and that it goes on where it was stopped."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tools.compare.__main__ import cli
from tools.compare.cell import Cell, Tuning
from tools.compare.claims import CLAIMS, beside
from tools.compare.methods import DENSE, FEEDBACK, METHODS, PLAIN, SPARSER
from tools.compare.plan import TUNING_SEED, Row, Scale, ahead, cells, search
from tools.compare.summary import summary
from tools.compare.tables import BEGIN, END, between, markdown

SCALE = Scale(("watch-har",), (DENSE, FEEDBACK, PLAIN, SPARSER), seeds=3)
SHORT = ["--short", "--task", "convex", "--task", "watch-har", "--scheme", "random-k 1 %, EF", "--json"]


def test_schemes_have_names_of_their_own_and_tell_what_they_are_set_to() -> None:
    assert all(name == scheme.name for name, scheme in METHODS.items())
    told = [repr(scheme) for scheme in METHODS.values()]
    assert len(set(told)) == len(told)
    assert not [each for each in told if " at 0x" in each]


def test_first_comes_one_seed_of_the_main_rows_then_the_others_then_tuning() -> None:
    plan = ahead(SCALE, {})
    seeds = [each.seed for each in plan.cells]
    assert seeds == [0] * 4 + [1] * 4 + [2] * 4 + [TUNING_SEED] * len(seeds[12:])
    assert {each.scheme for each in plan.cells[:4]} == set(SCALE.schemes)
    assert plan.hidden["watch-har"] >= 2 * SCALE.seeds


def test_a_tuned_row_is_known_when_its_search_has_ended() -> None:
    row, scores = Row("watch-har", FEEDBACK, "tuned"), dict[Cell, float]()
    assert cells(row, SCALE, scores) == []
    while missing := [each for each in ahead(SCALE, scores).cells if each not in scores]:
        for each in missing:  # the best is twice the rate, and a server's rate of 1.5
            scores[each] = -abs(each.tuning.rate - 2) - abs(each.tuning.server - 1.5) - each.tuning.epochs
    assert [each.seed for each in cells(row, SCALE, scores)] == [0, 1, 2]
    assert {each.tuning for each in cells(row, SCALE, scores)} == {Tuning(2.0, 1.5, 1)}
    assert TUNING_SEED not in {each.seed for each in cells(row, SCALE, scores)}


def test_settings_that_diverge_are_not_chosen() -> None:
    assert search(lambda each: float("-inf") if each.rate > 1 else 1.0).best == Tuning()


def outcome(late: float, spent: int, *, updates: int = 10) -> dict[str, Any]:
    points = [
        {"version": at, "metrics": {"accuracy": accuracy}, "uplink_bytes": at * spent, "downlink_bytes": at * 1000,
         "updates": at * updates // 2}
        for at, accuracy in enumerate((0.1, late, late))
    ]  # fmt: skip
    return {
        "feedback": True, "late": late, "avg": late + 0.01, "points": points, "update_bytes": spent / updates,
        "reduction": 400.0, "steady_reduction": 2.0, "total_reduction": 1.9, "first_fetch_bytes": 5000, "cosine": 0.3,
        "send_s": 0.05, "server_s": 0.02, "train_s": 0.1,
    }  # fmt: skip


def test_gaps_are_those_of_equal_seeds_and_targets_are_denses() -> None:
    dense = {seed: outcome(0.7 + seed / 10, 9000) for seed in (0, 1, 2)}
    found = {seed: outcome(0.69 + seed / 10, 90) for seed in (0, 1)}
    told = summary(Row("watch-har", FEEDBACK), found, dense)
    assert told["late_gap"] == pytest.approx(-0.01)
    assert told["late_gap_deviation"] == pytest.approx(0, abs=1e-9)
    assert told["late_deviation"] == pytest.approx(0.0707, abs=1e-4)
    assert (told["target_uplink_bytes"], told["target_bytes"]) == (90, 1090)
    assert (told["client_ms"], told["server_ms"]) == (5, 2)
    never = summary(Row("watch-har", FEEDBACK), {0: outcome(0.6, 90)}, dense)
    assert never["target_bytes"] is None


def test_claims_are_held_against_what_was_measured() -> None:
    dense = {0: outcome(0.7, 9000)}
    rows = [
        summary(Row("watch-har", FEEDBACK), {seed: outcome(0.69, 90) for seed in (0, 1)}, dense),
        summary(Row("watch-har", PLAIN), {0: outcome(0.695, 90)}, dense),
    ]
    top_k, *others = beside(rows)
    assert top_k["late"] == [pytest.approx(-0.005)]
    assert top_k["compression"] == [pytest.approx(1 - 1 / 400)]
    assert top_k["overhead"] == [pytest.approx(0.5)]
    assert top_k["against"] == "compresses more, no gain from error feedback on every task"
    assert not [each for each in others if each["tasks"] or each["against"]]


def test_schemes_that_claims_are_held_against_are_run() -> None:
    named = {name for claim in CLAIMS for pair in claim.schemes for name in pair if name}
    assert named <= METHODS.keys()


def test_a_document_without_markers_is_not_written() -> None:
    with pytest.raises(ValueError, match="it has no lines <!-- measured: begin -->"):
        between("a text", "tables")
    assert between(f"{BEGIN}\nold\n{END}\n", "new") == between(between(f"{BEGIN}{END}\n", "newer"), "new")


def test_what_is_missing_is_told() -> None:
    found = summary(Row("watch-har", FEEDBACK), {}, {})
    report = {
        "rows": [found], "claims": beside([found]),
        "tuning": [], "convergence": [], "missing": [{}], "commits": [], "cpu_s": 0.0,
        "scale": {"versions": 100}, "host": {"cpu": "x"},
    }  # fmt: skip
    assert "**Missing cells: 1.**" in markdown(report)
    assert "| top-k 1 %, EF | … | …" in markdown(report)


def test_the_short_form_goes_on_where_it_was_killed_and_makes_its_documents(tmp_path: Path) -> None:
    """Killed after its first cells, then stopped, then run to the end, then asked again, which runs nothing."""
    out, document = tmp_path / "out", tmp_path / "COMPARISON.md"
    document.write_text(f"# Ours\n{BEGIN}\n{END}\nthe end\n")
    first = [sys.executable, "-m", "tools.compare", *SHORT, "--out", str(out)]
    with subprocess.Popen(first, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as killed:
        assert killed.stderr
        assert any("2 of" in line for line in killed.stderr)
        os.kill(killed.pid, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in (out / "cells").glob("*.json")}
    assert len(kept) >= 2
    second = [*first, "--document", str(document)]
    with subprocess.Popen(second, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as stopped:
        assert stopped.stderr
        assert any("cells" in line for line in stopped.stderr)
        os.kill(stopped.pid, signal.SIGINT)
        assert "made of what there is" in stopped.stderr.read()
    assert stopped.returncode == 130
    assert "**Missing cells:" in document.read_text()
    run, again = (CliRunner().invoke(cli, [*SHORT, "--out", str(out), "--document", str(document)]) for _ in range(2))
    assert (run.exit_code, again.exit_code) == (0, 0), run.output
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert run.stderr.count(", seed") > 0 == again.stderr.count(", seed")
    report = json.loads(again.stdout.splitlines()[-1])
    assert report["missing"] == report["failed"] == []
    assert [each["scheme"] for each in report["rows"]] == [DENSE, f"{DENSE}, tuned", "random-k 1 %, EF"]
    assert {path.name for path in out.glob("*.*")} == {
        "comparison.md",
        "comparison.json",
        "watch-har.png",
        "convex.png",
    }
    assert document.read_text().startswith("# Ours\n")
    assert document.read_text().endswith("the end\n")
    assert (out / "comparison.md").read_text() in document.read_text()
    gaps = {each["scheme"]: each["gaps"]["20"] for each in report["convergence"]}
    assert gaps[DENSE] < gaps["top-k 10 %, EF"] < gaps["top-k 10 %"]


def test_a_folder_without_images_is_one_line(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["--task", "fashion-mnist", "--data", str(tmp_path), "--out", str(tmp_path)])
    assert told.exit_code == 1
    assert told.stderr.startswith("Error: fashion-mnist: no ")
    assert "apt install dataset-fashion-mnist" in told.stderr
