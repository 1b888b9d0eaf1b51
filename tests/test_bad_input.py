"""Bad input through the real command line: one plain line, the right exit code, no partial files."""
import subprocess
import sys
import threading

import numpy as np
import pytest
from made import chest, dicom, encode, npy, png_bomb, window
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1

from lung_unet.cli import _say, main
from lung_unet.scan import ScanError, hush, read_scan

NOISE = np.random.default_rng(0).integers(0, 255, (200, 200)).astype(np.uint8)
LZW = encode(NOISE, "TIFF", compression="tiff_lzw")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
BAD = {
    "empty.png": b"", "empty.dcm": b"", "text.png": b"my CT", "page.png": b"<!DOCTYPE html>", "drawing.png": b"<svg/>",
    "paper.jpg": b"%PDF-1.7", "archive.dcm": b"PK\3\4", "volume.nii.gz": b"\x1f\x8b\x08", "photo.heic": b"\0\0\0\x24ftypheic",
    "bomb.png": png_bomb(30_000), "large.png": png_bomb(9_000), "tiny.png": encode(NOISE[:12]), "black.png": encode(NOISE * 0),
    "half.png": encode(NOISE)[:9000], "half.jpg": encode(NOISE, "JPEG")[:9000], "half.bmp": encode(NOISE, "BMP")[:9000],
    "half.tif": encode(NOISE, "TIFF")[:9000], "damaged.tif": LZW[:500] + b"\xff" * 99 + LZW[599:],
    "half.npy": npy(chest())[:9000], "half.dcm": dicom()[:9000], "head.dcm": dicom()[:400],
    "mr.dcm": dicom(Modality="MR"), "us.dcm": dicom(Modality="US"), "capture.dcm": dicom(SOPClassUID=SECONDARY_CAPTURE),
    "frames.dcm": dicom(NumberOfFrames=3), "huge.dcm": dicom(Rows=30_000, Columns=30_000),
    "no_pixels.dcm": dicom(drop=["PixelData"]), "lossless_jpeg.dcm": dicom(syntax=JPEGLosslessSV1, PixelData=encapsulate([b"\xff\xd8\xff\xd9"])),
    "jpeg_2000.dcm": dicom(syntax=JPEG2000Lossless, PixelData=encapsulate([b"\xff\x4f\xff\x51"])),
    "nan.npy": npy(np.full((64, 64), np.nan)), "inf.npy": npy(np.full((64, 64), np.inf)), "pickle.npy": npy(np.full((64, 64), {})),
    "complex.npy": npy(np.ones((64, 64), complex)), "bool.npy": npy(NOISE > 9), "text.npy": npy(np.full((64, 64), "x")),
    "volume.npy": npy(np.zeros((9, 64, 64))), "4d.npy": npy(np.zeros((2, 9, 64, 64))), "1d.npy": npy(np.zeros(64)),
    "scalar.npy": npy(np.float64(1)), "none.npy": npy(np.zeros((0, 0))),
    "promise.npy": npy(chest()).replace(b"(128, 160), }    ", b"(99999, 99999), }"),
    "pages.tif": encode(NOISE, "TIFF", save_all=True, append_images=[Image.fromarray(NOISE)])}


@pytest.fixture
def bad_files(tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    for name, data in BAD.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in BAD]


@pytest.mark.parametrize("name", BAD)
def test_one_sentence(name):
    with pytest.raises(ScanError) as error:
        read_scan(BAD[name])
    sentence = str(error.value)
    assert sentence.endswith(".") and "\n" not in sentence and 40 < len(sentence) < 300
    assert not any(secret in sentence for secret in ["Doe", "Jane", "PID4711", "19500101"])


def test_a_line_each_and_nothing_else(bad_files, tmp_path):
    "In a process of its own, so that what C libraries write to stderr would be seen."
    out = tmp_path / "out"
    inputs = [*bad_files, tmp_path / "missing.png", tmp_path / "missing", tmp_path]
    command = [sys.executable, "-c", "import sys; from lung_unet.cli import main; sys.exit(main())", "predict", *inputs, "--out", out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    lines = done.stderr.splitlines()
    assert done.returncode == 2 and done.stdout == "" and not out.exists()
    assert len(lines) == len(inputs) + 1, done.stderr   # the folder says besides what lies deeper in it
    for path in inputs:
        assert sum(line.startswith(f"lung-unet: {path}: ") for line in lines) == (2 if path == tmp_path else 1), path
    assert "Traceback" not in done.stderr and "Doe" not in done.stderr


def test_good_among_bad(bad_files, tmp_path, capsys):
    good = tmp_path / "good.png"
    good.write_bytes(encode(window()))
    out = tmp_path / "out"
    assert main(["predict", *map(str, bad_files[:3]), str(good), str(bad_files[3]), "--out", str(out)]) == 1
    assert sorted(p.name for p in out.iterdir()) == ["good.json", "good_mask.png", "good_overlay.png"]
    assert len(capsys.readouterr().err.splitlines()) == 4


def test_folder_of_bad_files_names_each(bad_files, tmp_path, capsys):
    folder = bad_files[0].parent
    for path in bad_files:
        if path.suffix == ".dcm":
            path.unlink()
    assert main(["predict", str(folder), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert all(f"{name}: " in err for name in BAD if name.endswith((".png", ".jpg", ".npy", ".tif", ".bmp")))


def test_folder_without_scans(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("my CT", encoding="utf-8")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "slice.png").write_bytes(encode(window()))
    assert main(["predict", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "neither pictures nor a CT" in err and not (tmp_path / "out").exists()


def test_series_is_refused_with_a_sentence(tmp_path, capsys):
    for n in range(3):
        (tmp_path / f"{n}").write_bytes(dicom())
    assert main(["predict", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "series" in err


def test_random_damage_is_read_or_refused():
    rng = np.random.default_rng(1)
    formats = ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"]
    seeds = [dicom(), npy(chest()), encode(window(), "TIFF", compression="tiff_lzw"), *(encode(window(), f) for f in formats)]
    outcomes = {"read": 0, "refused": 0}
    for n in range(900):
        data = bytearray(seeds[n % len(seeds)])
        for place in rng.integers(0, min(len(data), 1500), 1 + n % 12):
            data[place] = rng.integers(256)
        if n % 5 == 0:
            del data[rng.integers(len(data)):]
        try:
            scan = read_scan(bytes(data))
        except ScanError:
            outcomes["refused"] += 1
        else:
            assert scan.pixels.dtype == np.float32 and scan.pixels.ndim == 2 and np.isfinite(scan.pixels).all()
            outcomes["read"] += 1
    assert min(outcomes.values()) > 100, outcomes


def test_a_line_is_whole_while_another_thread_reads(capfd):
    "What hushes C libraries closes stderr for a moment, and a sentence waits for it."
    with hush():
        saying = threading.Thread(target=_say, args=("a.png", "cannot be read"))
        saying.start()
        saying.join(0.1)
        assert saying.is_alive()
    saying.join()
    assert capfd.readouterr().err == "lung-unet: a.png: cannot be read\n"
