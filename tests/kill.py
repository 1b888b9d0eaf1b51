"""Training that is killed, with SIGKILL, again and again: it goes on, and its weights are those of a run that nobody disturbed.

    python tests/kill.py --count 50 --seed 0 --out docs/records/kill.json

Half of the kills come at a random moment of the run, the others in the middle of a write: half of the bytes are in the file.
"""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

RECIPE = {"width": 4, "depth": 2, "max_width": 16, "size": 64, "count": 2, "steps": 60, "warmup": 2, "validate_every": 20, "checkpoint_every": 3,
          "validation_cases": 4, "precision": "float32"}
WRITES = {"checkpoint.npz": 6, "log.csv": 2, "best.keras": 1}   # in whose middle it is killed: file -> at most which write of a call


# --- the child: one call of `train`

def child(data, out, place, nth):
    "Train, with deterministic arithmetic; die in the middle of the nth write of `place`, if any."
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    from lung_unet import training
    from lung_unet.pairs import find_pairs
    tf.config.experimental.enable_op_determinism()
    if place: die_in(place, nth)
    pairs = find_pairs(data)
    print("ready", flush=True)
    training.train(pairs, training.Recipe(**RECIPE), out, quiet=True)
    print("complete", flush=True)

def die_in(place, nth):
    "Let the process kill itself when half of a file is written."
    replace, count = os.replace, [0]

    def half(part, path):
        count[0] += Path(path).name == place
        if count[0] == nth:
            os.truncate(part, os.stat(part).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(part, path)

    os.replace = half


# --- the parent

def start(data, out, place="", nth=1):
    "A child that has just begun to train."
    process = subprocess.Popen([sys.executable, __file__, "--child", str(data), str(out), place, str(nth)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process

def finished(process):
    "Wait for the end: True where the run is complete, False where it was killed; anything else is a fault."
    said, complaint = process.communicate()
    if process.returncode == -signal.SIGKILL: return False
    assert process.returncode == 0 and said == "complete\n", complaint
    return True

def killed_at(data, out, seconds):
    "Kill it after so many seconds of training; was it complete before?"
    process = start(data, out)
    try: process.wait(seconds)
    except subprocess.TimeoutExpired: process.kill()
    return finished(process)

def killed_once_there_is(path, data, out):
    "Kill it as soon as it has written this file; was it complete before?"
    process = start(data, out)
    while not Path(path).exists() and process.poll() is None: time.sleep(0.005)
    process.kill()
    return finished(process)

def check_files(out):
    "Every file under its own name is whole."
    for path in Path(out).iterdir():
        if path.name == "checkpoint.npz":
            with np.load(path, allow_pickle=False) as z: assert all(np.isfinite(z[key]).all() for key in z.files)
        elif path.name == "best.keras":
            with zipfile.ZipFile(path) as z: assert z.testzip() is None
        elif path.name == "recipe.json": assert json.loads(path.read_text(encoding="utf-8"))["steps"] > 0
        elif path.name == "log.csv": assert all(line.count(",") >= 3 for line in path.read_text(encoding="utf-8").splitlines())

def weights(out):
    "Everything in the last checkpoint but the time it took, and the kept weights."
    import h5py
    arrays = {}
    with np.load(Path(out) / "checkpoint.npz", allow_pickle=False) as z: arrays |= {key: z[key] for key in z.files if key != "seconds"}
    with zipfile.ZipFile(Path(out) / "best.keras") as z, z.open("model.weights.h5") as f, h5py.File(f) as h:
        h.visititems(lambda name, item: arrays.update({f"best/{name}": item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays

def largest_difference(a, b):
    "Over all arrays of two runs; infinite where they do not hold the same arrays."
    if a.keys() != b.keys(): return float("inf")
    return max(float(np.abs(a[k].astype(np.float64) - b[k]).max(initial=0)) for k in a)

def trial(data, out, duration, rng, left):
    "One run, killed at most `left` times and then left to end: kills, and those of them in the middle of a write."
    kills = in_writes = 0
    while True:
        place = rng.choice(["", "", "", *WRITES])
        if kills == left: complete = finished(start(data, out))
        elif place: complete = finished(start(data, out, place, rng.randint(1, WRITES[place])))
        else: complete = killed_at(data, out, rng.uniform(0, duration))
        check_files(out)
        if complete: return kills, in_writes
        kills, in_writes = kills + 1, in_writes + bool(place)

def undisturbed(data, out):
    "The weights of a run that nobody disturbs, and how long it trained, in seconds."
    process = start(data, out)
    began = time.perf_counter()
    assert finished(process)
    return weights(out), time.perf_counter() - began

def campaign(folder, count, seed, tell=print):
    "Run after run until so many kills have been survived."
    from lung_unet.phantom import write_pairs
    data, rng = write_pairs(folder / "data", patients=8, slices=1, size=96, spacing=3.7), random.Random(seed)
    truth, duration = undisturbed(data, folder / "undisturbed")
    runs, kills, in_writes, worst = 0, 0, 0, 0.0
    while kills < count:
        out = folder / f"run_{runs}"
        k, w = trial(data, out, 0.7 * duration, rng, min(5, count - kills))
        runs, kills, in_writes, worst = runs + 1, kills + k, in_writes + w, max(worst, largest_difference(truth, weights(out)))
        left = sorted(p.name for p in out.iterdir() if "part" in p.name or p.suffix == ".new")
        assert left == [], left
        tell(f"run {runs}: {kills} kills, {in_writes} of them in the middle of a write, largest difference {worst}")
    return {"kills": kills, "in_the_middle_of_a_write": in_writes, "runs": runs, "half_files": 0, "largest_difference": worst, "steps": RECIPE["steps"], "seed": seed}

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child: return child(Path(args.child[0]), Path(args.child[1]), args.child[2], int(args.child[3]))
    with tempfile.TemporaryDirectory() as folder: figures = campaign(Path(folder), args.count, args.seed)
    text = json.dumps(figures, indent=1) + "\n"
    if args.out: args.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
