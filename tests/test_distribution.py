"""Training on JAX: the same run on one device, divided between two, and begun on two and finished on one.

The devices are virtual: two parts of this processor, which share a batch and add up gradients as two graphics cards would.
"""
import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from lung_unet.phantom import write_pairs
from lung_unet.training import read_log

pytestmark = pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed, and nothing else here needs it: pip install jax")

RECIPE = {"width": 2, "depth": 1, "size": 64, "spacing": 3.7, "count": 4, "steps": 8, "warmup": 2, "validate_every": 8, "checkpoint_every": 4,
          "validation_cases": 2, "precision": "float32", "learning_rate": 1e-2}
# The same sums in another order, and eight steps that carry the difference on. AdamW makes a step of nearly the learning
# rate out of the smallest gradient, so weights may differ by more than rounding, and by far less than one step of 1e-2.
LOSS, WEIGHT = 1e-4, 1e-3
CHILD = """
import json, shutil, sys
from lung_unet import training
from lung_unet.conversion import convert
from lung_unet.pairs import find_pairs

data, folder, recipe = json.loads(sys.argv[1])
pairs, found = find_pairs(data), training.keras.distribution.list_devices()
step = training.keras.Model.train_on_batch

def train(name, devices, until=None, **changes):
    "The losses of a run, and on how many devices its weights lay."
    losses, used = [], set()
    def watched(model, x, y):
        losses.append(float(step(model, x, y)))
        used.update(model.trainable_variables[0].value.sharding.device_set)
        return losses[-1]
    training.keras.Model.train_on_batch = watched
    training.keras.distribution.list_devices = lambda: found[:devices]
    training.train(pairs, training.Recipe(**recipe | changes), f"{folder}/{name}", quiet=True, until=until)
    assert training.keras.distribution.distribution() is None   # nothing stays set when the run is over
    return losses, len(used)

said = {"found": len(found), "one": train("one", 1), "two, paused": train("two", 2, until=4)}
shutil.copytree(f"{folder}/two", f"{folder}/moved")
said |= {"two": train("two", 2), "moved": train("moved", 1)}
try: train("uneven", 2, count=3)
except ValueError as e: said["refused"] = str(e)
convert(f"{folder}/two/best.keras")   # refuses a fast form that differs
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "What the child says, and the folder with its runs."
    folder = tmp_path_factory.mktemp("runs")
    data = write_pairs(folder / "data", patients=6, slices=1, size=96, spacing=3.7)
    env = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", CHILD, json.dumps([str(data), str(folder), RECIPE])], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


def difference(a, b):
    "The largest of any weight, averaged weight or state of the optimizer, between two runs that have come to the end."
    with np.load(a / "checkpoint.npz") as x, np.load(b / "checkpoint.npz") as y:
        assert x.files == y.files and x["step"] == y["step"] == RECIPE["steps"]
        return max(float(np.abs(x[name] - y[name]).max()) for name in x.files)


def test_two_devices_learn_as_one_and_go_on_after_a_pause(runs):
    said, folder = runs
    (one, alone), (before, _), (after, both) = said["one"], said["two, paused"], said["two"]
    assert (said["found"], alone, both) == (2, 1, 2)
    assert len(one) == RECIPE["steps"] and np.allclose(before + after, one, rtol=LOSS, atol=0)
    assert difference(folder / "one", folder / "two") < WEIGHT
    assert np.isclose(read_log(folder / "one")[-1]["score"], read_log(folder / "two")[-1]["score"], atol=0.01)


def test_begun_on_two_devices_and_finished_on_one(runs):
    said, folder = runs
    (one, _), (before, first), (after, then) = said["one"], said["two, paused"], said["moved"]
    assert (first, then) == (2, 1) and np.allclose(before + after, one, rtol=LOSS, atol=0)
    assert difference(folder / "one", folder / "moved") < WEIGHT


def test_a_difference_would_be_seen(runs):
    "The steps changed the weights by more than the tolerance, and losses differ from step to step by more than theirs."
    said, folder = runs
    with np.load(folder / "one" / "checkpoint.npz") as z: moved = max(float(np.abs(z[name] - z[name.replace("weights", "ema")]).max()) for name in z.files if name.startswith("weights"))
    assert moved > WEIGHT and np.abs(np.diff(said["one"][0])).min() > LOSS * said["one"][0][0]


def test_a_batch_that_cannot_be_divided_is_refused(runs):
    "Before anything is written, so that the folder is free for the mended recipe."
    said, folder = runs
    assert "3 crops a batch" in said["refused"] and "multiple of 2" in said["refused"] and not (folder / "uneven").exists()


def test_what_jax_trained_has_a_fast_form(runs):
    "`convert` has compared it with Keras on JAX."
    assert {p.suffix for p in (runs[1] / "two").glob("best.*")} == {".keras", ".xml", ".bin", ".json"}
