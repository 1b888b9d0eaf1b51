"""Damaged files for every reader: each must end in a Scan with honest units, or in a ScanError with one plain sentence.

    python tests/fuzz.py --count 100000 --seed 0 --out docs/records/fuzz.json

Mutant number n is the same on every run with the same seed: `mutant(0, 4711)` makes it again. Readers run in a process of
their own, whose end, silence, memory, stderr and files are watched.
"""
import argparse
import gzip
import importlib
import json
import multiprocessing
import os
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from imagecodecs import jpeg8_encode
from made import chest, dicom, encode, npy, window
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from lung_unet.scan import MAX_PIXELS, MIN_SIDE, SPACING_RANGE, Scan, ScanError, read_scan
from lung_unet.series import read_series

SECONDS = 10          # of processor time; longer is a hang
PATIENCE = 60         # by the clock, for what sleeps instead
MEMORY = 2 * 2**30    # bytes that a reader may add to the process, whatever comes in
SECRETS = "Doe", "Jane", "PID4711", "19500101"   # in every DICOM seed


@dataclass(frozen=True)
class Seed:
    "A sound file, the reader it is for, and how its parts are changed in ways that random bytes never find."
    name: str
    data: bytes
    read: object              # bytes -> Scan
    parts: object = None      # (bytes, rng) -> bytes, or None


# --- changes that need to know nothing of the format

NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]

def flip_late(data, rng):
    "A few bytes in the second half, where the pixels are."
    return _put(data, rng.integers(len(data) // 2, len(data), rng.integers(1, 4)), rng)

def flip_early(data, rng):
    "Some bytes in the first 1500, where the headers are."
    return _put(data, rng.integers(0, min(len(data), 1500), rng.integers(1, 13)), rng)

def _put(data, places, rng):
    data = bytearray(data)
    for place in places: data[place] = rng.integers(256)
    return bytes(data)

def number(data, rng):
    "A telling number of one, two or four bytes somewhere in the headers."
    width, place = int(rng.choice([1, 2, 4])), int(rng.integers(0, min(len(data), 1500)))
    value = (NUMBERS[rng.integers(len(NUMBERS))] & (256**width - 1)).to_bytes(width, "little" if rng.random() < 0.5 else "big")
    return data[:place] + value + data[place + width:]

def block(data, rng):
    "A stretch left out, doubled, or moved elsewhere."
    a, b = sorted(rng.integers(0, len(data), 2))
    b = min(b, a + 2000)
    to = int(rng.integers(0, len(data)))
    return [data[:a] + data[b:], data[:b] + data[a:], data[:to] + data[a:b] + data[to:]][rng.integers(3)]

def cut(data, rng):
    "The end is missing, or something follows it."
    if rng.random() < 0.7: return data[:rng.integers(len(data))]
    return data + rng.bytes(int(rng.integers(1, 3000)))

PLAIN = [flip_late, flip_late, flip_early, number, block, cut]   # late flips twice: many of them must still be read


# --- changes to the parts of a format, with its lengths and checksums put right again

def in_chunks(split, join, squeezed=()):
    "Chunks left out, doubled, exchanged, or with bytes changed inside; those named in `squeezed` are unpacked for that."
    def change(data, rng):
        chunks = split(data)
        i, j = rng.integers(len(chunks), size=2)
        way = rng.integers(8)
        if way == 0: del chunks[i]
        elif way == 1: chunks.insert(j, chunks[i])
        elif way == 2: chunks[i], chunks[j] = chunks[j], chunks[i]
        else: chunks[i] = chunks[i][0], _inside(*chunks[i], rng, squeezed)
        return join(chunks)
    return change

def _inside(kind, payload, rng, squeezed):
    if not payload: return rng.bytes(int(rng.integers(40)))
    if kind not in squeezed: return _put(payload, rng.integers(0, len(payload), rng.integers(1, 4)), rng)
    raw = zlib.decompress(payload)
    return zlib.compress(_put(raw, rng.integers(0, len(raw), rng.integers(1, 4)), rng), 1)

def _png_chunks(data):
    chunks, at = [], 8
    while at < len(data):
        n, kind = struct.unpack_from(">I4s", data, at)
        chunks.append((kind, data[at + 8:at + 8 + n]))
        at += 12 + n
    return chunks

def _png(chunks):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)

def _riff_chunks(data):
    chunks, at = [], 12
    while at + 8 <= len(data):
        kind, n = struct.unpack_from("<4sI", data, at)
        chunks.append((kind, data[at + 8:at + 8 + n]))
        at += 8 + n + n % 2
    return chunks

def _riff(chunks):
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(b)) + b + b"\0" * (len(b) % 2) for kind, b in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body

def _jpeg_segments(data):
    chunks, at = [], 2
    while data[at + 1] != 0xDA:
        n = struct.unpack_from(">H", data, at + 2)[0]
        chunks.append((data[at:at + 2], data[at + 4:at + 2 + n]))
        at += 2 + n
    return [*chunks, (b"scan", data[at:])]

def _jpeg(chunks):
    return b"\xff\xd8" + b"".join(b if kind == b"scan" else kind + struct.pack(">H", (len(b) + 2) & 0xFFFF) + b for kind, b in chunks)

def tiff_tags(data, rng):
    "One entry of the directory: its tag, type, count or value."
    data = bytearray(data)
    start = struct.unpack_from("<I", data, 4)[0]
    entry = start + 2 + 12 * int(rng.integers(struct.unpack_from("<H", data, start)[0]))
    place, width = [(0, 2), (2, 2), (4, 4), (8, 4)][rng.integers(4)]
    value = int(rng.integers(1, 20)) if rng.random() < 0.5 else NUMBERS[rng.integers(len(NUMBERS))]
    data[entry + place:entry + place + width] = (value & (256**width - 1)).to_bytes(width, "little")
    return bytes(data)

TYPES = ["<i2", ">i2", "<u2", "<f4", "<f8", "|u1", "|b1", "|O", "<c8", "<U4", "<M8[s]", "|V2", "<i8", "<f2", "<f16"]
SHAPES = ["(48, 64)", "(64, 48)", "(3072,)", "()", "(1, 48, 64)", "(16, 192)", "(8, 384)", "(0, 64)", "(-1, 64)", "(99999, 99999)",
          "(24, 64)", "(16, 48)", "(48, 16, 4)", "(True, 64)", "(4.0, 64)", "(9999999999999, 2)"]

def npy_header(data, rng):
    "Another type, shape, order or version."
    n = 10 + struct.unpack_from("<H", data, 8)[0]
    kind, shape, order = TYPES[rng.integers(len(TYPES))], SHAPES[rng.integers(len(SHAPES))], ["False", "True", "None", "1"][rng.integers(4)]
    if rng.random() < 0.5: kind = "<i2"
    if rng.random() < 0.5: shape = "(48, 64)"
    text = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    version = bytes([rng.choice([1, 1, 1, 2, 3, 9]), 0])
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + version + length + text + b"\n" + data[n:]

ODD = {"DS": ["nan", "inf", "-1", "0", "1e308", "-1e308", "1e-9", "1,5", "", "abc", "0\\0", "-0.7\\0.7", "0.7", "1\\2\\3", "1e999"],
       "IS": ["-1", "0", "2", "999999999", "x", ""], "US": [0, 1, 7, 8, 12, 16, 17, 255, 65535],
       "CS": ["MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL", "CT", "MR", "", "\x1b[31m", "ORIGINAL\\PRIMARY\\LOCALIZER"],
       "UI": ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.90", "1.2.840.10008.5.1.4.1.1.2.1", "", "x"]}
ADDED = ["NumberOfFrames", "PixelPaddingValue", "PixelPaddingRangeLimit", "SmallestImagePixelValue", "WindowCenter", "WindowWidth", "ImageType",
         "SliceThickness", "ImagePositionPatient", "PlanarConfiguration", "RescaleType", "PixelAspectRatio", "RedPaletteColorLookupTableData"]
NOT_PIXELS = [(0x0028, n) for n in (0x2, 0x4, 0x10, 0x11, 0x30, 0x100, 0x101, 0x102, 0x103, 0x1052, 0x1053)]

def dicom_tags(data, rng):
    "One element gone, odd, or of another type; half the time one that shapes the picture."
    ds = pydicom.dcmread(BytesIO(data))
    tags = [tag for tag in NOT_PIXELS if tag in ds] if rng.random() < 0.5 else [e.tag for e in ds]
    tag = tags[rng.integers(len(tags))]
    way = rng.integers(6)
    if way == 0: del ds[tag]
    elif way == 1:
        name = ADDED[rng.integers(len(ADDED))]
        vr = pydicom.datadict.dictionary_VR(name).split()[0]
        _set(ds, pydicom.tag.Tag(name), vr, rng)
    elif way == 2: _set(ds, tag, ["DS", "IS", "CS", "UI", "US"][rng.integers(5)], rng)
    else: _set(ds, tag, ds[tag].VR, rng)
    stream = BytesIO()
    pydicom.dcmwrite(stream, ds)
    return stream.getvalue()

def _set(ds, tag, vr, rng):
    values = ODD.get(vr, [rng.bytes(int(rng.integers(30)))])
    value = values[rng.integers(len(values))]
    if isinstance(value, str) and vr not in ("OB", "OW"): value = value.encode()   # raw, so that nothing is checked on the way out
    if isinstance(value, int): value = struct.pack("<H", value)
    value += b" " * (len(value) % 2)
    implicit = ds.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    ds[tag] = pydicom.dataelem.RawDataElement(pydicom.tag.BaseTag(tag if isinstance(tag, int) else (tag[0] << 16) + tag[1]), vr, len(value), value, 0, implicit, True)

def or_flip(change):
    "Where a first change has left nothing to take apart, random bytes instead."
    def safe(data, rng):
        try: return change(data, rng)
        except Exception: return flip_early(data, rng)
    return safe


# --- the seeds, all 48 x 64 and small

HU = chest(48, 64)
GRAY = window(HU)
SIZE = {"Rows": 48, "Columns": 64}
STORED = (HU + 1024).clip(0, 4095).astype(np.uint16)

def _squeezed(syntax):
    "The slice compressed, by its DICOM syntax."
    if syntax == JPEG2000Lossless: return encapsulate([encode(Image.fromarray(STORED), "JPEG2000", no_jp2=True, irreversible=False)])
    if syntax == JPEGLosslessSV1: return encapsulate([jpeg8_encode(STORED, lossless=True, predictor=1, bitspersample=16)])
    ds = pydicom.dcmread(BytesIO(dicom(PixelData=STORED.tobytes(), **SIZE)))
    ds.compress(syntax, encoding_plugin="pydicom")
    return ds.PixelData

def _dicom(syntax=pydicom.uid.ExplicitVRLittleEndian, **header):
    pixels = _squeezed(syntax) if syntax in (RLELossless, JPEG2000Lossless, JPEGLosslessSV1) else STORED.tobytes()
    return dicom(syntax=syntax, **{"PixelData": pixels} | SIZE | header)

def _bare():
    "A data set without preamble and file meta."
    data = _dicom(ImplicitVRLittleEndian)
    return data[144 + int.from_bytes(data[140:144], "little"):]

VOLUME = np.stack([chest(24, 32, seed) for seed in range(6)])

def _slices(syntax=pydicom.uid.ExplicitVRLittleEndian):
    "Six slices of a series, each as the bytes of a file, all of the same length."
    files = []
    for k, hu in enumerate(VOLUME):
        stored = (hu + 1024).clip(0, 4095).astype(np.uint16)
        ds = pydicom.dcmread(BytesIO(dicom(Rows=24, Columns=32, PixelData=stored.tobytes(), PixelSpacing=[8, 8], SOPInstanceUID=f"1.2.{k}", ImagePositionPatient=[0, 0, 5 * k])))
        if syntax == RLELossless: ds.compress(syntax, encoding_plugin="pydicom")
        stream = BytesIO()
        pydicom.dcmwrite(stream, ds)
        files.append(stream.getvalue())
    return files

def _zip(files):
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for k, data in enumerate(files): archive.writestr(zipfile.ZipInfo(f"study/IM{k}"), data)
    return stream.getvalue()

def _nifti():
    import nibabel
    return nibabel.Nifti1Image(VOLUME.transpose(2, 1, 0), np.diag([-8, -8, 5, 1]))

def _nrrd(encoding):
    text = (f"NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 32 24 6\nspace directions: (8,0,0) (0,8,0) (0,0,5)\n"
            f"kinds: domain domain domain\nendian: little\nencoding: {encoding}\nspace origin: (0,0,0)\n\n").encode()
    return text + (gzip.compress(VOLUME.tobytes(), 1, mtime=0) if encoding == "gzip" else VOLUME.tobytes())

def _mha(squeezed=False):
    data = zlib.compress(VOLUME.tobytes(), 1) if squeezed else VOLUME.tobytes()
    return (f"ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = {squeezed}\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
            "Offset = 0 0 0\nElementSpacing = 8 8 5\nDimSize = 32 24 6\nElementType = MET_SHORT\nElementDataFile = LOCAL\n").encode() + data

def read_folder(data):
    "As many files as there were slices, in a folder."
    with tempfile.TemporaryDirectory() as folder:
        step = max(1, len(SLICES[0]))
        for k in range(0, len(data), step): (Path(folder) / f"IM{k}").write_bytes(data[k:k + step])
        return read_series(folder)

def flip_slice(data, rng):
    "Another header in one slice."
    k, n = int(rng.integers(len(SLICES))), len(SLICES[0])
    changed = dicom_tags(data[k * n:(k + 1) * n], rng)
    return data[:k * n] + changed.ljust(n, b"\0")[:n] + data[(k + 1) * n:]

NAMES = ["../up", "/etc/x", "a\\b", "C:x", "x" * 300, "", ".", "study/IM0", "DICOMDIR", "x.zip", "\x1b[31m", "a/" * 60]

def members(data, rng):
    "A member of the archive gone, doubled, renamed as nobody should, packed in another archive, or changed inside."
    with zipfile.ZipFile(BytesIO(data)) as archive: files = [(name, archive.read(name)) for name in archive.namelist()]
    k, way, stream = int(rng.integers(len(files))), int(rng.integers(8)), BytesIO()
    name, body = files[k]
    if way == 0: del files[k]
    elif way == 1: files.append((name, body))
    elif way == 2: files[k] = NAMES[rng.integers(len(NAMES))], body
    elif way == 3: files[k] = name, _zip([body])
    elif way == 4: files[k] = name, [b"", bytes(3_000_000), b"\x1f\x8b", npy(HU)][rng.integers(4)]
    else: files[k] = name, dicom_tags(body, rng) if way == 5 else _put(body, rng.integers(0, len(body), rng.integers(1, 4)), rng)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in files: archive.writestr(zipfile.ZipInfo(name), body)
    return stream.getvalue()

def unpacked(data, rng):
    "The packed bytes changed, and packed again."
    raw = gzip.decompress(data)
    return gzip.compress([flip_late, flip_early, number, cut][rng.integers(4)](raw, rng), 1)

WORDS = [b"int16", b"uint8", b"float", b"double", b"block", b"-1", b"0", b"6", b"32", b"9999999999", b"nan", b"1e300", b"gzip", b"raw", b"bzip2", b"hex", b"True", b"False",
         b"MET_UCHAR", b"MET_DOUBLE", b"LOCAL", b"../x", b"(0,0,0)", b"none", b"\xff"]

def words(data, rng):
    "One word of a header of text, exchanged, gone or doubled."
    end = data.find(b"\n\n") if data.startswith(b"NRRD") else data.find(b"LOCAL") + 5
    spans = [m.span() for m in re.finditer(rb"[^\s=:(),]+", data[:end])]
    a, b = spans[rng.integers(1, len(spans))]
    ways = [WORDS[rng.integers(len(WORDS))]] * 3 + [b"", data[a:b] * 2, data[a:b] + b" " + data[a:b]]
    return data[:a] + ways[rng.integers(len(ways))] + data[b:]

SLICES = _slices()
RGB = np.stack([GRAY] * 3, -1)
PALETTE = Image.fromarray(GRAY).convert("P")
chunks, segments, riff, entries, header, tags, flip_slice, members, unpacked, words = map(or_flip, (
    in_chunks(_png_chunks, _png, (b"IDAT",)), in_chunks(_jpeg_segments, _jpeg), in_chunks(_riff_chunks, _riff), tiff_tags, npy_header, dicom_tags,
    flip_slice, members, unpacked, words))
SEEDS = [
    Seed("PNG gray", encode(GRAY), read_scan, chunks),
    Seed("PNG 16-bit", encode(STORED), read_scan, chunks),
    Seed("PNG RGB", encode(RGB), read_scan, chunks),
    Seed("PNG RGBA", encode(np.dstack([RGB, np.full_like(GRAY, 255)])), read_scan, chunks),
    Seed("PNG palette", encode(PALETTE), read_scan, chunks),
    Seed("JPEG gray", encode(GRAY, "JPEG"), read_scan, segments),
    Seed("JPEG colour, progressive", encode(RGB, "JPEG", progressive=True), read_scan, segments),
    Seed("TIFF", encode(GRAY, "TIFF"), read_scan, entries),
    Seed("TIFF 16-bit LZW", encode(STORED, "TIFF", compression="tiff_lzw"), read_scan, entries),
    Seed("TIFF float deflate", encode(HU.astype(np.float32), "TIFF", compression="tiff_adobe_deflate"), read_scan, entries),
    Seed("BMP", encode(GRAY, "BMP"), read_scan),
    Seed("GIF", encode(GRAY, "GIF"), read_scan),
    Seed("WEBP", encode(RGB, "WEBP", lossless=True), read_scan, riff),
    Seed("WEBP lossy", encode(RGB, "WEBP"), read_scan, riff),
    Seed("NPY int16", npy(HU), read_scan, header),
    Seed("NPY float32", npy(HU.astype(np.float32)), read_scan, header),
    Seed("NPY colour", npy(RGB), read_scan, header),
    Seed("DICOM explicit", _dicom(), read_scan, tags),
    Seed("DICOM implicit", _dicom(ImplicitVRLittleEndian), read_scan, tags),
    Seed("DICOM without preamble", _bare(), read_scan),
    Seed("DICOM deflated", _dicom(DeflatedExplicitVRLittleEndian), read_scan, tags),
    Seed("DICOM RLE", _dicom(RLELossless), read_scan, tags),
    Seed("DICOM JPEG 2000", _dicom(JPEG2000Lossless), read_scan, tags),
    Seed("DICOM lossless JPEG", _dicom(JPEGLosslessSV1), read_scan, tags),
    Seed("series, folder", b"".join(SLICES), read_folder, flip_slice),
    Seed("series, ZIP", _zip(SLICES), read_series, members),
    Seed("series, ZIP of RLE", _zip(_slices(RLELossless)), read_series, members),
    Seed("NIfTI", _nifti().to_bytes(), read_series),
    Seed("NIfTI, gzip", gzip.compress(_nifti().to_bytes(), 1), read_series, unpacked),
    Seed("NRRD", _nrrd("raw"), read_series, words),
    Seed("NRRD, gzip", _nrrd("gzip"), read_series, words),
    Seed("MHA", _mha(), read_series, words),
    Seed("MHA, zlib", _mha(True), read_series, words),
    Seed("NPY volume", npy(VOLUME), read_series, header),
]


def mutant(seed, n, seeds=SEEDS):
    "Mutant `n`: its Seed and its bytes."
    rng = np.random.default_rng([seed, n])
    parent = seeds[n % len(seeds)]
    changes = [*PLAIN, *([parent.parts] * 3 if parent.parts else [])]
    data = parent.data
    with warnings.catch_warnings():   # pydicom's, about what is written here on purpose
        warnings.simplefilter("ignore")
        for _ in range(1 + (rng.random() < 0.15)):   # now and then two changes
            if data: data = changes[rng.integers(len(changes))](data, rng)
    return parent, data


# --- what a reader may do

def faults_of(scan):
    "What is wrong with a Scan: an empty list where its units are honest."
    p, mm = scan.pixels, scan.spacing
    found = {
        "not float32": p.dtype != np.float32, "not a slice or volume": p.ndim not in (2, 3), "not finite": not np.isfinite(p).all(),
        "size": min(p.shape[-2:]) < MIN_SIDE or p.shape[-1] * p.shape[-2] > MAX_PIXELS, "unit": scan.unit not in ("HU", "gray"),
        "gray beyond 0..1": scan.unit == "gray" and not 0 <= p.min() <= p.max() <= 1,
        "HU from a picture": scan.unit == "HU" and scan.source.get("format") in ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"),
        "spacing": mm is not None and not (len(mm) == p.ndim and all(SPACING_RANGE[0] <= s <= SPACING_RANGE[1] for s in mm)),
        "warnings": not all(_is_plain(w) for w in scan.warnings)}
    return [what for what, wrong in found.items() if wrong]

def _is_plain(sentence):
    "One sentence for people, with nothing of the patient."
    return (20 < len(sentence) < 400 and sentence.endswith(".") and sentence.isprintable()
            and not any(secret in sentence for secret in SECRETS))

def outcome(read, data):
    "`scan`, `refused`, or what is wrong."
    try: scan = read(data)
    except ScanError as e:
        if "MemoryError" in str(e): return "memory: the reader ran into the fence"
        return "refused" if _is_plain(str(e)) else f"sentence: {e}"
    except BaseException as e: return f"exception: {type(e).__name__}: {e}"
    if not isinstance(scan, Scan): return f"a {type(scan).__name__} came back"
    return ", ".join(faults_of(scan)) or "scan"


# --- the watched process

def _peak():
    "The most memory that this process has held, bytes."
    if sys.platform == "linux":   # where getrusage would count what the parent held before
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def work(pipe, table, seed, numbers, memory, limit):
    "In the child: one answer a mutant, (n, outcome, seconds, peak bytes above the start)."
    module, name = table.split(".")
    seeds = getattr(importlib.import_module(module), name)
    with tempfile.TemporaryDirectory() as here, open(Path(here) / "stderr", "wb") as noise:
        os.chdir(here)
        os.environ["TMPDIR"] = tempfile.tempdir = here
        for stream in (1, 2): os.dup2(noise.fileno(), stream)
        for parent in seeds: outcome(parent.read, parent.data)   # everything is imported and warm
        before, said = _peak(), os.fstat(2).st_size
        if sys.platform == "linux":
            in_use = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (in_use + 2 * memory,) * 2)   # a fence, so that a fault costs no machine
        pipe.send(None)   # ready
        for n in numbers:
            parent, data = mutant(seed, n, seeds)
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, limit)   # at its end the process is ended with SIGPROF, whatever it is doing
            result = outcome(parent.read, data)
            signal.setitimer(signal.ITIMER_PROF, 0)
            seconds = time.process_time() - start
            sys.stderr.flush()
            if os.fstat(2).st_size != said: result, said = "noise on stderr", os.fstat(2).st_size
            if len(os.listdir(here)) != 1: result = f"stray file: {[name for name in os.listdir(here) if name != 'stderr']}"
            if (peak := _peak() - before) > memory: result, before = f"memory: {peak // 2**20} MiB", _peak()
            pipe.send((n, result, seconds, peak))

def run(count, seed=0, table="fuzz.SEEDS", limit=SECONDS, patience=PATIENCE, memory=MEMORY):
    "Every mutant from 0 to `count` in a watched process: yields (n, outcome, seconds, peak bytes)."
    context, start = multiprocessing.get_context("spawn"), 0
    while start < count:
        pipe, end = context.Pipe(duplex=False)
        child = context.Process(target=work, args=(end, table, seed, range(start, count), memory, limit), daemon=True)
        child.start()
        end.close()
        if pipe.poll(120): pipe.recv()   # everything is imported and warm
        while start < count:
            try: answer = pipe.recv() if pipe.poll(patience) else (start, "hang", float(limit), 0)
            except EOFError:
                child.join()
                answer = start, "hang" if child.exitcode == -signal.SIGPROF else f"crash: exit code {child.exitcode}", 0.0, 0
            start = answer[0] + 1
            yield answer
            if answer[1] == "hang" or answer[1].startswith(("crash", "stray")): break   # go on in a fresh process
        child.kill()
        child.join()

def summary(count, seed=0, tell=lambda: None):
    "The figures of a run, and every fault with the number of its mutant."
    by_format, faults, longest, highest = {s.name: Counter() for s in SEEDS}, [], 0.0, 0
    for n, result, seconds, peak in run(count, seed):
        longest, highest = max(longest, seconds), max(highest, peak)
        name = SEEDS[n % len(SEEDS)].name
        by_format[name][result if result in ("scan", "refused") else "fault"] += 1
        if result not in ("scan", "refused"): faults.append((n, name, result))
        tell()
    total = sum(by_format.values(), Counter())
    return {"mutants": total.total(), "seed": seed, "seeds": len(SEEDS), "seeds_read": sum(outcome(s.read, s.data) == "scan" for s in SEEDS),
            "read": total["scan"], "refused": total["refused"], "faulty": total["fault"], "read_percent": round(100 * total["scan"] / count, 1),
            "longest_s": round(longest, 2), "limit_s": SECONDS, "peak_MiB": highest // 2**20, "cap_MiB": MEMORY // 2**20, "faults": faults,
            "formats": {name: {k: c[k] for k in ("scan", "refused", "fault")} for name, c in by_format.items()}}

def main():
    from tqdm import tqdm
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    with tqdm(total=args.count, disable=None) as bar: figures = summary(args.count, args.seed, bar.update)
    text = json.dumps(figures, indent=1) + "\n"
    if args.out: args.out.write_text(text, encoding="utf-8")
    print(text)
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
