"""The same answer twice: bit for bit on one machine, within stated tolerances across threads, precisions and engines."""
import json
import subprocess
import sys

import numpy as np
import pytest

from lung_unet.card import read_card
from lung_unet.metrics import dice
from lung_unet.phantom import Tumour, chest
from lung_unet.scan import bundled, read_scan
from lung_unet.segmenter import Segmenter

# The largest difference of a probability, and the least Dice of the masks, against one thread in float32.
TOLERANCE = {"threads": (1e-5, 0.999), "keras": (1e-3, 0.999), "bf16": (0.05, 0.98)}
ANSWER = """
import sys, numpy as np, openvino
threads, precision, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
core = openvino.Core
if threads:   # every core made from here on uses so many
    def limited():
        made = core()
        made.set_property("CPU", {"INFERENCE_NUM_THREADS": threads})
        return made
    openvino.Core = limited
from lung_unet.scan import bundled
from lung_unet.segmenter import Segmenter
seg = Segmenter.load(engine="openvino", precision=precision).segment(bundled("sample.png"))
np.save(out, seg.probability)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    "Probabilities of the sample, each from a process of its own: one thread twice, two threads, and bf16."
    folder, found = tmp_path_factory.mktemp("answers"), {}
    for name, threads, precision in [("one", 1, "f32"), ("one again", 1, "f32"), ("two", 2, "f32"), ("bf16", 1, "bf16")]:
        done = subprocess.run([sys.executable, "-c", ANSWER, str(threads), precision, str(folder / f"{name}.npy")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[name] = np.load(folder / f"{name}.npy")
    return found


def close(a, b, what):
    "Are two answers as close as they are said to be?"
    most, least = TOLERANCE[what]
    threshold = read_card(bundled("segmentation_model_unet_final.keras")).threshold
    return float(np.abs(a - b).max()) <= most and dice(a >= threshold, b >= threshold) >= least


def test_bit_for_bit_in_two_processes(answers):
    assert np.array_equal(answers["one"], answers["one again"]) and answers["one"].max() > 0.5


def test_bit_for_bit_in_one_process():
    "Whatever was segmented in between, and in any order; every file but for its timings."
    segmenter = Segmenter.load(precision="f32")
    scans = [chest(tumours=(Tumour(diameter_mm=d),), seed=d).scan for d in (12, 30)] + [read_scan(bundled("sample.png"))]
    first = [segmenter.segment(scan) for scan in scans]
    second = [segmenter.segment(scan) for scan in scans[::-1]][::-1]
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.probability, b.probability)
        assert {k: v for k, v in a.to_dict().items() if k != "timings_s"} == {k: v for k, v in b.to_dict().items() if k != "timings_s"}
        assert a.overlay().tobytes() == b.overlay().tobytes()


def test_threads_change_next_to_nothing(answers):
    assert close(answers["one"], answers["two"], "threads")


def test_bf16_stays_close(answers):
    assert close(answers["one"], answers["bf16"], "bf16")


def test_keras_and_openvino_agree(answers):
    assert close(answers["one"], Segmenter.load(engine="keras").segment(bundled("sample.png")).probability, "keras")


def test_a_difference_would_be_seen(answers):
    moved = np.roll(answers["one"], 3, 0)
    assert not any(close(answers["one"], moved, what) for what in TOLERANCE)


def test_a_path_bytes_and_an_array_are_one_input():
    segmenter, path = Segmenter.load(), bundled("sample.png")
    by_path, by_bytes = segmenter.segment(path), segmenter.segment(path.read_bytes())
    assert np.array_equal(by_path.probability, by_bytes.probability)
    assert json.dumps(by_path.to_dict()["lesions"]) == json.dumps(by_bytes.to_dict()["lesions"])


AT_ONCE = """
import faulthandler, sys, threading
import numpy as np
from lung_unet.engine import load_engine
engine, together = load_engine(engine="openvino").many, threading.Barrier(4)
def first():
    x = np.zeros((engine.card.multiple,) * 2, np.float32)
    together.wait()
    engine(x)
faulthandler.dump_traceback_later(30, exit=True)   # which needs no lock of Python's
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=first) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("again", range(4))
def test_the_first_pictures_of_a_process_may_come_together(again):
    "OpenVINO's door for arrays has been seen to lock for ever when the first two came at once; it is not so each time, hence several processes."
    assert subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, check=False).returncode == 0
