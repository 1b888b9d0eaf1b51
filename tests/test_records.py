"""The page of promises says what the recorded runs found, and the recorded runs kept the promises."""
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "nbs" / "promises.md").read_text(encoding="utf-8")
RUNS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "docs" / "records").glob("*.json")}


def fast(m):
    "Are the promises of speed kept on a machine, with tiles for matrices (AMX) or without?"
    one, limit, many = (14, 0.35, 10) if "amx" in m["machine"] else (7, 0.7, 6)
    return (min(m["slice"], m["original"]) >= one and m["share_of_limit"] >= limit and min(m["files"], m["ct"]) >= many and m["cold"] >= 4 and m["cold_MB"] <= 300
            and m["redraw_ms"] <= 50 and m["training_to_torch"] >= 0.9 and m["training_to_compute"] >= 0.95)


KEPT = {
    "fuzz": lambda r: r["mutants"] >= 100_000 and not r["faults"] and r["faulty"] == 0 and r["seeds_read"] == r["seeds"] and r["read_percent"] >= 20
    and r["peak_MiB"] <= r["cap_MiB"] and r["longest_s"] <= r["limit_s"] and sum(f["scan"] + f["refused"] for f in r["formats"].values()) == r["mutants"],
    "kill": lambda r: r["kills"] >= 50 and r["half_files"] == 0 and r["largest_difference"] == 0 and r["in_the_middle_of_a_write"] >= 10,
    "load": lambda r: r["right"] == r["valid"] and r["garbage_refused"] == r["garbage"] and r["answers_afterwards"] and r["dropped"] > 0
    and r["processes_after"] <= r["processes_before"] and r["memory_after_MiB"] < 1.2 * r["memory_before_MiB"] + 50,
    "benchmark": lambda r: {"amx" in m["machine"] for m in r} == {True, False} and all(map(fast, r)),
    "screening": lambda r: r["scans"] >= 100 and r["two_workers_against_one"] >= 1.7 and r["growth_MiB_per_100_scans"] < 10,
    "screening_whole": lambda r: r["slices"] >= 300 and r["runs"][0]["wall_s"] >= 1.7 * r["runs"][1]["wall_s"] and r["largest_worker_MiB"] < 2000}


def build():
    "docs/build.py as a module."
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_quotes_the_records():
    assert build().quote_records(PAGE) == PAGE, "run: python docs/build.py records"
    assert len(re.findall("data-record", PAGE)) > 25
    assert build().quote_records('<span data-record="fuzz.mutants">7</span>') != '<span data-record="fuzz.mutants">7</span>'


@pytest.mark.parametrize("run", sorted(RUNS))
def test_the_recorded_run_kept_the_promise(run):
    assert run in KEPT and KEPT[run](RUNS[run]), RUNS[run]


def test_the_tolerances_on_the_page_are_those_tested():
    from test_determinism import TOLERANCE

    said = re.search(r"at most ([\d.]+) between one thread and two, ([\d.]+) between OpenVINO and Keras, and ([\d.]+) .*? Dice of ([\d.]+), ([\d.]+) and ([\d.]+)", PAGE)
    assert [float(n) for n in said.groups()] == [TOLERANCE[k][i] for i in (0, 1) for k in ("threads", "keras", "bf16")]
