"""Training that is killed, finds the disk full or the folder read-only. The recorded run is `python tests/kill.py --count 50`."""
import errno
import json
import os
import subprocess

import kill
import numpy as np
import pytest

from lung_unet.cli import main
from lung_unet.phantom import write_pairs

FULL = "No space left on device, so nothing was read or written there: check the path and the disk.\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("data"), patients=8, slices=1, size=96, spacing=3.7)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    return kill.undisturbed(data, tmp_path_factory.mktemp("undisturbed"))


def test_killed_between_two_steps_and_in_a_write_it_goes_on(data, undisturbed, tmp_path):
    "Bit for bit the same weights, on one machine with deterministic arithmetic."
    truth, _ = undisturbed
    ends = [kill.killed_once_there_is(tmp_path / "run" / "checkpoint.npz", data, tmp_path / "run"), kill.finished(kill.start(data, tmp_path / "run", "checkpoint.npz", 2))]
    kill.check_files(tmp_path / "run")
    assert ends == [False, False] and any(p.name == "part-checkpoint.npz" for p in (tmp_path / "run").iterdir())   # it really was in the middle
    assert kill.finished(kill.start(data, tmp_path / "run"))
    assert kill.largest_difference(truth, kill.weights(tmp_path / "run")) == 0
    assert not any("part" in p.name for p in (tmp_path / "run").iterdir())


def test_a_difference_would_be_seen(undisturbed):
    other = {key: a.copy() for key, a in undisturbed[0].items()}
    other["ema_000"].flat[0] += 1e-6
    assert kill.largest_difference(undisturbed[0], other) > 0 and kill.largest_difference(undisturbed[0], {}) == np.inf


class FullDisk:
    "A file on a disk that has room for so many more bytes."
    def __init__(self, file, room): self.file, self.room = file, room
    def __getattr__(self, name): return getattr(self.file, name)
    def __enter__(self): return self
    def __exit__(self, *why): self.file.close()

    def write(self, data):
        self.room -= len(data)
        if self.room < 0: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)


def test_a_full_disk_is_explained_and_costs_nothing(data, tmp_path, capsys, monkeypatch):
    "One sentence; the checkpoint before it stays whole, no half file keeps the disk full, and the same command goes on."
    from lung_unet import training

    (tmp_path / "recipe.json").write_text(json.dumps(kill.RECIPE | {"steps": 12, "validate_every": 6}), encoding="utf-8")
    train = ["train", str(data), "--out", str(tmp_path / "run"), "--recipe", str(tmp_path / "recipe.json")]
    checkpoints, real = [], open

    def nearly_full(path, mode="r", *args, **kwargs):
        file = real(path, mode, *args, **kwargs)
        if str(path).endswith("part-checkpoint.npz"):
            checkpoints.append(path)
            if len(checkpoints) == 3: return FullDisk(file, 40_000)
        return file

    monkeypatch.setattr(training, "open", nearly_full, raising=False)
    assert main(train) == 2
    assert capsys.readouterr().err == "lung-unet: " + FULL
    kill.check_files(tmp_path / "run")
    with np.load(tmp_path / "run" / "checkpoint.npz") as z: assert z["step"] == 6   # the one before
    assert not any("part" in p.name for p in (tmp_path / "run").iterdir())
    assert main(train) == 0
    with np.load(tmp_path / "run" / "checkpoint.npz") as z: assert z["step"] == 12


def test_a_really_full_disk(tmp_path, small_disk, capsys):
    "A file system of its own, too small for what comes."
    assert main(["predict", "sample", "--out", str(small_disk / "out")]) == 2
    assert capsys.readouterr().err.endswith(FULL) and list((small_disk / "out").iterdir()) == []


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("a file system can be mounted by root alone; the full disk above is simulated")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def read_only(tmp_path):
    "A folder into which nothing can be written, not even by root where that can be had."
    folder = tmp_path / "archive"
    folder.mkdir()
    folder.chmod(0o500)
    mounted = os.access(folder, os.W_OK) and not subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True, check=False).returncode
    if not mounted and os.access(folder, os.W_OK): pytest.skip("whoever runs the tests here may write everywhere")
    yield folder
    if mounted: subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.chmod(0o700)


@pytest.mark.parametrize("words", [["train", "DATA"], ["predict", "sample"]])
def test_a_read_only_folder_is_explained(words, data, read_only, capsys):
    words = [str(data) if word == "DATA" else word for word in words]
    for out in (read_only, read_only / "deeper"):
        assert main([*words, "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and said.endswith("so nothing was read or written there: check the path and the disk.\n")
    assert list(read_only.iterdir()) == []
