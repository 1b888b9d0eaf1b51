"""Files that tests need: a chest as a child would draw it, in every format."""
import io
import struct
import zlib

import numpy as np
import pydicom
from PIL import Image


def chest(rows=128, cols=160, seed=0):
    "A drawn chest in HU, int16."
    y, x = np.mgrid[-1:1:rows * 1j, -1:1:cols * 1j]
    hu = np.full((rows, cols), -1000, np.int16)
    hu[(y / 0.8)**2 + (x / 0.9)**2 < 1] = 40
    hu[(y / 0.5)**2 + ((np.abs(x) - 0.4) / 0.3)**2 < 1] = -860
    return hu + np.random.default_rng(seed).normal(0, 10, hu.shape).astype(np.int16)


def window(hu=None):
    "The same as an 8-bit picture."
    hu = chest() if hu is None else hu
    return ((np.clip(hu, -1000, 400) + 1000) / 1400 * 255).astype(np.uint8)


def encode(a, format="PNG", **options):
    "An array or a Pillow picture as the bytes of a file."
    stream = io.BytesIO()
    (a if isinstance(a, Image.Image) else Image.fromarray(a)).save(stream, format, **options)
    return stream.getvalue()


def npy(a):
    "An array as the bytes of an .npy file; object arrays are pickled, as a careless script would."
    stream = io.BytesIO()
    np.save(stream, a, allow_pickle=True)
    return stream.getvalue()


def dicom(drop=(), syntax=pydicom.uid.ExplicitVRLittleEndian, **header):
    "The bytes of a DICOM CT slice of the drawn chest; `header` overrides, `drop` deletes."
    stored = (chest() + 1024).clip(0, 4095).astype(np.uint16)
    ds = pydicom.Dataset()
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    values = {
        "SOPClassUID": pydicom.uid.CTImageStorage, "SOPInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2", "Modality": "CT",
        "PatientName": "Doe^Jane", "PatientID": "PID4711", "PatientBirthDate": "19500101", "Rows": 128, "Columns": 160,
        "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 0, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "RescaleSlope": 1, "RescaleIntercept": -1024,
        "PixelSpacing": [2.5, 2.5], "SliceThickness": 2.5, "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelData": stored.tobytes()}
    for key, value in (values | header).items():
        if key not in drop:
            setattr(ds, key, value)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def png_bomb(n):
    "A small PNG file that says it has n x n pixels."
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", n, n, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(n))) + chunk(b"IEND", b"")
