"""What is not a lesson about series: a whole phantom through the formats, hostile archives and folders, privacy, imports."""
import io
import os
import re
import subprocess
import sys
import zipfile

import nibabel
import numpy as np
import pydicom
import pytest

from lung_unet.phantom import Tumour, phantom_volume
from lung_unet.scan import ScanError
from lung_unet.series import find_series, read_series, stored_affine, to_stored, write_series

SECRETS = "Doe", "PID4711", "19500101"


@pytest.fixture(scope="module")
def phantom():
    return phantom_volume(16, 64, (6.0, 5.6), (Tumour(40, margin="smooth"),), noise=5)


def centre(mask, affine):
    "The middle of a mask in the patient, LPS mm."
    return affine[:3, :3] @ np.argwhere(mask).mean(0) + affine[:3, 3]


def test_a_tumour_stays_where_it_is_in_the_patient(phantom, tmp_path):
    "The CT comes as DICOM from head to feet, the mask as NIfTI with axes of its own: they meet in the normal form."
    down = phantom.scan.affine.copy()
    down[:3, 3] += (len(phantom.mask) - 1) * down[:3, 0]
    down[:3, 0] *= -1
    write_series(phantom.scan.pixels[::-1], tmp_path / "ct", down)
    ras = np.diag([-1, -1, 1, 1]) @ phantom.scan.affine @ np.eye(4)[[2, 1, 0, 3]]
    image = nibabel.Nifti1Image(phantom.mask.transpose(2, 1, 0).astype(np.uint8), ras)
    target = nibabel.orientations.axcodes2ornt("ASL")
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), target))
    ct, mask = read_series(tmp_path / "ct"), read_series(image.to_bytes(), unit="gray")
    assert np.allclose(ct.affine, mask.affine, atol=1e-4) and np.array_equal(mask.pixels > 0, phantom.mask)
    assert np.abs(ct.pixels - phantom.scan.pixels).max() < 0.51   # DICOM stores whole numbers
    expected = centre(phantom.mask, phantom.scan.affine)
    assert np.allclose(centre(mask.pixels > 0, ct.affine), expected, atol=1e-3)
    assert np.allclose(centre(to_stored(mask.pixels > 0, mask), stored_affine(mask)), expected, atol=1e-3)
    assert abs(np.median(ct.pixels[mask.pixels > 0]) - 40) < 20


def test_headers_belong_to_slices(phantom, tmp_path):
    write_series(phantom.scan.pixels, tmp_path, phantom.scan.affine, name="{:04d}")
    for k, name in enumerate(np.random.default_rng(0).permutation(16)):   # names say nothing about the order
        os.rename(tmp_path / f"{k:04d}", tmp_path / f"a{name:04d}")
    scan = read_series(tmp_path)
    places = [float(h.ImagePositionPatient[2]) for h in scan.headers]
    assert np.allclose(places, scan.affine[2, 3] + 6.0 * np.arange(16)) and np.abs(scan.pixels - phantom.scan.pixels).max() < 0.51


def test_archive_that_lies_about_its_size(phantom, tmp_path):
    "A member that is longer than the table of contents says is cut off, and what is left of it is no slice."
    paths = write_series(phantom.scan.pixels, tmp_path, phantom.scan.affine)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, path.name)
    data = bytearray(stream.getvalue())
    entry = [m.start() for m in re.finditer(rb"PK\x01\x02", data)][7]
    data[entry + 24:entry + 28] = (2000).to_bytes(4, "little")
    with pytest.raises(ScanError, match="lacks 1 slice|cut short"):
        read_series(bytes(data))


def test_folder_with_pipes_and_circles(phantom, tmp_path):
    write_series(phantom.scan.pixels, tmp_path / "ct", phantom.scan.affine)
    os.mkfifo(tmp_path / "ct" / "pipe")
    (tmp_path / "ct" / "circle").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "ct" / "dangling").symlink_to(tmp_path / "nothing")
    assert [s.slices for s in find_series(tmp_path)] == [16]
    with pytest.raises(ScanError, match="device or a pipe"):
        read_series(tmp_path / "ct" / "pipe")


def test_nobody_is_named(phantom, tmp_path, caplog, capfd):
    "Wherever a file breaks off, neither errors nor warnings nor logs say whose it is, or where it lay."
    who = {"PatientName": "Doe^Jane", "PatientID": "PID4711", "PatientBirthDate": "19500101"}
    paths = write_series(phantom.scan.pixels[:4], tmp_path, phantom.scan.affine, **who)
    whole, said = paths[1].read_bytes(), []
    for end in range(0, len(whole), 97 + len(whole) // 60):
        paths[1].write_bytes(whole[:end])
        try:
            said += read_series(tmp_path).warnings
        except ScanError as e:
            said.append(str(e))
    paths[1].write_bytes(whole)
    scan = read_series(tmp_path)
    said += [repr(scan.source), repr(scan), repr(find_series(tmp_path)), caplog.text, *capfd.readouterr()]
    assert str(scan.headers[0].PatientName) == "Doe^Jane"   # in memory, for DICOM out
    assert not any(secret in line for line in said for secret in (*SECRETS, str(tmp_path)))
    assert len(said) > 20


def test_many_slices_broken_in_the_middle_of_a_value(phantom, tmp_path):
    "A slice whose header is damaged is a hole, not a shorter chest."
    paths = write_series(phantom.scan.pixels, tmp_path, phantom.scan.affine)
    paths[7].write_bytes(paths[7].read_bytes()[:500])
    with pytest.raises(ScanError, match="lacks 1 slice"):
        read_series(tmp_path)
    paths[7].write_bytes(paths[6].read_bytes())   # a copy of its neighbour in its place
    with pytest.raises(ScanError, match="lacks 1 slice"):
        read_series(tmp_path)


def test_reconstructions_and_localizers_in_one_series(phantom, tmp_path):
    uids = {key: pydicom.uid.generate_uid() for key in ("StudyInstanceUID", "SeriesInstanceUID")}
    soft = phantom.scan.pixels
    write_series(soft, tmp_path / "a", phantom.scan.affine, **uids, ConvolutionKernel="B30f")
    write_series(soft[:15] + 7, tmp_path / "b", phantom.scan.affine, **uids, ConvolutionKernel="B70f")
    write_series(soft[:1], tmp_path / "c", phantom.scan.affine, **uids, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    scan = read_series(tmp_path)
    assert np.abs(scan.pixels - soft).max() < 0.51
    assert len(scan.warnings) == 2 and "1 localizer" in scan.warnings[0] and "2 volumes that overlap" in scan.warnings[1]


def test_importing_is_light():
    heavy = "pydicom", "nibabel", "nrrd", "tensorflow", "keras", "matplotlib"
    code = f"import sys, lung_unet.series; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
