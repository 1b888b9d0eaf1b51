"What a notebook cannot show of screening: killed processes, dying workers, the command itself."
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from made import dicom, encode, window

from lung_unet.cli import main
from lung_unet.screening import DEATHS, Item, Journal, Summary, _result, cluster, feed, screen, write_tables

MAIN = "import sys; from lung_unet.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def archive(tmp_path):
    "Five pictures in as many folders, and one that is none."
    for n in range(5):
        (tmp_path / "archive" / f"Doe {n}").mkdir(parents=True)
        (tmp_path / "archive" / f"Doe {n}" / "shot.png").write_bytes(encode(np.roll(window(), n)))
    (tmp_path / "archive" / "b.png").write_bytes(b"no picture")
    return tmp_path / "archive"


def done(out):
    "The names in the journal, one for each line; none before there is one."
    path = out / "journal.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")] if path.exists() else []
    return [line["scan"]["name"] for line in lines if "scan" in line]


def test_killed_and_gone_on_with(archive, tmp_path):
    "SIGKILL leaves no process behind and loses nothing; the same command does what is left, and a third time does nothing."
    out = tmp_path / "out"
    command = [sys.executable, "-c", MAIN, "screen", str(archive), "--out", str(out), "--workers", "1", "--deidentify", "--key", str(tmp_path / "key")]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while len(done(out)) < 2 and run.poll() is None:
        time.sleep(0.01)
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert family and not psutil.wait_procs(family, timeout=60)[1]
    before = done(out)
    assert 2 <= len(before) < 6
    files = {path: path.stat().st_mtime_ns for name in before for path in (out / "scans").rglob(f"{name}*")}
    end = subprocess.run(command, capture_output=True, text=True, check=False)
    assert end.returncode == 1 and end.stdout.startswith(f"6 scans, {6 - len(before)} of them by this call, 1 that could not be read")
    assert re.fullmatch(r"lung-unet: Dashboard: http://127\.0\.0\.1:\d+/status\n", end.stderr), end.stderr
    assert "Doe" not in end.stdout.replace(str(out), "")   # the failure was named before the kill
    assert sorted(done(out)) == sorted(set(done(out))) and len(done(out)) == 6
    assert all(path.stat().st_mtime_ns == then for path, then in files.items())
    rows = pq.read_table(out / "scans.parquet").to_pylist()
    assert sorted(row["name"] for row in rows) == sorted(done(out)) and sum(bool(row["reason"]) for row in rows) == 1
    assert screen(archive, out, workers=1, processes=False, key=(tmp_path / "key").read_bytes()) == Summary(6, 1, 0, 0)


def test_a_worker_that_dies_takes_one_scan_with_it(tmp_path):
    "The scan is given up after so many workers and tried again by the next run; the others are done."
    def task(item):
        if item.name == "bad": os._exit(1)
        return item.name

    items = [Item(name, name, None, "state") for name in ("a", "b", "bad", "c", "d")]
    with cluster(workers=1) as client:
        assert not any(client.run(lambda dask_worker: "profile" in dask_worker.periodic_callbacks).values())   # it grows for days
        records = {item.name: _result(item, future, False) for item, future in feed(client, items, task)}
    bad = records.pop("bad")
    assert records == {name: name for name in "abcd"}
    assert f"{DEATHS} workers died" in bad["scan"]["reason"]
    with Journal(tmp_path / "journal.jsonl", {}) as journal:
        journal.add(bad)
        assert not journal.is_done("bad", "state")
        write_tables(journal, tmp_path)
    assert "workers died" in (tmp_path / "worklist.html").read_text(encoding="utf-8")


def test_a_full_disk_is_not_the_scans_fault(archive, tmp_path, monkeypatch):
    "It stops the run, and the scans are still to be done."
    def full(*args, **kwargs): raise OSError(28, "No space left on device")
    with monkeypatch.context() as broken:
        broken.setattr("lung_unet.results.os.replace", full)
        with pytest.raises(OSError, match="No space"): screen(archive, tmp_path / "out", workers=1, processes=False)
    assert not [name for name in done(tmp_path / "out") if not name.startswith("b_")]


def test_joins_a_cluster(tmp_path):
    "Given the address of a scheduler, its workers do the work."
    from distributed import LocalCluster
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "slice.dcm").write_bytes(dicom())
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None, silence_logs=50) as others:
        assert main(["screen", str(tmp_path / "a"), "--out", str(tmp_path / "out"), "--scheduler", others.scheduler_address]) == 0
    assert len(done(tmp_path / "out")) == 1


def test_nothing_to_screen(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.png").touch()
    for folder, words in (("a", "No scan was found"), ("b", "")):
        assert main(["screen", str(tmp_path / folder), "--out", str(tmp_path / f"out {folder}"), "--workers", "1"]) == 2
        assert words in capsys.readouterr().err


def test_without_dask(tmp_path):
    "A plain install says what is missing."
    program = f"import sys; sys.modules['distributed'] = None; sys.argv[1:] = ['screen', {str(tmp_path)!r}, '--out', {str(tmp_path / 'out')!r}]; {MAIN}"
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert end.returncode == 2 and end.stderr == "lung-unet: Screening needs distributed, which is not installed: pip install 'lung_unet[screen]'.\n"
    assert not (tmp_path / "out").exists()
