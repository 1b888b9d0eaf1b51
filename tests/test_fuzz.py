"""Hostile input: some hundred mutants of every format, and the extremes by name. The recorded run is `python tests/fuzz.py`."""
import io
import os
import sys
import time

import fuzz
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import dicom, encode, npy, window
from PIL import Image, PngImagePlugin

from lung_unet.scan import ScanError, read_scan
from lung_unet.segmenter import Segmenter
from lung_unet.series import read_series

COUNT = 30 * len(fuzz.SEEDS)
GOOD = encode(window())


def test_every_mutant_is_read_or_refused():
    figures = fuzz.summary(COUNT, seed=2026)
    assert figures["faults"] == [] and figures["mutants"] == COUNT and figures["seeds_read"] == len(fuzz.SEEDS)
    assert figures["read"] > 0.2 * COUNT and figures["refused"] > 0.2 * COUNT
    assert all(counts["scan"] and counts["refused"] for counts in figures["formats"].values())


def test_mutants_are_the_same_every_time():
    assert all(fuzz.mutant(3, n)[1] == fuzz.mutant(3, n)[1] for n in range(50))
    assert len({fuzz.mutant(0, n)[1] for n in range(500)}) > 450


def unless_sound(misbehave):
    "A reader that reads the sound file and misbehaves on every other."
    return lambda data: read_scan(data) if data == GOOD else misbehave(data)

def mutter(data):
    print("mutter", file=sys.stderr)
    return read_scan(GOOD)

def leave(data):
    with open("left behind", "wb") as f: f.write(data)
    return read_scan(GOOD)

def hoard(data):
    np.ones(100 * 2**20, np.uint8)
    return read_scan(GOOD)

def spin(data):
    while True: pass

def refuse(data): raise ScanError("/home/jane/x.png: [Errno 2]")
def trip(data): raise KeyError(1)

EXPECTED = {"crash: exit code 7": lambda data: os._exit(7), "hang": lambda data: time.sleep(60), "hang ": spin, "exception: KeyError: 1": trip,
            "noise on stderr": mutter, "stray file: ['left behind']": leave, "memory: ": hoard, "exception: MemoryError": lambda data: bytearray(9 * 2**30),
            "sentence: /home/jane": refuse, "a bytes came back": lambda data: data, "refused": read_scan}
FAULTY = [fuzz.Seed(name, GOOD, unless_sound(misbehave)) for name, misbehave in EXPECTED.items()]
FAULTY[-1] = fuzz.Seed("refused", b"", read_scan)


def test_the_watch_sees_every_fault():
    "A harness that cannot fail proves nothing: each kind of fault, made on purpose, is seen, and the run goes on."
    answers = list(fuzz.run(len(FAULTY), table="test_fuzz.FAULTY", limit=2, patience=10, memory=50 * 2**20))
    assert [n for n, *_ in answers] == list(range(len(FAULTY)))
    for (_, result, *_), expected in zip(answers, EXPECTED, strict=True):
        assert result.startswith(expected.strip())


def reads_or_refuses(data, **options):
    "Both are right; anything else is not."
    result = fuzz.outcome(lambda d: read_scan(d, **options), data)
    assert result in ("scan", "refused"), result
    return result


NUMBERS = st.floats(width=64) | st.sampled_from([0.0, -1.0, 1e-9, 5e-324, 1e308, 65535.0, -2048.0, 3071.0])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.lists(NUMBERS, min_size=1, max_size=6), kind=st.sampled_from(["<f8", "<f4", "<f2", "<i2", "<u2", "<i8", "<u8", "|u1"]),
       unit=st.sampled_from([None, "HU", "gray"]))
def test_extreme_numbers(values, kind, unit):
    with np.errstate(all="ignore"): a = np.resize(np.array(values).astype(kind), (16, 20))
    reads_or_refuses(npy(a), unit=unit)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(spacing=NUMBERS | st.tuples(NUMBERS, NUMBERS) | st.text(max_size=9) | st.lists(NUMBERS, max_size=4))
def test_extreme_spacings(spacing):
    reads_or_refuses(GOOD, spacing=spacing)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(slope=st.floats() | st.text(max_size=12), intercept=st.floats() | st.text(max_size=12), spacing=st.lists(st.floats() | st.just("x"), max_size=3))
def test_extreme_headers(slope, intercept, spacing):
    "Text as it stands in the file, past all checks of the library that writes it."
    ds = pydicom.dcmread(io.BytesIO(dicom(drop=["RescaleSlope", "RescaleIntercept", "PixelSpacing"])))
    for tag, value in {0x00281052: slope, 0x00281053: intercept, 0x00280030: "\\".join(map(str, spacing))}.items():
        raw = str(value).encode("utf-8", "replace")
        ds[tag] = pydicom.dataelem.RawDataElement(pydicom.tag.BaseTag(tag), "DS", len(raw), raw, 0, False, True)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds)
    reads_or_refuses(stream.getvalue())


@pytest.mark.parametrize("mm", ["0\\0", "-0.7\\-0.7", "0.7\\-0.7", "nan\\nan", "inf\\inf", "1e-9\\1e-9", "900\\900"])
def test_impossible_spacing_in_a_header_is_not_believed(mm):
    ds = pydicom.dcmread(io.BytesIO(dicom()))
    ds[0x00280030] = pydicom.dataelem.RawDataElement(pydicom.tag.BaseTag(0x00280030), "DS", len(mm), mm.encode(), 0, False, True)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds)
    scan = read_scan(stream.getvalue())
    assert scan.spacing is None and any("spacing" in w for w in scan.warnings)


def inflating_png():
    "A PNG whose text, colour profile and animation would unpack to a hundred megabytes each."
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 10**8, zip=True)
    return encode(window(), pnginfo=info, icc_profile=bytes(10**8))


DISGUISED = {"an SVG drawing": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "a web page": b"\xef\xbb\xbf \n<!DOCTYPE html><script>",
             "an XML document": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a '&a;&a;'>]><svg>&a;</svg>", "a ZIP archive": b"PK\3\4" + bytes(99)}


@pytest.mark.parametrize("what", DISGUISED)
@pytest.mark.parametrize("name", ["slice.png", "../../etc/passwd.png", "C:\\Windows\\x.dcm", "CON.png", "a\0b.png"])
def test_disguises_are_named_whatever_they_are_called(what, name):
    with pytest.raises(ScanError, match=what): read_scan(DISGUISED[what], name=name)


def test_what_inflates_beside_the_pixels_is_left_alone():
    assert reads_or_refuses(inflating_png()) in ("scan", "refused")


@pytest.mark.parametrize("name", ["\0.png", "\ud800.png", "x" * 5000, "/dev/zero", "/proc/self/mem", "", ".", "http://127.0.0.1/x.png", "file:///etc/passwd", "~root"])
def test_path_like_names(name):
    with pytest.raises(ScanError) as error: read_scan(name)
    assert str(error.value).endswith(".") and "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load()


@pytest.mark.parametrize(("shape", "spacing"), [((16, 16), None), ((16, 3000), None), ((3000, 16), None), ((16, 16), 0.01), ((100, 100), 7.0), ((17, 999), (0.01, 2.0))])
def test_extreme_shapes_and_scales_are_segmented(shape, spacing, segmenter):
    "What is read is also answered, on its own grid."
    noise = np.random.default_rng(0).integers(-1000, 3000, shape).astype(np.int16)
    seg = segmenter.segment(read_scan(noise, unit="HU", spacing=spacing))
    assert seg.probability.shape == shape and np.isfinite(seg.probability).all() and 0 <= seg.probability.min() <= seg.probability.max() <= 1


@pytest.mark.parametrize("top", [1e-20, 1.0, 1e9, 9e29])
def test_extreme_values_are_segmented(top, segmenter):
    ramp = np.linspace(-top, top, 64 * 64).reshape(64, 64)
    for unit in ("HU", "gray"):
        seg = segmenter.segment(read_scan(ramp, unit=unit))
        assert np.isfinite(seg.probability).all() and Image.fromarray(np.asarray(seg.overlay())).size


def with_slope(slope):
    "A series of which one slice has this slope, as a ZIP archive."
    files = list(fuzz.SLICES)
    ds = pydicom.dcmread(io.BytesIO(files[2]))
    ds[0x00281053] = pydicom.dataelem.RawDataElement(pydicom.tag.BaseTag(0x00281053), "DS", len(slope), slope.encode(), 0, False, True)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds)
    files[2] = stream.getvalue()
    return fuzz._zip(files)


@pytest.mark.parametrize(("data", "said"), [
    (with_slope("1e300 "), "infinite"), (fuzz._mha().replace(b"32 24 6", b"32 24 1e300"), "absurdly many"),
    (npy(fuzz.VOLUME).replace(b"(6, 24, 32), }   ", b"(99999, 99999), }"), "volume is"), (fuzz._zip([b"PK\3\4" + bytes(99)]), "no")])
def test_what_the_recorded_run_found(data, said):
    "Faults of volumes, each kept as it was found."
    with pytest.raises(ScanError, match=said) as error: read_series(data)
    assert len(str(error.value)) < 300
