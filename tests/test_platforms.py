"""What breaks on another system: encodings, odd paths, a home that cannot be written to, and the versions of Python."""
import ast
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from made import encode, window

from lung_unet.cli import main
from lung_unet.results import safe_name
from lung_unet.scan import bundled

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [*ROOT.glob("lung_unet/*.py"), *ROOT.glob("tests/*.py"), *ROOT.glob("docs/*.py"), ROOT / "setup.py", ROOT / "nbs" / "conftest.py"]
TEXT = {"read_text": 0, "write_text": 1, "open": 1}   # function -> the place before which the text or mode stands


def unnamed(source):
    "Lines that open a text file without naming its encoding, whatever the system's own may be."
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call): continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name not in TEXT or any(word.arg == "encoding" for word in node.keywords): continue
        if name == "open":
            of = getattr(getattr(node.func, "value", None), "id", "")
            modes = [a.value for a in node.args if isinstance(a, ast.Constant) and re.fullmatch(r"[rwxab+t]+", str(a.value))]
            if of in ("Image", "z", "webbrowser", "tarfile", "os", "zipfile") or any("b" in mode for mode in modes): continue
        found.append(node.lineno)
    return found


def test_every_text_file_names_its_encoding():
    assert unnamed("open('x')\nopen('x', 'rb')\np.read_text()\np.write_text('a', encoding='utf-8')\nImage.open('x')") == [1, 3]
    found = {f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in unnamed(path.read_text(encoding="utf-8"))}
    assert found == set()


def test_no_line_endings_but_one():
    assert not [path.name for path in SOURCES if b"\r" in path.read_bytes()]


ODD = ["with space", "Größe 肺 🫁", "o'clock \"quoted\" $HOME %PATH% & more", "-leading", "dots...", "a" * 100, ".hidden"]


@pytest.mark.parametrize("name", ODD)
def test_odd_paths(name, tmp_path, capsys):
    "As a folder of the input, as its name, as the folder of the results, and as the place of the model."
    folder = tmp_path / name
    folder.mkdir()
    (folder / f"{name}.png").write_bytes(encode(window()))
    for end in (".keras", ".json", ".xml", ".bin"): (folder / f"m{end}").write_bytes(bundled(f"segmentation_model_unet_final{end}").read_bytes())
    assert main(["predict", str(folder / f"{name}.png"), "--out", str(folder / "out" / name), "--model", str(folder / "m.keras")]) == 0
    assert capsys.readouterr().err == ""
    stem = safe_name(name)
    assert sorted(p.name for p in (folder / "out" / name).iterdir()) == sorted(f"{stem}{end}" for end in ("_overlay.png", "_mask.png", ".json"))


def test_a_long_path(tmp_path):
    folder = tmp_path
    while len(str(folder)) < 1000: folder = folder / ("d" * 100)
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(encode(window()))
    assert main(["predict", str(folder / "a.png"), "--out", str(folder / "out")]) == 0


def test_names_that_windows_refuses():
    for name in ["CON", "nul.png", "a:b", "a?b", "trailing.", "trailing ", "tab\t", "LPT1", "<>|\"*"]:
        safe = safe_name(name)
        assert not re.search(r'[<>:"/\\|?*\x00-\x1f]', safe) and safe == safe.strip(" .") and safe.split(".")[0].upper() not in {"CON", "NUL", "LPT1"}


def test_a_read_only_input_is_left_as_it_was(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(window()))
    path.chmod(0o400)
    before = path.stat().st_mtime_ns, path.read_bytes()
    assert main(["predict", str(path), "--out", str(tmp_path / "out")]) == 0
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


def test_the_python_in_the_metadata_is_the_one_tested():
    "One version is promised, in the metadata and wherever people read it; the tests run on it."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    least = config["DEFAULT"]["min_python"]
    assert sys.version_info[:2] >= tuple(map(int, least.split(".")))
    said = {name: re.findall(r"[Pp]ython[ :=-]{1,2}v?(3\.\d+)", (ROOT / name).read_text(encoding="utf-8")) for name in ("README.md", "constraints.txt", "Dockerfile", "environment.yml")}
    assert all(versions and set(versions) == {least} for versions in said.values()), said
