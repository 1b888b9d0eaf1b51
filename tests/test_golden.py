"""The golden case: what the shipped model marks on the bundled sample does not change unnoticed.

After a new model is released, `python tests/test_golden.py` stores its answer anew.
"""
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lung_unet.metrics import dice
from lung_unet.scan import bundled
from lung_unet.segmenter import Segmenter

GOLDEN = Path(__file__).with_name("golden_mask.png")


def answer(precision, spacing=None):
    return Segmenter.load(precision=precision).segment(bundled("sample.png"), spacing=spacing).mask


@pytest.mark.parametrize("precision", ["f32", "auto"])
def test_mask_of_the_sample(precision):
    golden = np.asarray(Image.open(GOLDEN)) > 0
    assert golden.sum() > 100 and dice(answer(precision), golden) > 0.99


def test_the_mass_is_found():
    true = np.asarray(Image.open(bundled("sample_mask.png"))) > 0
    assert dice(answer("auto"), true) > 0.8


if __name__ == "__main__":
    Image.fromarray(answer("f32").astype(np.uint8) * 255).save(GOLDEN, optimize=True)
