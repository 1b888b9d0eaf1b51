"""Whole CTs with masks from elsewhere, and measurements that leave as DICOM SR: through the command line, on series that lie in every way."""
import csv
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
from skimage.measure import find_contours

from lung_unet.cli import main
from lung_unet.evaluation import evaluate
from lung_unet.export import dicom_seg, nifti, planes
from lung_unet.outlines import read_outline
from lung_unet.pairs import Pair, find_volumes
from lung_unet.phantom import Tumour, phantom_volume
from lung_unet.segmenter import Segmenter
from lung_unet.series import read_series, write_series

WHO = {"PatientName": "Doe^Jane", "PatientID": "PID4711", "PatientBirthDate": "19500101", "StudyDate": "20200203", "AccessionNumber": "ACC77",
       "StudyInstanceUID": "1.2.4444.1", "SeriesInstanceUID": "1.2.4444.2", "FrameOfReferenceUID": "1.2.4444.3"}
SECRETS = [b"Doe", b"PID4711", b"19500101", b"20200203", b"ACC77", b"1.2.4444"]
N = 8   # slices
TWO = (Tumour(50, side="right", margin="smooth"), Tumour(36, margin="smooth"))


@pytest.fixture(scope="module")
def phantom():
    return phantom_volume(N, 96, (12.0, 3.7), TWO, noise=5)


def rtstruct(mask, scan, name="GTV-1"):
    "The bytes of an RTSTRUCT with a contour around each piece of a mask on each slice, and of the series it was drawn on."
    ds, roi, drawn, referenced, study, series = (pydicom.Dataset() for _ in range(6))
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.RTStructureSetStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    ds.Modality, ds.SeriesInstanceUID, roi.ROINumber, roi.ROIName, drawn.ReferencedROINumber = "RTSTRUCT", pydicom.uid.generate_uid(), 1, name, 1
    series.SeriesInstanceUID, roi.ReferencedFrameOfReferenceUID = scan.headers[0].SeriesInstanceUID, scan.headers[0].FrameOfReferenceUID
    study.RTReferencedSeriesSequence, referenced.RTReferencedStudySequence = [series], [study]
    ds.ReferencedFrameOfReferenceSequence, ds.StructureSetROISequence, ds.ROIContourSequence, drawn.ContourSequence = [referenced], [roi], [drawn], []
    for k, plane in enumerate(mask):
        for points in find_contours(np.pad(plane, 1).astype(float), 0.5):
            contour, at = pydicom.Dataset(), np.c_[np.full(len(points), k), points - 1, np.ones(len(points))]
            contour.ContourGeometricType, contour.ContourData = "CLOSED_PLANAR", [f"{x:.7g}" for x in (at @ scan.affine.T)[:, :3].ravel()]
            drawn.ContourSequence.append(contour)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def ways(affine, slices):
    "An axial series, one stored from the head, an oblique one, and one with a tilted gantry."
    down, tilted = affine.copy(), affine.copy()
    down[:3, 3] += (slices - 1) * down[:3, 0]
    down[:3, 0] *= -1
    tilted[1, 0] = affine[2, 0] * np.tan(np.radians(12))
    c, s = np.cos(np.radians(15)), np.sin(np.radians(15))
    turn = np.array([(1, 0, 0, 0), (0, c, -s, 0), (0, s, c, 0), (0, 0, 0, 1)])
    return {"axial": affine, "from the head": down, "oblique": turn @ affine, "tilted": tilted}


@pytest.mark.parametrize("way", ["axial", "from the head", "oblique", "tilted"])
def test_a_mask_of_any_kind_lands_on_the_same_voxels(phantom, tmp_path, way):
    affine = ways(phantom.scan.affine, N)[way]
    write_series(phantom.scan.pixels, tmp_path / "ct", affine, **WHO)
    ct = read_series(tmp_path / "ct")
    mask = phantom.mask[::-1] if way == "from the head" else phantom.mask
    for brought in (nifti(mask.astype(np.uint8), ct), dicom_seg(ct, mask.astype(np.uint8)), rtstruct(mask, ct)):
        assert np.array_equal(read_outline(brought, ct), mask)


def rows(path):
    with open(path, newline="", encoding="utf-8") as f: return list(csv.DictReader(f))


def test_evaluate_from_the_shell(phantom, tmp_path, capsys):
    "Three patients, one mask of each kind, in the folders of an archive; the fourth patient's mask belongs to another CT, and is named."
    data, place = tmp_path / "data", {}
    for k in range(1, 5):
        uid = {"SeriesInstanceUID": f"1.2.4444.{k}", "FrameOfReferenceUID": f"1.2.4444.9.{k}"}
        write_series(phantom.scan.pixels, data / f"P{k}" / "2020" / "ct", phantom.scan.affine, **WHO | uid)
        place[k] = read_series(data / f"P{k}" / "2020" / "ct")
    marks = phantom.mask.astype(np.uint8)
    (data / "P1" / "2020" / "mask.nii.gz").write_bytes(nifti(marks, place[1]))
    for k, name, written in [(2, "seg/1.dcm", dicom_seg(place[2], marks)), (3, "plan/1.dcm", rtstruct(phantom.mask, place[3]))]:
        (data / f"P{k}" / name).parent.mkdir()
        (data / f"P{k}" / name).write_bytes(written)
    (data / "P4" / "2020" / "mask.nii.gz").write_bytes(nifti(marks[1:], replace(place[4], pixels=place[4].pixels[1:])))
    assert main(["evaluate", str(data), "--out", str(tmp_path / "out")]) == 1
    said, scans, patients = capsys.readouterr(), rows(tmp_path / "out" / "scans.csv"), rows(tmp_path / "out" / "patients.csv")
    assert said.err.count("\n") == 1 and said.err.startswith(f"lung-unet: {data / 'P4' / '2020' / 'ct'}: ") and "does not lie on the voxels" in said.err
    assert [r["patient"] for r in scans] == [r["patient"] for r in patients] == ["P1", "P2", "P3"]
    seg = Segmenter.load().segment(data / "P1" / "2020" / "ct")
    expected = 2 * (seg.mask & phantom.mask).sum() / (seg.mask.sum() + phantom.mask.sum())
    assert expected > 0.2   # the network sees them, so that the numbers below are not of nothing
    assert all(abs(float(r["dice"]) - expected) < 1e-3 and int(r["hits"]) + int(r["misses"]) == 2 for r in scans)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["data (CT)"]
    assert summary["patients"] == 3 and summary["lesions"] == 6 and np.allclose(summary["dice_over_patients"], expected, atol=1e-3)
    assert not any(secret in path.read_bytes() for path in (tmp_path / "out").iterdir() for secret in SECRETS)


def test_a_manifest_names_cts_and_pictures(phantom, tmp_path):
    write_series(phantom.scan.pixels, tmp_path / "ct", phantom.scan.affine)
    (tmp_path / "m.nii.gz").write_bytes(nifti(phantom.mask.astype(np.uint8), phantom.scan))
    (tmp_path / "all.csv").write_text("image,mask,patient\nct,m.nii.gz,A\nct,,B\n", encoding="utf-8")
    pairs = find_volumes(tmp_path / "all.csv")
    assert [(p.patient, p.mask and p.mask.name) for p in pairs] == [("A", "m.nii.gz"), ("B", None)]
    stub = SimpleNamespace(segment=lambda path: SimpleNamespace(scan=read_series(path), mask=phantom.mask))
    result = evaluate(stub, pairs)
    assert [(r["dice"], r["hits"], r["false_positives"]) for r in result.scans] == [(1, 2, 0), (0, 0, 2)]
    assert result.summary["all (CT)"]["tumour_free"] == 1


def test_measurements_of_a_ct(phantom, tmp_path, capsys):
    "What the JSON says of each finding stands in the SR, at the finding's own segment; with --deidentify nothing of the study does."
    write_series(phantom.scan.pixels, tmp_path / "Doe", phantom.scan.affine, SOPInstanceUID=lambda k: f"1.2.4444.4.{k}", **WHO)
    for more in ([], ["--deidentify", "--key", str(tmp_path / "key")]):
        out = tmp_path / f"out{len(more)}"
        assert main(["predict", str(tmp_path / "Doe"), "--seg", "--out", str(out), *more]) == 0
        written = {path.name.split("_")[-1].split(".")[0] if path.suffix == ".dcm" else path.suffix: path for path in out.iterdir()}
        report, seg = highdicom.sr.srread(written["sr"]), pydicom.dcmread(written["seg"])
        lesions = json.loads(written[".json"].read_text(encoding="utf-8"))["lesions"]
        groups = report.content.get_volumetric_roi_measurement_groups()
        assert len(groups) == len(lesions) > 0
        for lesion, group in zip(lesions, groups, strict=True):
            assert np.allclose([m.value for m in group.get_measurements()], [lesion[key] for key in ("volume_mm3", "longest", "perpendicular", "mean_hu")])
            assert (group.referenced_segment.referenced_segment_numbers, group.referenced_segment.referenced_sop_instance_uid) == ([lesion["id"]], seg.SOPInstanceUID)
        assert report.StudyInstanceUID == seg.StudyInstanceUID and (str(report.PatientName) == "Doe^Jane") == (not more)
        if more: assert not any(secret in path.read_bytes() for path in out.iterdir() for secret in SECRETS)
    said = "".join(capsys.readouterr())
    assert "PID4711" not in said and "Jane" not in said


def test_an_enhanced_ct_has_a_seg_and_a_report(phantom, tmp_path):
    "One file of frames in no order: what is written names that file's own frames, and is read back as the same mask."
    order = list(np.random.default_rng(3).permutation(N))
    path = enhanced(phantom.scan, tmp_path, order)
    assert main(["predict", str(path), "--seg", "--out", str(tmp_path / "out")]) == 0
    scan, seg = read_series(path), pydicom.dcmread(tmp_path / "out" / "all_seg.dcm")
    found = Segmenter.load().segment(path)
    assert np.array_equal(read_outline(tmp_path / "out" / "all_seg.dcm", scan), found.mask)
    assert len(planes(scan)) == N and found.lesions
    uid = pydicom.dcmread(path).SOPInstanceUID
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source, = frame.DerivationImageSequence[0].SourceImageSequence
        k = order[source.ReferencedFrameNumber - 1]
        assert source.ReferencedSOPInstanceUID == uid and np.allclose(frame.PlanePositionSequence[0].ImagePositionPatient, (phantom.scan.affine @ [k, 0, 0, 1])[:3])
    report = highdicom.sr.srread(tmp_path / "out" / "all_sr.dcm")
    for lesion, group in zip(found.lesions, report.content.get_volumetric_roi_measurement_groups(), strict=True):
        picture, = group.referenced_segment.source_images_for_segmentation
        slices = {order[n - 1] for n in picture.referenced_frame_numbers}
        assert picture.referenced_sop_instance_uid == uid and slices == set(np.flatnonzero((found.labels == lesion.id).any((1, 2))))


def enhanced(scan, folder, order):
    "Write a volume as an enhanced CT file whose frames are the slices with these numbers."
    ds = pydicom.dcmread(write_series(scan.pixels[:1], folder / "one", scan.affine)[0])
    shared, frames = pydicom.Dataset(), []
    for macro, keys in {"PixelMeasuresSequence": ["PixelSpacing"], "PlaneOrientationSequence": ["ImageOrientationPatient"],
                        "PixelValueTransformationSequence": ["RescaleSlope", "RescaleIntercept"]}.items():
        setattr(shared, macro, [pydicom.Dataset()])
        for key in keys:
            setattr(shared[macro].value[0], key, ds[key].value)
            delattr(ds, key)
    for k in order:
        frames.append(pydicom.Dataset())
        frames[-1].PlanePositionSequence = [pydicom.Dataset()]
        frames[-1].PlanePositionSequence[0].ImagePositionPatient = [f"{x:.9g}" for x in (scan.affine @ [k, 0, 0, 1])[:3]]
    del ds.ImagePositionPatient
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    ds.NumberOfFrames, ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = len(order), [shared], frames
    ds.PixelData = (np.round(scan.pixels[order]) + 1024).astype("<i2").tobytes()
    shutil.rmtree(folder / "one")
    ds.save_as(folder / "all.dcm")
    return folder / "all.dcm"


DATA = Path(os.environ.get("LUNG_UNET_DATA", Path(__file__).parents[2] / "shared" / "data")) / "dicom" / "lidc_idri_0001"


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the CT LIDC-IDRI-0001 with its mask: set LUNG_UNET_DATA to the folder of real data")
def test_a_real_ct_and_its_mask(tmp_path):
    "The readers' outline, as NIfTI, SEG and RTSTRUCT; a method that marks it one slice too high scores what numpy says."
    pair, = find_volumes(DATA)
    ct = read_series(pair.image)
    true = read_outline(pair.mask, ct)
    assert np.array_equal(true, read_series(pair.mask, unit="gray").pixels > 0) and true.any()
    (tmp_path / "seg.dcm").write_bytes(dicom_seg(ct, true.astype(np.uint8)))
    (tmp_path / "rt.dcm").write_bytes(rtstruct(true, ct))
    high = np.roll(true, 1, axis=0)
    stub = SimpleNamespace(segment=lambda path: SimpleNamespace(scan=ct, mask=high))
    result = evaluate(stub, [pair, *(Pair(pair.image, tmp_path / name, "same") for name in ("seg.dcm", "rt.dcm"))])
    assert not result.failed and len(result.scans) == 3
    for row in result.scans:
        assert np.isclose(row["dice"], (high & true).sum() / true.sum()) and np.isclose(row["true_mm3"], true.sum() * 2.5 * 0.703125**2)
        assert (row["hits"], row["misses"], row["false_positives"]) == (1, 0, 0)
