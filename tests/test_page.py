"""The page in a real browser: upload, threshold, download, garbage, two visitors, no outside request."""
import gzip
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made import chest, dicom, encode, window
from PIL import Image
from playwright.sync_api import sync_playwright
from test_bad_input import BAD

from lung_unet.phantom import Tumour, phantom_volume, to_png
from lung_unet.phantom import chest as phantom
from lung_unet.scan import bundled
from lung_unet.segmenter import Segmenter
from lung_unet.series import write_series
from lung_unet.widget import Session

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


def started(command, pattern, folder=None):
    "A process and what `pattern` matched in a line that it printed."
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)
    for line in process.stdout:
        if found := re.search(pattern, line):
            return process, found[0]
    raise AssertionError(f"{command} ended with {process.wait()}")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    command = [Path(sys.executable).with_name("lung-unet"), "app", "--port", "0", "--no-browser"]
    (folder / "voila.py").write_text("open('ran', 'w').close()", encoding="utf-8")   # somebody else's configuration in the folder where it is started
    process, url = started(command, r"http://127\.0\.0\.1:\d+/", folder)
    assert not (folder / "ran").exists()
    yield url
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[0]
    assert said == "", said   # a page that works has nothing to log, of patients least of all


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    "A function that opens the page for another visitor; none of them may ask anything of another machine or raise an error."
    contexts, trouble = [], []

    def visit(width=1280):
        context = browser.new_context(viewport={"width": width, "height": 900})
        page = context.new_page()
        contexts.append(context)
        page.on("request", lambda r: trouble.append(r.url) if not r.url.startswith((address, address.replace("http", "ws"), "data:", "blob:")) else None)
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.goto(address)
        page.wait_for_selector(".lu .choose", timeout=60_000)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert trouble == []


def upload(page, name, data):
    "Through the page's own control, and wait for the answer."
    page.set_input_files(".lu .files", [{"name": name, "mimeType": "application/octet-stream", "buffer": data}])


def shows(page, name):
    page.wait_for_selector(f".lu .name:has-text('{name}, ')", timeout=30_000)
    page.wait_for_selector(".lu .status", state="hidden", timeout=30_000)


def rows(page):
    "How many findings the table lists; it comes after the picture."
    page.wait_for_selector("tbody tr")
    return page.locator("tbody tr").count()


def hold(page, start, to):
    "Press the mouse on the found picture and move it; the caller lets go."
    page.locator("canvas.found").scroll_into_view_if_needed()
    box = page.locator("canvas.found").bounding_box()
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + to[0], box["y"] + to[1], steps=4)


def a_slice(seed=5, diameter=30):
    return phantom(tumours=(Tumour(diameter_mm=diameter),), seed=seed).scan


@needs_browser
def test_upload_threshold_and_zip(visit):
    page = visit()
    picture = encode(to_png(a_slice().pixels))
    upload(page, "my slice.png", picture)
    shows(page, "my slice")
    found = rows(page)
    assert "Intensity is estimated" in page.inner_text(".warning")
    assert page.locator("canvas.found").get_attribute("aria-label").startswith(f"{found} finding")
    marked = {}
    for level in ("strict", "sensitive", "balanced"):
        page.click(f"text={level}")
        page.wait_for_selector(f".levels button:has-text('{level}')[aria-pressed=true]")   # set by the answer, with the new mask
        with page.expect_download() as download:
            page.click("[data-save=mask]")
        marked[level] = (np.asarray(Image.open(download.value.path())) > 0).sum()
    assert marked["strict"] < marked["balanced"] < marked["sensitive"]
    with page.expect_download() as download:
        page.click("[data-save=zip]")
    with zipfile.ZipFile(Path(download.value.path())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert download.value.suggested_filename == "my slice.zip"
    assert sorted(files) == ["my slice.json", "my slice_mask.png", "my slice_overlay.png"]
    expected = Segmenter.load().segment(picture)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(files["my slice_mask.png"]))) > 0, expected.mask)
    assert json.loads(files["my slice.json"])["lesions"] == expected.to_dict()["lesions"]


BLUE = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let blue = 0;
    for (let i = 0; i < data.length; i += 4) blue += data[i + 2] > data[i] + 20;
    return 4 * blue / data.length;
}"""


@needs_browser
def test_doubt_is_drawn_between_the_two_probabilities_of_the_card(visit):
    page = visit()
    page.click(".sample")
    shows(page, "sample")
    found = Segmenter.load().segment(bundled("sample.png"))
    low, high = Segmenter.load().card.band
    share = ((found.probability >= low) & (found.probability < high)).mean()
    for layer in ("contour", "box"):
        page.click(f"[data-layer={layer}]")   # they would lie over it
    before = page.locator("canvas.found").evaluate(BLUE)
    page.click("[data-layer=doubt]")
    page.wait_for_timeout(200)   # until it is drawn
    assert before < share / 10 and abs(page.locator("canvas.found").evaluate(BLUE) / share - 1) < 0.15


ORANGE = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let orange = 0;
    for (let i = 0; i < data.length; i += 4) orange += data[i] > data[i + 2] + 30;
    return orange;
}"""


DRAWN = """() => {   // keeps where the next picture has its labels and frames, [left, top, right, bottom]
    const kept = window.drawn = { fillRect: [], strokeRect: [] };
    for (const kind of Object.keys(kept)) {
        const own = CanvasRenderingContext2D.prototype[kind];
        CanvasRenderingContext2D.prototype[kind] = function (x, y, width, height) {
            const { a, e, f } = this.getTransform();
            if (this.canvas.classList.contains("found")) kept[kind].push([x * a + e, y * a + f, (x + width) * a + e, (y + height) * a + f]);
            return own.call(this, x, y, width, height);
        };
    }
}"""


@needs_browser
def test_labels_cover_no_other_finding(visit):
    "Two findings by hand, one close below the other: each label has its own place."
    page = visit(800)
    page.click(".sample")
    shows(page, "sample")
    before = rows(page)
    page.click("[data-tool=add]")
    for n, y in enumerate((60, 84), 1):
        hold(page, (60, y), (90, y))
        page.mouse.up()
        page.wait_for_function("n => document.querySelectorAll('tbody tr').length === n", arg=before + n)
    page.evaluate(DRAWN)
    page.click("[data-layer=fill]")   # paints once more
    page.wait_for_function("n => window.drawn.fillRect.length >= n", arg=before + 2)
    labels, frames = (page.evaluate("window.drawn")[kind][:before + 2] for kind in ("fillRect", "strokeRect"))
    def apart(a, b): return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert all(apart(label, frame) for label in labels for frame in frames)
    assert all(apart(a, b) for k, a in enumerate(labels) for b in labels[:k])


@needs_browser
def test_correct_strike_and_undo(visit):
    page = visit(800)
    page.click(".sample")
    shows(page, "sample")
    before = rows(page)
    page.click("[data-tool=add]")
    hold(page, (40, 40), (70, 40))
    page.mouse.up()
    page.wait_for_selector(".corrected:not([hidden])")
    assert rows(page) == before + 1 and page.locator("tbody >> text=by hand").count() == 1
    page.click(".undo")
    page.wait_for_selector(".corrected", state="hidden")
    orange = page.locator("canvas.found").evaluate(ORANGE)
    page.focus("[aria-label='strike out finding 1']")
    page.keyboard.press("Enter")
    page.wait_for_selector("tr.struck")
    assert page.evaluate("document.activeElement.ariaLabel") == "strike out finding 1"   # a keyboard stays where it was
    page.wait_for_timeout(200)
    assert page.locator("canvas.found").evaluate(ORANGE) < orange / 2   # no more than a pale outline is left
    with page.expect_download() as download:
        page.click("[data-save=json]")
    report = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert len(report["lesions"]) == before - 1 and "by hand" in report["warnings"][-1]
    page.locator("tbody tr").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("tbody tr.on")


@needs_browser
def test_a_stroke_belongs_to_the_picture_it_began_on(visit):
    "And on a phone the picture stays in its frame; what was typed of one file is not said of the next."
    page = visit(390)
    page.click(".sample")
    shows(page, "sample")
    page.click("[data-tool=add]")
    hold(page, (40, 40), (60, 40))
    page.fill(".spacing", "0.4")
    box = page.locator("canvas.found").bounding_box()
    upload(page, "next.png", encode(to_png(a_slice().pixels)))
    page.mouse.move(box["x"] + 80, box["y"] + 40)
    page.wait_for_selector(".strip button.ready", timeout=30_000)   # nobody is taken away from what they work on
    assert page.inner_text(".name").startswith("sample")
    page.mouse.up()
    page.wait_for_selector(".corrected:not([hidden])")
    page.click(".strip button.ready")
    shows(page, "next")
    rows(page)
    assert "0.40 mm a pixel" in page.inner_text(".name") and "typed in" in page.inner_text(".warning") and page.input_value(".spacing") == ""
    page.click(".sample")
    shows(page, "sample 2")
    assert "estimated" in page.inner_text(".name")
    for n in range(3):
        page.locator(".strip button").nth(n).click()
        page.wait_for_selector(f".strip button:nth-child({n + 1})[aria-pressed=true]")
        rows(page)
        page.wait_for_selector(".corrected", state="hidden" if n else "visible")
        assert page.locator("tbody >> text=by hand").count() == (n == 0)
    page.click("[data-tool=move]")
    ink = page.locator("canvas.found").evaluate(INK)
    hold(page, (200, 200), (20, 20))
    page.mouse.up()
    page.wait_for_timeout(200)
    assert page.locator("canvas.found").evaluate(INK) > 0.98 * ink   # at this zoom it has nowhere to go
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


INK = """canvas => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.filter((v, i) => i % 4 < 3 && v > 40).length"""


@needs_browser
def test_a_server_that_is_gone_is_said(browser, tmp_path):
    process, url = started([Path(sys.executable).with_name("lung-unet"), "app", "--port", "0", "--no-browser"], r"http://127\.0\.0\.1:\d+/", tmp_path)
    page = browser.new_page()
    try:
        page.goto(url)
        page.wait_for_selector(".lu .choose", timeout=60_000)
        page.click(".sample")
        shows(page, "sample")
    finally:
        process.terminate()
        process.wait(30)
    page.click("[data-save=json]")
    page.wait_for_selector(".error:has-text('The connection to the program that runs this page is lost')", timeout=30_000)
    page.close()


@needs_browser
def test_garbage_then_a_slice(visit):
    page = visit()
    upload(page, "letter.pdf", b"%PDF-1.7")
    page.wait_for_selector(".error:not([hidden])")
    assert page.inner_text(".error").startswith("letter.pdf: The file is a PDF document")
    page.fill(".spacing", "0.7")
    upload(page, "slice.dcm", dicom(WindowCenter=-600, WindowWidth=1500))
    shows(page, "slice")
    assert page.locator(".error").is_hidden() and page.locator("#lu-window option").all_inner_texts()[-1] == "as it came"
    assert "2.50 mm a pixel" in page.inner_text(".name") and "Doe" not in page.content() and "PID4711" not in page.content()


@needs_browser
def test_a_page_that_came_up_empty_is_asked_for_again(browser, address):
    "As when the notebook's output came too late for the server to put it in."
    page, asked = browser.new_page(), []

    def empty_once(route):
        asked.append(route.request.url)
        if len(asked) > 1: return route.continue_()
        answer = route.fetch()
        body = re.sub(r"<script type=.application/vnd.voila.cell-output.json.>.*?</script>", "", answer.text(), flags=re.DOTALL)
        assert body != answer.text() and "jp-CodeCell " in body
        route.fulfill(response=answer, body=body.replace("jp-CodeCell ", "jp-CodeCell jp-mod-noOutputs "))

    page.route(address, empty_once)
    page.goto(address)
    page.wait_for_selector(".lu .choose", timeout=60_000)
    assert len(asked) == 2
    page.close()


@needs_browser
def test_several_files_at_once(visit):
    "Each has its place in the strip, each bad one its sentence; names are shown as text, whatever they hold."
    page = visit()
    good, name = encode(to_png(a_slice().pixels)), "<img src=x onerror=alert(1)>.png"
    files = [("a.png", good), ("bad.png", b""), (name, good), ("worse.png", b"PK"), ("b.png", good)]
    page.set_input_files(".lu .files", [{"name": n, "mimeType": "image/png", "buffer": data} for n, data in files])
    page.wait_for_selector(".lu .strip button >> nth=2")
    page.wait_for_selector(".lu .status", state="hidden")
    assert page.locator(".strip button").count() == 3
    assert page.locator(".error div").all_inner_texts()[0].startswith("bad.png: ") and page.locator(".error div").count() == 2
    assert page.locator(".lu img[src=x]").count() == 0 and "onerror" in page.inner_text(".strip")


@needs_browser
def test_drop_of_a_large_file(visit):
    "Above the 10 MiB at which a server drops a message."
    page = visit()
    page.evaluate("""async () => {
        const data = await (await fetch(URL.createObjectURL(new Blob([new Uint8Array(12 * 1024 * 1024)])))).arrayBuffer();
        const transfer = new DataTransfer();
        transfer.items.add(new File([data], "twelve.png"));
        document.querySelector(".lu").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
    }""")
    page.wait_for_selector(".error:not([hidden])", timeout=30_000)
    assert page.inner_text(".error").startswith("twelve.png: The file is of an unknown kind")


def at_slice(page, name, k):
    page.wait_for_selector(f"figcaption.where:has-text('{name}, slice {k} of ')", timeout=30_000)


def wait_for_ink(page, canvas, pixels=1000):
    "Until so many pixels of a canvas are not black: planes are drawn one after another."
    page.wait_for_function("([name, pixels]) => { const c = document.querySelector(name); return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 < 3 && v > 40).length / 3 > pixels }",
                           arg=[canvas, pixels], timeout=30_000)


def a_study(folder):
    "A zip of a CT of 16 slices, and its files in that folder."
    paths = write_series(phantom_volume(slices=16, spacing=(6.0, 2.8)).scan.pixels, folder, np.array([(0, 0, 2.8, 0), (0, 2.8, 0, 0), (6.0, 0, 0, 0), (0, 0, 0, 1.0)]))
    study = io.BytesIO()
    with zipfile.ZipFile(study, "w") as archive:
        for path in paths: archive.write(path, f"DICOM/{path.name}")
    return study.getvalue(), paths


@needs_browser
def test_a_whole_ct(visit, tmp_path):
    "A zip of a series: three planes, wheel and keys, findings, threshold, files; then its slices chosen together."
    study, paths = a_study(tmp_path)
    expected = Segmenter.load().segment(study)
    page = visit()
    upload(page, "my study.zip", study)
    page.wait_for_selector(".work.volume", timeout=120_000)
    page.wait_for_selector(".lu .status", state="hidden", timeout=30_000)
    first = expected.lesions[0].key_slice + 1
    at_slice(page, "my study", first)
    page.wait_for_selector(f"tbody tr >> nth={len(expected.lesions) - 1}")
    assert page.locator("tbody tr").count() == len(expected.lesions) and page.locator(".plain").is_hidden() and page.locator("[data-tool=add]").is_hidden()
    for canvas in ("canvas.found", "canvas[data-plane=coronal]", "canvas[data-plane=sagittal]"): wait_for_ink(page, canvas)
    page.hover("canvas.found")
    page.mouse.wheel(0, 100)   # towards the feet
    at_slice(page, "my study", first - 1)
    page.focus("canvas.found")
    page.keyboard.press("Home")
    at_slice(page, "my study", 16)
    page.keyboard.press("PageDown")
    at_slice(page, "my study", 6)
    page.keyboard.press("n")
    at_slice(page, "my study", first)
    assert page.locator("tbody tr").first.get_attribute("class").strip() == "on" and page.input_value(".slice") == str(first)
    page.locator("canvas[data-plane=coronal]").click(position={"x": 50, "y": 1})
    at_slice(page, "my study", 16)
    page.locator("tbody tr").first.click()
    at_slice(page, "my study", first)
    page.locator("canvas[data-plane=coronal]").click(position={"x": 5, "y": 40})   # far from it
    for _ in range(5): page.click("[data-zoom=in]")
    page.click("[data-step='1']")
    at_slice(page, "my study", first if len(expected.lesions) == 1 else expected.lesions[1].key_slice + 1)
    page.wait_for_function(f"() => ({ORANGE})(document.querySelector('canvas.found')) > 50")   # in sight however near one looks
    page.click("[data-zoom=fit]")
    page.click("text=strict")
    page.wait_for_selector(".levels button:has-text('strict')[aria-pressed=true]")
    page.wait_for_selector(f".sizes:has-text('was measured at {expected.threshold:.2f}')")   # comes with the table, after the outlines
    page.click("text=balanced")
    page.wait_for_selector(".levels button:has-text('balanced')[aria-pressed=true]")
    with page.expect_download() as download:
        page.click("[data-save=zip]")
    with zipfile.ZipFile(Path(download.value.path())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    assert sorted(files) == ["my study.json", "my study_mask.nii.gz", "my study_overlay.png", "my study_seg.dcm", "my study_sr.dcm"]
    mask = nibabel.Nifti1Image.from_bytes(gzip.decompress(files["my study_mask.nii.gz"])).get_fdata().T > 0
    assert mask.sum() == expected.mask.sum() > 0 and json.loads(files["my study.json"])["lesions"] == expected.to_dict()["lesions"]
    page.set_input_files(".lu .files", paths[4:8])
    page.wait_for_selector("figcaption.where:has-text('IM, slice ')", timeout=120_000)
    assert page.locator(".strip button").count() == 2 and page.locator(".error").is_hidden()
    page.wait_for_selector("tbody tr")
    page.set_viewport_size({"width": 360, "height": 800})
    page.wait_for_function("() => { const box = document.querySelector('.lu .scroll'); return box.scrollWidth === box.clientWidth; }")   # the last button of a row, too


@needs_browser
def test_another_series(visit, tmp_path):
    "Of a study with two series the other one is looked at, by keyboard, and the first is there again when it is asked for."
    study = io.BytesIO()
    with zipfile.ZipFile(study, "w") as archive:
        for name, slices, mm in (("thin", 8, 6.0), ("thick", 4, 12.0)):
            hu = phantom_volume(slices=slices, spacing=(mm, 2.8)).scan.pixels
            for path in write_series(hu, tmp_path / name, np.array([(0, 0, 2.8, 0), (0, 2.8, 0, 0), (mm, 0, 0, 0), (0, 0, 0, 1.0)])): archive.write(path, f"{name}/{path.name}")
    page = visit()
    upload(page, "my study.zip", study.getvalue())
    page.wait_for_selector(".several label:has-text('2 series; shown: axial, 8 slices')", timeout=120_000)
    page.wait_for_selector(".lu .status", state="hidden", timeout=30_000)
    assert page.locator("#lu-series option").all_inner_texts() == ["1: axial, 8 slices", "2: axial, 4 slices"] and page.input_value("#lu-series") == "0"
    page.focus("#lu-series")
    page.keyboard.press("ArrowDown")
    assert page.locator(".lu .status").is_hidden()   # a key chooses, the button acts
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".several label:has-text('2 series; shown: axial, 4 slices')", timeout=120_000)
    page.wait_for_selector("figcaption.where:has-text('my study series 2, slice ')", timeout=30_000)
    page.wait_for_selector(".lu .status", state="hidden", timeout=30_000)
    assert page.locator(".strip button span").all_inner_texts() == ["my study", "my study series 2"] and page.get_attribute(".slice", "max") == "4"
    page.select_option("#lu-series", "0")
    page.click(".look")
    page.wait_for_selector(".several label:has-text('shown: axial, 8 slices')", timeout=30_000)
    assert page.locator(".strip button").count() == 2 and page.locator(".error").is_hidden()
    page.click(".sample")
    shows(page, "sample")
    assert page.locator(".several").is_hidden()


@needs_browser
def test_two_visitors(visit):
    first, second = visit(), visit(1920)
    upload(first, "one.png", encode(to_png(a_slice(5).pixels)))
    upload(second, "two.png", encode(to_png(a_slice(6, 20).pixels)))
    shows(first, "one")
    shows(second, "two")
    assert first.locator(".strip button").count() == second.locator(".strip button").count() == 1
    assert "two" not in first.inner_text(".strip") and "one" not in second.inner_text(".strip")


@needs_browser
def test_in_jupyterlab(browser, tmp_path):
    "The same notebook, in JupyterLab: a picture, then a CT whose slices the wheel turns."
    from lung_unet.widget import free_port

    shutil.copy(Path(__file__).parent.parent / "nbs" / "app.ipynb", tmp_path)
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"]
    process, _ = started(command, r"is running at")
    try:
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"http://127.0.0.1:{port}/lab/tree/app.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell .jp-InputArea-editor", timeout=60_000)
        page.wait_for_selector("text=Python 3 (ipykernel) | Idle", timeout=60_000)
        page.click(".jp-Notebook .jp-CodeCell .jp-InputArea-editor")
        page.keyboard.press("Shift+Enter")
        page.click(".lu .sample", timeout=60_000)
        shows(page, "sample")
        assert rows(page) >= 1
        upload(page, "my study.zip", a_study(tmp_path / "study")[0])
        page.wait_for_selector(".work.volume", timeout=120_000)
        page.wait_for_selector(".lu .status", state="hidden", timeout=30_000)
        for canvas in ("canvas.found", "canvas[data-plane=coronal]", "canvas[data-plane=sagittal]"): wait_for_ink(page, canvas)
        first = int(page.input_value(".slice"))
        page.hover("canvas.found")
        page.mouse.wheel(0, 100)
        at_slice(page, "my study", first - 1)
        page.close()
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load()


@pytest.mark.parametrize("name", BAD)
def test_every_bad_file_is_one_sentence(name, segmenter):
    said = []
    session = Session(segmenter, lambda message, buffers: said.append(message) if message["kind"] != "progress" else None)
    session.handle({"kind": "piece", "name": name, "part": 0, "parts": 1}, [BAD[name]])
    session.wait()
    assert [m["kind"] for m in said] == ["error"]
    assert said[0]["text"].startswith(f"{name}: ") and said[0]["text"].endswith(".") and "could not be handled" not in said[0]["text"]
    session.handle({"kind": "piece", "name": "good.png", "part": 0, "parts": 1}, [encode(window(chest()))])
    assert said[-1]["kind"] == "mask"
