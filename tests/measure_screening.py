"""How fast screening is, how much memory it takes and what that costs on this machine: writes docs/records/screening.json.

    python tests/measure_screening.py [--scans 200] [--slices 64] [--size 512] [--price 0.05] [--record FILE]

Phantom CTs in DICOM are screened by one worker of one thread and by two, each into a folder of its own; nothing else should run.
Not part of the tests: with the sizes above it takes as long as the machine needs for twice as many CTs.
"""
import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from lung_unet.engine import load_engine
from lung_unet.phantom import Tumour, chest
from lung_unet.screening import _groups, _sources
from lung_unet.series import write_series

ROOT = Path(__file__).resolve().parent.parent
MAIN = "import sys; from lung_unet.cli import main; sys.exit(main(sys.argv[1:]))"


def write_archive(folder, scans, slices, size):
    "So many CTs of 360 mm across, 2.5 mm a slice: eight drawn slices, repeated in turn, shifted and with new noise, so that drawing takes no hours."
    spacing = 360 / size
    drawn = [chest(size, spacing, (Tumour(diameter_mm=20, place="lung"),) * (n % 2), n, level=0.3 + 0.05 * n).scan.pixels for n in range(8)]
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, ::-1] * (2.5, spacing, spacing)
    for n in range(scans):
        rng = np.random.default_rng(n)
        hu = np.stack([np.roll(drawn[(n + k * 8 // slices) % 8], n % 5, 1) + rng.normal(0, 5, (size, size)) for k in range(slices)])
        write_series(np.clip(hu, -1024, 3000), folder / f"{n:05d}", affine)


def measure(archive, out, workers):
    "Screen once in a process of its own; what was done when, and the memory of its processes every half second."
    command = [sys.executable, "-c", MAIN, "screen", str(archive), "--out", str(out), "--workers", str(workers)]
    start, memory, moments, journal = time.perf_counter(), [], [], out / "journal.jsonl"
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watcher = threading.Thread(target=_watch, args=(run.pid, start, memory))
    watcher.start()
    while run.poll() is None:
        time.sleep(0.05)
        done = journal.read_bytes().count(b'\n{"scan"') if journal.exists() else 0
        moments += [time.perf_counter() - start] * (done - len(moments))
    watcher.join()
    if run.returncode: sys.exit(f"screening ended with {run.returncode}")
    return np.array(moments), np.array(memory), time.perf_counter() - start


def _watch(pid, start, memory):
    "Rows of seconds, MiB of the command itself, MiB of the largest process below it."
    main = psutil.Process(pid)
    while main.is_running() and main.status() != psutil.STATUS_ZOMBIE:
        try:
            below = [p.memory_info().rss for p in main.children(recursive=True)]
            memory.append((time.perf_counter() - start, main.memory_info().rss / 2**20, max(below, default=0) / 2**20))
        except psutil.NoSuchProcess:   # a process ended meanwhile
            pass
        time.sleep(0.5)


def figures(moments, memory, wall, workers):
    "Numbers of one run. The rate leaves the start of the workers out; the growth is that of the largest worker over the second half."
    half = memory[(memory[:, 0] > moments[len(moments) // 2]) & (memory[:, 0] <= moments[-1])]
    done = np.searchsorted(moments, half[:, 0])
    growth = np.polyfit(done, half[:, 2], 1)[0] * 100 if len(np.unique(done)) > 2 else None
    return {"workers": workers, "scans": len(moments), "wall_s": wall, "start_s": moments[0], "scans_per_s": (len(moments) - 1) / (moments[-1] - moments[0]),
            "largest_worker_mib": memory[:, 2].max(), "command_mib": memory[:, 1].max(), "largest_worker_growth_mib_per_100_scans": growth}


def machine():
    "What the figures belong to."
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = {word for line in info.splitlines() if line.startswith("flags") for word in line.split()}
    packages = {name: importlib.metadata.version(name) for name in ("openvino", "dask", "distributed", "numpy", "pydicom")}
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "memory_gib": psutil.virtual_memory().total / 2**30,
            "features": sorted(flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8"}), "system": platform.platform(),
            "python": platform.python_version(), "packages": packages, "load_before": os.getloadavg()[0], "precision": load_engine(threads=1).precision}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, kind, default in [("--scans", int, 200), ("--slices", int, 64), ("--size", int, 512)]: parser.add_argument(name, type=kind, default=default)
    parser.add_argument("--price", type=float, help="of a core for an hour, in whatever money; without it hours are all that is said")
    parser.add_argument("--record", type=Path, default=ROOT / "docs" / "records" / "screening.json")
    args = parser.parse_args()
    record = {"machine": machine(), "archive": {"scans": args.scans, "slices": args.slices, "size": args.size}}
    with TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        write_archive(archive, args.scans, args.slices, args.size)
        start = time.perf_counter()
        for group in _groups(archive, None): _sources(group)
        record["search_scans_per_s"] = args.scans / (time.perf_counter() - start)
        record["runs"] = [figures(*measure(archive, Path(folder) / f"out {n}", n), n) for n in (1, 2)]
    one, two = (run["scans_per_s"] for run in record["runs"])
    record |= {"scans": args.scans, "slices": args.slices, "largest_worker_MiB": max(run["largest_worker_mib"] for run in record["runs"]),
               "growth_MiB_per_100_scans": max(run["largest_worker_growth_mib_per_100_scans"] or 0 for run in record["runs"])}
    record |= {"two_workers_against_one": two / one, "core_hours_per_1000_cts": 1000 / one / 3600}
    if args.price: record |= {"price_of_a_core_hour": args.price, "cost_per_1000_cts": args.price * 1000 / one / 3600}
    args.record.parent.mkdir(parents=True, exist_ok=True)
    record = json.loads(json.dumps(record), parse_float=lambda text: round(float(text), 3))
    args.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
