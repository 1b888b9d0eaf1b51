"""Models are code: nothing of a model that the card does not vouch for is loaded, nor anything that could run."""
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lung_unet.card import Card, ModelError, read_card, sha256, write_card
from lung_unet.cli import main
from lung_unet.engine import load_engine
from lung_unet.phantom import write_pairs
from lung_unet.scan import bundled
from lung_unet.training import Recipe, load_checkpoint

NAME = "segmentation_model_unet_final"
HOSTILE = """
import sys, keras
folder, proof = sys.argv[1:]
def model(layer):
    x = keras.Input((None, None, 1))
    return keras.Model(x, layer(x))
run = keras.layers.Lambda(lambda v: [v, open(proof, "w").close()][0], output_shape=(None, None, 1))
model(run).save(f"{folder}/lambda.keras")
model(run).save(f"{folder}/lambda.h5")
@keras.saving.register_keras_serializable()
class Own(keras.layers.Layer):
    def call(self, x): return [x, open(proof, "w").close()][0]
model(Own()).save(f"{folder}/own.keras")
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    "Models whose layers write a file when they are run, and that file, which must never be there. Made elsewhere, so that this process knows none of their layers."
    folder = tmp_path_factory.mktemp("models")
    done = subprocess.run([sys.executable, "-c", HOSTILE, str(folder), str(folder / "ran")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "ran").unlink()   # building them ran them
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data"), patients=6, slices=1, size=96, spacing=3.7)


def vouched(path):
    "A card that vouches for the file, as somebody would write it who means ill."
    write_card(Card(path.stem, sha256={path.suffix: sha256(path)}), path)


@pytest.mark.parametrize("name", ["lambda.keras", "own.keras", "lambda.h5"])
@pytest.mark.parametrize("command", ["convert", "predict", "train"])
def test_code_in_a_model_is_refused_at_every_door(command, name, hostile, data, tmp_path, capsys):
    path = shutil.copy(hostile / name, tmp_path)
    vouched(tmp_path / name)
    (tmp_path / "recipe.json").write_text(json.dumps({"width": 4, "depth": 2, "size": 64, "steps": 1}), encoding="utf-8")
    words = {"convert": ["convert", path], "predict": ["predict", "sample", "--engine", "keras", "--model", path, "--out", str(tmp_path / "out")],
             "train": ["train", str(data), "--init", path, "--recipe", str(tmp_path / "recipe.json"), "--out", str(tmp_path / "run")]}[command]
    assert main([str(word) for word in words]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("lung-unet: ") and name.split(".")[0] in said and any(reason in said for reason in ("safely", "run code", "is missing"))
    assert not (hostile / "ran").exists()


@pytest.mark.parametrize("end", [".xml", ".bin", ".keras"])
def test_one_changed_byte_and_nothing_is_loaded(end, tmp_path):
    for e in (".keras", ".json", ".xml", ".bin"): shutil.copy(bundled(NAME + e), tmp_path)
    path = tmp_path / (NAME + end)
    engine = "keras" if end == ".keras" else "openvino"
    load_engine(tmp_path / f"{NAME}.keras", engine)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="SHA-256 differs"): load_engine(tmp_path / f"{NAME}.keras", engine)


def test_the_bundled_files_are_those_of_their_card():
    card = read_card(bundled(f"{NAME}.keras"))
    assert {end: sha256(bundled(NAME + end)) for end in (".keras", ".xml", ".bin")} == card.sha256


def test_a_checkpoint_with_objects_is_not_opened(tmp_path):
    "Pickles can run code; a run folder may come from anywhere."
    class Run:
        def __reduce__(self): return open, (str(tmp_path / "ran"), "w")

    np.savez(tmp_path / "checkpoint.npz", weights_000=np.array([Run()], object), step=1)
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="allow_pickle"): load_checkpoint(tmp_path / "checkpoint.npz", Recipe(width=4, depth=2))
    assert not (tmp_path / "ran").exists()
