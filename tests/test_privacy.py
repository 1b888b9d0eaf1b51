"""Who the patient is: planted in every DICOM element that takes text, found nowhere in what comes out."""
import base64
import gzip
import io
import json
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from made import dicom, encode, window
from PIL import Image, PngImagePlugin
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from lung_unet.cli import keyed_id, main, read_key
from lung_unet.results import Segmentation
from lung_unet.scan import ScanError, read_scan
from lung_unet.segmenter import Segmenter
from lung_unet.series import read_series
from lung_unet.widget import Session

TEXT = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
NEEDED = {"Modality", "PhotometricInterpretation"}   # without a code that stands there by right, the slice is refused: tried one by one below
ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(rb"SECRET[0-9A-F]{8}", re.IGNORECASE)


def mark(tag):
    "The identifier planted in an element: it tells where it came from."
    return f"SECRET{int(tag):08X}"

def plant(ds, tag, vr):
    "Put it there as raw bytes, past the checks of the library that writes it."
    value = mark(tag).encode()
    ds[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)

def planted(keep=(), **header):
    "A CT slice with an identifier in every text element of the standard but those to keep, in private ones, in sequences and in binary ones."
    ds = pydicom.dcmread(io.BytesIO(dicom(**header)))
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        group = tag >> 16
        if vr in TEXT and 0x0004 < group < 0x7FE0 and keyword not in {*NEEDED, "SOPClassUID", "NumberOfFrames", *keep}: plant(ds, tag, vr)
    for group in (0x0009, 0x0029, 0x0043):
        plant(ds, group << 16 | 0x0010, "LO")
        for n, vr in enumerate(["LO", "PN", "UN", "OB", "UT"]): plant(ds, group << 16 | 0x1001 + n, vr)
    item = Dataset()
    for keyword in ("PatientName", "PatientID", "OperatorsName", "TextValue", "CodeMeaning"): plant(item, pydicom.datadict.tag_for_keyword(keyword), "LO")
    for keyword in ("ReferencedImageSequence", "RequestAttributesSequence", "OriginalAttributesSequence", "OtherPatientIDsSequence"):
        inner = Dataset()
        inner.update(item)
        inner.ContentSequence = Sequence([item])
        setattr(ds, keyword, Sequence([inner, item]))
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(stream, ds)
    preamble = b"SECRET00000000".ljust(128)
    return preamble + stream.getvalue()[128:]


@pytest.fixture(scope="module")
def slice_():
    return planted()


def leaks(*texts):
    "The identifiers found in these, compressed parts of PNG and ZIP files and pictures in messages included."
    found = set()
    for data in (text.encode() if isinstance(text, str) else text for text in texts):
        found |= set(MARK.findall(data))
        found |= leaks(*map(base64.b64decode, re.findall(rb"data:image/png;base64,([\w+/=]+)", data)))
        if data.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive: found |= leaks(*archive.namelist(), *map(archive.read, archive.namelist()))
        if data.startswith(b"\x89PNG"):
            with Image.open(io.BytesIO(data)) as im: found |= leaks(repr(im.info), repr(im.text), repr(dict(im.getexif())))
    return found


def test_the_search_finds_what_is_there(slice_):
    assert len(leaks(slice_)) > 2500
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "SECRET00000001" * 9, zip=True)
    hidden = encode(window(), pnginfo=info)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive: archive.writestr("a.json", "SECRET00000002" * 9)
    shown = json.dumps({"thumbnail": "data:image/png;base64," + base64.b64encode(hidden).decode()})
    assert not MARK.search(hidden) and leaks(hidden) == leaks(shown) == {b"SECRET00000001"} and leaks(stream.getvalue()) == {b"SECRET00000002"}


def test_command_line(slice_, tmp_path):
    "Logs, files and errors of a process of its own, with --debug as well."
    (tmp_path / "a.dcm").write_bytes(slice_)
    (tmp_path / "cut.dcm").write_bytes(slice_[:60_000])
    program = "import sys; from lung_unet.cli import main; sys.exit(main(sys.argv[1:]))"
    for more in (["--debug"], ["--spacing", "0.7", "--deidentify", "--key", str(tmp_path / "key")]):
        out = tmp_path / f"out{len(more)}"
        command = [sys.executable, "-c", program, "predict", str(tmp_path / "a.dcm"), str(tmp_path / "cut.dcm"), "--out", str(out), *more]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False)
        files = list(out.iterdir())
        assert done.returncode == 1 and len(files) == 3, done.stderr
        assert leaks(done.stdout, done.stderr, *(path.read_bytes() for path in files), *(path.name for path in files)) == set()


GEOMETRY = "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SliceThickness"


def test_a_series(tmp_path, capsys):
    "A folder of slices: mask, overlay, JSON, SEG, SR and what is said; a slice that is cut short is refused without a name."
    folder = tmp_path / "study"
    folder.mkdir()
    ids = {"StudyInstanceUID": "1.2.77.1", "FrameOfReferenceUID": "1.2.77.2"}
    for k in range(4): (folder / str(k)).write_bytes(planted(GEOMETRY, SOPInstanceUID=f"1.2.77.3.{k}", ImagePositionPatient=[0, 0, 5 * k], **ids))
    out = tmp_path / "out"
    assert main(["predict", str(folder), "--out", str(out), "--seg", "--deidentify", "--key", str(tmp_path / "key")]) == 0
    scan = read_series(folder)
    probability = np.zeros(scan.pixels.shape, np.float32)
    probability[1:3, 40:60, 40:60] = 1   # a finding, so that there is something to report
    Segmentation(scan, probability, 0.5).save(out, name="drawn", deidentify=True, seg=True)
    (folder / "3").write_bytes((folder / "3").read_bytes()[:-9000])
    assert main(["predict", str(folder), "--out", str(tmp_path / "none"), "--debug"]) == 2
    said, files = capsys.readouterr(), list(out.iterdir())
    assert {"drawn_mask.nii.gz", "drawn_seg.dcm", "drawn_sr.dcm"} <= {path.name for path in files}
    assert not any(b"1.2.77" in path.read_bytes() for path in files)
    assert leaks(said.out, said.err, *(p.name for p in files), *(gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes() for p in files)) == set()


def test_in_memory(slice_):
    seg = Segmenter.load().segment(read_scan(slice_))
    assert seg.scan.unit == "HU" and leaks(repr(seg), repr(seg.scan), repr(seg.scan.source), json.dumps(seg.to_dict()), *seg.warnings) == set()


def test_the_page(slice_):
    "Everything that is sent to the browser, all downloads included."
    sent = []
    session = Session(Segmenter.load(), lambda message, buffers: sent.extend([json.dumps(message), *buffers]))
    for name, data in {"a.dcm": slice_, "cut.dcm": slice_[:60_000]}.items():
        session.handle({"kind": "piece", "name": name, "part": 0, "parts": 1}, [data])
    for what in ("overlay", "mask", "json", "zip"): session.handle({"kind": "save", "picture": 1, "what": what}, [])
    assert len(sent) > 12 and leaks(*map(bytes, (s.encode() if isinstance(s, str) else s for s in sent))) == set()


def test_a_study_of_two_series_on_the_page():
    "Also what the list of series says of each."
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for series, count in (("1.2.1", 4), ("1.2.2", 3)):
            for k in range(count): archive.writestr(f"{series}/{k}", planted(GEOMETRY, SeriesInstanceUID=series, SOPInstanceUID=f"{series}.{k}", ImagePositionPatient=[0, 0, 5 * k]))
    sent = []
    session = Session(Segmenter.load(), lambda message, buffers: sent.append((message, [json.dumps(message), *map(bytes, buffers)])))
    session.handle({"kind": "piece", "name": "a.zip", "part": 0, "parts": 1}, [stream.getvalue()])
    session.wait()
    session.handle({"kind": "series", "picture": 1, "series": 1}, [])
    session.wait()
    for what in ("overlay", "mask", "json"): session.handle({"kind": "save", "picture": 2, "what": what}, [])
    session.wait()
    assert [m["series"] for m, _ in sent if m["kind"] == "picture"] == [["axial, 4 slices", "axial, 3 slices"]] * 2 and len(leaks(stream.getvalue())) > 2000
    assert "error" not in [m["kind"] for m, _ in sent] and leaks(*(part for _, parts in sent for part in parts)) == set()


def refusal(data):
    "What is said about a file that is refused; empty where it is read."
    try: return " ".join(read_scan(data).warnings)
    except ScanError as e: return str(e)


@pytest.mark.parametrize("keyword", ["Modality", "PhotometricInterpretation", "SOPClassUID", "NumberOfFrames", "Rows", "SamplesPerPixel", "BitsStored", "TransferSyntaxUID",
                                     "RescaleSlope", "RescaleIntercept", "PixelSpacing", "SOPInstanceUID", "SeriesInstanceUID", "ImageType", "WindowCenter"])
def test_an_identifier_where_a_code_should_stand(keyword):
    "Also what leads to a refusal is not repeated in it."
    ds = pydicom.dcmread(io.BytesIO(dicom()))
    tag = pydicom.datadict.tag_for_keyword(keyword)
    plant(ds.file_meta if keyword == "TransferSyntaxUID" else ds, tag, "LO" if keyword != "TransferSyntaxUID" else "UI")
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(stream, ds, little_endian=True, implicit_vr=False, enforce_file_format=False)
    data = stream.getvalue()
    assert MARK.search(data)
    try: source = repr(read_scan(data).source)
    except ScanError: source = ""
    assert leaks(refusal(data), source) == set()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_notes_in_a_picture_stay_there(format, tmp_path):
    "EXIF, XMP, comments: nothing of it comes out."
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x9286): exif[tag] = "SECRET0000000E"
    options = {"PNG": {"pnginfo": PngImagePlugin.PngInfo(), "exif": exif}, "JPEG": {"comment": b"SECRET0000000C", "exif": exif},
               "TIFF": {"description": "SECRET0000000D", "software": "SECRET00000005"}, "WEBP": {"exif": exif, "xmp": b"SECRET0000000A"}}[format]
    if format == "PNG": options["pnginfo"].add_text("Author", "SECRET0000000F")
    data = encode(window(), format, **options)
    assert leaks(data)
    seg = Segmenter.load().segment(read_scan(data))
    files = seg.save(tmp_path, name="x")
    assert leaks(*(path.read_bytes() for path in files), repr(seg.scan.source)) == set()


def test_a_name_appears_as_name_alone(tmp_path, capsys):
    "The folders above a file are nobody's business; under --deidentify its name is not either."
    folder = tmp_path / "SECRET000000AA"
    folder.mkdir()
    (folder / "SECRET000000BB.dcm").write_bytes(dicom())
    assert main(["predict", str(folder / "SECRET000000BB.dcm"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert leaks(said.out, said.err, *(p.read_bytes() for p in (tmp_path / "out").iterdir())) == {b"SECRET000000BB"}
    key = tmp_path / "key"
    assert main(["predict", str(folder / "SECRET000000BB.dcm"), "--out", str(tmp_path / "safe"), "--deidentify", "--key", str(key)]) == 0
    said, files = capsys.readouterr(), list((tmp_path / "safe").iterdir())
    assert leaks(said.out, said.err, *(p.name for p in files), *(p.read_bytes() for p in files)) == set()
    assert {p.name.split("_mask")[0].split("_overlay")[0].split(".")[0] for p in files} == {keyed_id(folder / "SECRET000000BB.dcm", read_key(key))}


def test_many_at_once(slice_, tmp_path):
    "Several threads read, and each has warnings of its libraries to swallow: none of them gets out."
    (tmp_path / "in").mkdir()
    for k in range(6): (tmp_path / "in" / f"{k}.zip").write_bytes(slice_)   # six inputs by name, not a series
    program = "import sys; from lung_unet.cli import main; sys.exit(main(sys.argv[1:]))"
    files = sorted(map(str, (tmp_path / "in").iterdir()))
    done = subprocess.run([sys.executable, "-c", program, "predict", *files, "--out", str(tmp_path / "out")], capture_output=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stderr == b"" and leaks(done.stdout) == set()


@pytest.mark.parametrize("path", sorted((ROOT / "nbs").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_notebooks_tell_nothing_of_the_computer_that_ran_them(path):
    outputs = [out for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] for out in cell.get("outputs", [])]
    assert not any(out.get("name") == "stderr" or out["output_type"] == "error" for out in outputs)
    said = json.dumps([out.get("text") or out.get("data", {}).get("text/plain") for out in outputs])
    assert not re.search(r"/(home|root|Users|work)/|site-packages", said)
