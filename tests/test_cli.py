"""The `lung-unet` command: files, names, exit codes, and what it does not import."""
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pydicom
import pytest
from made import dicom, encode, window
from PIL import Image

from lung_unet.cli import keyed_id, main
from lung_unet.phantom import write_pairs
from lung_unet.results import SCHEMA
from lung_unet.scan import bundled, read_scan
from lung_unet.segmenter import Segmenter
from lung_unet.series import write_series

HEAVY = {"tensorflow", "keras", "matplotlib", "jax", "torch", "pandas"}
EXPORT = {"highdicom", "nibabel"}   # imported where they are asked for


def lung_unet(*words):
    return main([str(word) for word in words])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def results(*stems):
    return sorted(f"{stem}{end}" for stem in stems for end in (".json", "_mask.png", "_overlay.png"))


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "slice 1.png"
    path.write_bytes(encode(window()))
    return path


def test_predict_is_light(tmp_path):
    "A process of its own, as from a shell: nothing on stderr, and no learning libraries in memory."
    program = f"""
import sys
from lung_unet.cli import keyed_id, main
from lung_unet.phantom import write_pairs
code = main(["predict", "sample", "--out", {str(tmp_path / "out")!r}])
print("HEAVY", sorted({{name.split(".")[0] for name in sys.modules}} & {HEAVY | EXPORT!r}))
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    assert "not a medical device" in done.stdout and done.stdout.startswith("scan ")
    assert names(tmp_path / "out") == results("sample")


def test_files_of_a_picture(picture, tmp_path):
    out = tmp_path / "a" / "b"
    assert lung_unet("predict", picture, "--out", out) == 0
    assert names(out) == results("slice 1")
    with Image.open(picture) as scan, Image.open(out / "slice 1_mask.png") as mask:
        assert mask.size == scan.size and mask.mode == "L"
        marked = np.asarray(mask)
    assert set(np.unique(marked)) <= {0, 255}
    report = json.loads((out / "slice 1.json").read_text(encoding="utf-8"))
    assert report["schema"] == SCHEMA and report["name"] == "slice 1"
    assert report["marked_pixels"] == (marked > 0).sum()
    assert report["spacing"]["mm"] is None and report["spacing"]["estimated"] is True


def test_files_are_those_of_save(tmp_path):
    sample = bundled("sample.png")
    assert lung_unet("predict", "sample", "--out", tmp_path / "shell") == 0
    Segmenter.load().segment(sample).save(tmp_path / "python")
    shell, python = (json.loads((tmp_path / way / "sample.json").read_text(encoding="utf-8")) for way in ("shell", "python"))
    assert shell | {"timings_s": 0} == python | {"timings_s": 0}
    for name in ("sample_mask.png", "sample_overlay.png"):
        assert (tmp_path / "shell" / name).read_bytes() == (tmp_path / "python" / name).read_bytes()


def test_threshold_and_spacing(tmp_path):
    for name, options in {"low": ("--threshold", "0.05"), "high": ("--threshold", "0.95", "--spacing", "1.3")}.items():
        assert lung_unet("predict", "sample", "--out", tmp_path / name, *options) == 0
    low, high = (json.loads((tmp_path / name / "sample.json").read_text(encoding="utf-8")) for name in ("low", "high"))
    assert (low["threshold"], high["threshold"]) == (0.05, 0.95)
    assert low["spacing"]["mm"] is None and high["spacing"] == {"mm": [1.3, 1.3], "used_mm": [1.3, 1.3], "estimated": False}
    assert all(lesion["unit"] == "px" for lesion in low["lesions"]) and low["lesions"]


def test_dicom_without_a_patient(tmp_path):
    (tmp_path / "IM0001").write_bytes(dicom())
    assert lung_unet("predict", tmp_path / "IM0001", "--out", tmp_path / "out") == 0
    text = (tmp_path / "out" / "IM0001.json").read_text(encoding="utf-8")
    assert json.loads(text)["input"]["unit"] == "HU" and json.loads(text)["spacing"]["mm"] == [2.5, 2.5]
    assert not any(secret in text for secret in ["Doe", "Jane", "PID4711", "19500101"])


def test_folder_is_so_many_inputs(tmp_path):
    folder = tmp_path / "slices"
    (folder / "deeper").mkdir(parents=True)
    for n, name in enumerate(["b.png", "a.jpg", "deeper/c.png"]):
        (folder / name).write_bytes(encode(np.roll(window(), n), "JPEG" if name.endswith("jpg") else "PNG"))
    for _ in range(2):   # the second time the folder holds results, which are no inputs
        assert lung_unet("predict", folder, "--out", folder) == 0
        assert names(folder) == sorted(["a.jpg", "b.png", "deeper", *results("a", "b")])


def test_a_ct_beside_a_picture_is_not_passed_over(tmp_path, capsys):
    "A CT in a folder inside counts, whatever lies beside that folder; what is left out is said, by the id alone where names must not appear."
    study, key = tmp_path / "Doe", tmp_path / "key"
    hu = np.random.default_rng(0).integers(-1000, 100, (8, 64, 64))
    write_series(hu, study / "CT1", np.diag([2.5, 3, 3, 1])[[2, 1, 0, 3]])
    (study / "thumb.png").write_bytes(encode(window()))
    (study / "more").mkdir()
    assert lung_unet("predict", study, "--out", tmp_path / "out", "--csv") == 0
    assert names(tmp_path / "out") == sorted([*results("thumb"), "thumb_lesions.csv", *(f"Doe{end}" for end in (".json", "_lesions.csv", "_mask.nii.gz", "_overlay.png"))])
    assert json.loads((tmp_path / "out" / "Doe.json").read_text(encoding="utf-8"))["input"]["shape"] == [8, 64, 64] and capsys.readouterr().err == ""
    (study / "more" / "key.png").write_bytes(encode(window()))
    assert lung_unet("predict", study, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert said.startswith("lung-unet: ") and "1 pictures or volumes in the folders inside it are left out" in said and said.count("\n") == 1
    assert not list((tmp_path / "out").glob("*.csv"))      # an earlier call's table goes
    assert lung_unet("predict", study, "--out", tmp_path / "ids", "--deidentify", "--key", key) == 0
    said = capsys.readouterr().err
    assert keyed_id(study, key.read_bytes()) in said and "Doe" not in said and len(names(tmp_path / "ids")) == 6


def test_equal_names_get_numbers(tmp_path):
    for n, place in enumerate(["one", "two", "three"]):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x.png").write_bytes(encode(np.roll(window(), n)))
    inputs = [tmp_path / place / "x.png" for place in ("one", "two", "three")]
    for _ in range(2):
        assert lung_unet("predict", *inputs, "--out", tmp_path / "out") == 0
        assert names(tmp_path / "out") == results("x", "x_2", "x_3")
    fingerprints = [json.loads((tmp_path / "out" / f"{name}.json").read_text(encoding="utf-8"))["input"]["sha256"] for name in ("x", "x_2", "x_3")]
    assert fingerprints == [read_scan(path).source["sha256"] for path in inputs]


def test_odd_file_names(tmp_path, capsys):
    odd = ["a\nb.png", "Größe 5%.png", "x\x1b[31m.png", "n" * 240 + ".png", "-v.png", "1.2.840.113.png"]
    for name in odd:
        (tmp_path / name).write_bytes(encode(window()))
    assert lung_unet("predict", tmp_path, "--out", tmp_path / "out") == 0
    said = capsys.readouterr()
    assert len(names(tmp_path / "out")) == 3 * len(odd) and said.err == "" and "\x1b" not in said.out
    assert (tmp_path / "out" / "1.2.840.113.json").exists()


def test_foreign_files_are_left_alone(picture, tmp_path, capsys):
    truth = tmp_path / "slice 1_mask.png"
    truth.write_bytes(encode(window()))
    before = truth.read_bytes()
    assert lung_unet("predict", picture, "--out", tmp_path) == 2
    assert truth.read_bytes() == before and names(tmp_path) == ["slice 1.png", "slice 1_mask.png"]
    assert capsys.readouterr().err.count("\n") == 1


def test_out_is_a_file(picture, capsys):
    assert lung_unet("predict", picture, "--out", picture) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (MemoryError, 2), (OSError(28, "No space left on device"), 2)])
def test_nothing_half_written(picture, tmp_path, capsys, monkeypatch, error, code):
    "Whatever stops the writing, no file and no hidden folder is left behind."
    def broken(*args, **kwargs):
        raise error
    monkeypatch.setattr("lung_unet.results.os.replace", broken)
    out = tmp_path / "out"
    assert lung_unet("predict", picture, "--out", out) == code
    assert names(out) == [] and capsys.readouterr().err.count("\n") == 1


def test_deidentify(tmp_path, capsys):
    "Neither the names of the files nor anything of the study is left; the same file has the same id on every call."
    key = tmp_path / "secret" / "key"
    for n in range(2):
        (tmp_path / f"Doe_Jane_{n}.dcm").write_bytes(dicom(SOPInstanceUID=f"1.2.3.{n}"))
    (tmp_path / "Doe_Jane_2.dcm").write_bytes(b"")
    files, out = [tmp_path / f"Doe_Jane_{n}.dcm" for n in range(4)], tmp_path / "out"   # the third is empty, the fourth missing
    for inputs in (files, files[::-1]):
        assert lung_unet("predict", *inputs, "--out", out, "--deidentify", "--key", key) == 1
        said = "".join(capsys.readouterr())
        ids = [keyed_id(file, key.read_bytes()) for file in files]
        assert names(out) == results(*sorted(ids[:2])) and all(said.count(id) == 1 for id in ids) and "Doe" not in said
    for path in out.iterdir():
        content = path.read_bytes()
        assert not any(secret in content for secret in [b"Doe", b"Jane", b"PID4711", b"19500101", b"1.2.3.", b"1.2\""])
    assert key.stat().st_mode & 0o077 == 0


def test_ids_of_a_file_given_twice_get_numbers(picture, tmp_path, capsys):
    "No two results of a call go to one place, and no two rows have one name."
    out, key = tmp_path / "out", tmp_path / "key"
    assert lung_unet("predict", picture, picture, tmp_path / "none.png", tmp_path / "none.png", picture, "--out", out, "--deidentify", "--key", key) == 1
    said, id = capsys.readouterr(), keyed_id(picture, key.read_bytes())
    assert names(out) == results(id, f"{id}_2", f"{id}_3")
    assert [row.split()[0] for row in said.out.splitlines()[1:4]] == [id, f"{id}_2", f"{id}_3"]
    missing = keyed_id(tmp_path / "none.png", key.read_bytes())
    assert [line.split(": ")[1] for line in said.err.splitlines()] == [missing, f"{missing}_2"]


def slice_with_a_place(**header):
    "A DICOM slice that says where in the patient it lies, as a SEG needs it."
    place = {"StudyInstanceUID": "1.2.4444.1", "SeriesInstanceUID": "1.2.4444.2", "SOPInstanceUID": "1.2.4444.3", "FrameOfReferenceUID": "1.2.4444.4",
             "ImagePositionPatient": [-190, -150, 40], "StudyDate": "20200203", "AccessionNumber": "ACC77"}
    return dicom(**(place | header))


def dicom_of(out, stem):
    "The SEG, and the SR where there is a finding to measure."
    return [f"{stem}_seg.dcm", *[f"{stem}_sr.dcm"] * bool(json.loads((out / f"{stem}.json").read_text(encoding="utf-8"))["lesions"])]


SECRETS = [b"Roebuck", b"Doe^", b"Jane", b"PID4711", b"19500101", b"20200203", b"ACC77", b"1.2.4444"]   # of four letters and more: packed pixels may spell any three


def test_seg_lies_where_the_mask_does(tmp_path):
    (tmp_path / "a.dcm").write_bytes(slice_with_a_place())
    out = tmp_path / "out"
    assert lung_unet("predict", tmp_path / "a.dcm", "--out", out, "--seg", "--threshold", "0.05") == 0
    assert names(out) == sorted([*results("a"), *dicom_of(out, "a")])
    seg, report = pydicom.dcmread(out / "a_seg.dcm"), json.loads((out / "a.json").read_text(encoding="utf-8"))
    assert (seg.Modality, seg.StudyInstanceUID, str(seg.PatientName)) == ("SEG", "1.2.4444.1", "Doe^Jane")
    with Image.open(out / "a_mask.png") as mask:
        marked = np.asarray(mask) > 0
    frames = seg.pixel_array.reshape(-1, *marked.shape)
    assert (frames.any(0) == marked).all() and len(seg.SegmentSequence) >= max(1, len(report["lesions"]))
    assert seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient == [-190, -150, 40]


def test_seg_goes_when_it_is_not_asked_for(tmp_path):
    (tmp_path / "a.dcm").write_bytes(slice_with_a_place())
    for options in (["--seg"], []):
        assert lung_unet("predict", tmp_path / "a.dcm", "--out", tmp_path / "out", *options) == 0
        assert names(tmp_path / "out") == sorted([*results("a"), *(dicom_of(tmp_path / "out", "a") if options else [])])


def test_seg_without_a_patient(tmp_path):
    (tmp_path / "Roebuck.dcm").write_bytes(slice_with_a_place())
    out = tmp_path / "out"
    assert lung_unet("predict", tmp_path / "Roebuck.dcm", "--out", out, "--seg", "--deidentify", "--key", tmp_path / "key") == 0
    id = keyed_id(tmp_path / "Roebuck.dcm", (tmp_path / "key").read_bytes())
    assert names(out) == sorted([*results(id), *dicom_of(out, id)])
    assert not any(secret in path.read_bytes() for path in out.iterdir() for secret in SECRETS)


def test_seg_that_cannot_be(tmp_path, capsys):
    "Of three inputs a picture and a slice without a place have no SEG: they are named, without a word about the patient, and the third is written."
    (tmp_path / "a.dcm").write_bytes(slice_with_a_place())
    (tmp_path / "b.dcm").write_bytes(slice_with_a_place(ImagePositionPatient=None))
    (tmp_path / "c.png").write_bytes(encode(window()))
    assert lung_unet("predict", *(tmp_path / name for name in ("a.dcm", "b.dcm", "c.png")), "--out", tmp_path / "out", "--seg") == 1
    assert names(tmp_path / "out") == sorted([*results("a"), *dicom_of(tmp_path / "out", "a")])
    err = capsys.readouterr().err
    assert err.count("\n") == 2 and "ImagePositionPatient" in err and "did not come from DICOM" in err
    assert not any(secret.decode() in err for secret in SECRETS)


def test_seg_is_light(tmp_path):
    (tmp_path / "a.dcm").write_bytes(slice_with_a_place())
    program = f"""
import sys
from lung_unet.cli import main
code = main(["predict", {str(tmp_path / "a.dcm")!r}, "--seg", "--out", {str(tmp_path / "out")!r}])
print("HEAVY", sorted({{name.split(".")[0] for name in sys.modules}} & {HEAVY!r}))
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "HEAVY []")


def test_a_files_own_spacing_is_believed(tmp_path):
    (tmp_path / "a.dcm").write_bytes(dicom())
    assert lung_unet("predict", tmp_path / "a.dcm", "--out", tmp_path / "out", "--spacing", "0.7") == 0
    report = json.loads((tmp_path / "out" / "a.json").read_text(encoding="utf-8"))
    assert report["spacing"]["mm"] == [2.5, 2.5] and any("was not used" in w for w in report["warnings"])


def test_evaluate_leaves_out_whom_the_model_knows(tmp_path, capsys):
    "Beside a model lies the list of its patients: those of training and validation are not scored; a broken picture is named."
    data = write_pairs(tmp_path / "data", patients=3, slices=1, size=128, spacing=2.8)
    for end in (".keras", ".json", ".xml", ".bin"):
        (tmp_path / f"m{end}").write_bytes(bundled(f"segmentation_model_unet_final{end}").read_bytes())
    (tmp_path / "split.csv").write_text("patient,split\nphantom-000,train\nphantom-001,test\n", encoding="utf-8")
    assert lung_unet("evaluate", data, "--model", tmp_path / "m.keras", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "left out: 1 pairs" in said and names(tmp_path / "out") == ["lesions.csv", "patients.csv", "pictures.csv", "plots.png", "summary.json", "worst.png"]
    patients = (tmp_path / "out" / "patients.csv").read_text(encoding="utf-8")
    assert "phantom-001" in patients and "phantom-002" in patients and "phantom-000" not in patients
    (tmp_path / "split.csv").write_text("patient,split\n" + "".join(f"phantom-00{n},train\n" for n in range(3)), encoding="utf-8")
    assert lung_unet("evaluate", data, "--model", tmp_path / "m.keras", "--out", tmp_path / "none") == 2
    assert "other patients" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_evaluate_knows_the_folder_of_one_patient(tmp_path, capsys):
    "A patient's folder that holds nothing but images and masks: its name is in the list of the model."
    data = write_pairs(tmp_path / "LIDC-IDRI-0003", patients=1, slices=2, size=128, spacing=2.8)
    (data / "index.csv").unlink()
    assert lung_unet("evaluate", data, "--out", tmp_path / "out") == 2
    said = capsys.readouterr()
    assert "left out: 2 pairs" in said.out and "other patients" in said.err and not (tmp_path / "out").exists()
    data = data.rename(tmp_path / "somebody")
    assert lung_unet("evaluate", data, "--out", tmp_path / "out") == 0
    assert "the patients of 2 pairs" in capsys.readouterr().out


def test_evaluate_names_what_it_cannot_use(tmp_path, capsys):
    data = write_pairs(tmp_path / "data", patients=2, slices=1, size=128, spacing=2.8)
    (broken := sorted((data / "images").iterdir())[0]).write_bytes(b"")
    assert lung_unet("evaluate", data, "--out", tmp_path / "out") == 1
    assert f"{broken.name}: unreadable" in capsys.readouterr().err and (tmp_path / "out" / "patients.csv").is_file()


@pytest.mark.parametrize("name", ["patients.csv", "summary.json"])
def test_evaluate_replaces_no_table_but_its_own(name, tmp_path, capsys):
    "Somebody's own table stays; an earlier evaluation is replaced."
    data = write_pairs(tmp_path / "data", patients=2, slices=1, size=128, spacing=2.8)
    for _ in range(2):
        assert lung_unet("evaluate", data, "--out", tmp_path / "out") == 0
    (data / name).write_text('["mine"]', encoding="utf-8")
    assert lung_unet("evaluate", data, "--out", data) == 2
    assert name in capsys.readouterr().err and (data / name).read_text(encoding="utf-8") == '["mine"]'
    assert not (data / "plots.png").exists()


def test_a_folder_of_strangers(tmp_path, capsys):
    "Slices that are each of a series of their own are no CT: each is an input."
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.dcm").parent.mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.dcm").write_bytes(dicom(SeriesInstanceUID=f"1.2.{ord(name)}"))
    assert lung_unet("predict", tmp_path / "in", "--out", tmp_path / "out") == 0
    assert names(tmp_path / "out") == results("a", "b")
    assert lung_unet("predict", tmp_path / "in" / "a.dcm", bundled("sample.png"), "--series", "1.2.98", "--out", tmp_path / "none") == 2
    assert capsys.readouterr().err.count("series that was asked for") == 2 and not (tmp_path / "none").exists()
    assert lung_unet("predict", tmp_path / "in" / "a.dcm", "--series", "1.2.97", "--out", tmp_path / "one") == 0


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        assert lung_unet("app", "--port", busy.getsockname()[1], "--no-browser") == 2
    assert "choose another --host or --port" in capsys.readouterr().err


@pytest.mark.parametrize(("more", "code", "unbuffered"), [([], 0, "1"), (["none.png"], 1, ""), (["--version"], 0, "")])
def test_a_reader_who_has_left_costs_nothing(picture, tmp_path, more, code, unbuffered):
    "As in `lung-unet predict ... | true`: the files are written, nothing is said about it, and the exit code is that of the inputs."
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "lung_unet.cli", "predict", picture, *more, "--out", tmp_path / "out"], stdout=write, stderr=subprocess.PIPE, text=True,
                          timeout=120, check=False, cwd=tmp_path, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    os.close(write)
    assert (done.returncode, done.stderr.count("\n")) == (code, code) and ("none.png" in done.stderr) == bool(code)
    assert "--version" in more or names(tmp_path / "out") == results("slice 1")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_table_that_cannot_be_printed(picture, tmp_path, unbuffered):
    "A full disk under stdout is said in one sentence, which does not deny the files."
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "lung_unet.cli", "predict", picture, "--out", tmp_path / "out"], stdout=full, stderr=subprocess.PIPE, text=True,
                              timeout=120, check=False, env=os.environ | {"PYTHONUNBUFFERED": unbuffered})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "could not be printed (No space left on device)" in done.stderr and "written all the same" in done.stderr
    assert names(tmp_path / "out") == results("slice 1")


def test_debug_shows_where(tmp_path, capsys):
    for words in [("--debug", "predict"), ("predict", "--debug")]:
        assert lung_unet(*words, tmp_path / "none.png", "--out", tmp_path / "out") == 2
        assert "Traceback" in capsys.readouterr().err
    assert lung_unet("predict", tmp_path / "none.png", "--out", tmp_path / "out") == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("words", [
    [], ["paint"], ["predict"], ["predict", "a.png"], ["predict", "--out", "x"], ["predict", "a.png", "--out", "x", "--threshold", "0"],
    ["predict", "a.png", "--out", "x", "--threshold", "nan"], ["predict", "a.png", "--out", "x", "--spacing", "-1"],
    ["predict", "a.png", "--out", "x", "--engine", "steam"], ["predict", "a.png", "--out", "x", "--wrong"],
    ["train", "data"], ["evaluate", "data"], ["convert"]])
def test_wrong_usage_is_one_line(words, capsys):
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("lung-unet") and "--help" in said.err


@pytest.mark.parametrize("command", [[], ["predict"], ["train"], ["evaluate"], ["convert"], ["app"]])
def test_help_and_version(command, capsys):
    assert main([*command, "--help"]) == 0
    assert "usage: lung-unet" in capsys.readouterr().out
    assert main([*command, "--version"]) == 0
    assert capsys.readouterr().out.startswith("lung-unet ")


@pytest.mark.parametrize(("words", "about"), [
    (["predict", "sample", "--model", "none.keras"], "none.keras"), (["evaluate", "none"], "none"), (["train", "none"], "none"),
    (["convert", "none.keras"], "none.keras")])
def test_what_is_missing_is_named(words, about, tmp_path, capsys):
    out = [] if words[0] == "convert" else ["--out", str(tmp_path / "out")]
    assert main(words + out) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and about in err and "unexpected" not in err and not (tmp_path / "out").exists()


def test_one_line_in_spite_of_tensorflow(tmp_path):
    "TensorFlow greets on stderr when it is imported; the user sees the error alone."
    program = "import sys; from lung_unet.cli import main; sys.exit(main(['convert', 'none.keras']))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "none.keras" in done.stderr, done.stderr


@pytest.mark.parametrize("words", [["train", "none", "--out", "x"], ["convert", "none.keras"]])
def test_learning_in_a_plain_install(words, tmp_path):
    "Where Keras is missing, one line says what to install."
    program = f"import sys; sys.modules['keras'] = sys.modules['tensorflow'] = None; from lung_unet.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and names(tmp_path) == []
    assert done.stderr == "lung-unet: This needs keras, which is not installed: pip install 'lung_unet[dev]'.\n"


def test_foreign_recipe(tmp_path, capsys):
    for text in ["{", "[]", '{"speed": 9}']:
        (tmp_path / "recipe.json").write_text(text, encoding="utf-8")
        assert lung_unet("train", tmp_path, "--out", tmp_path / "out", "--recipe", tmp_path / "recipe.json") == 2
        err = capsys.readouterr().err
        assert "recipe.json is not a recipe" in err and err.count("\n") == 1
