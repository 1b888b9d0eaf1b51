"The package as people install it: a wheel and an editable checkout, each in an environment of its own, used from elsewhere."
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lung_unet

ROOT = Path(__file__).resolve().parent.parent
MODEL = "segmentation_model_unet_final"
TRAVELS = [f"{MODEL}.keras", f"{MODEL}.json", f"{MODEL}.xml", f"{MODEL}.bin", "sample.png", "sample_mask.png", "split.csv", "training_log.csv"]


def run(*command, cwd):
    "Run a command and return what it printed; a failure shows everything it said."
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def settings():
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    "A copy of what a build needs, so that none of its traces are left in the real checkout."
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("settings.ini", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    for name in ("lung_unet", "models"): shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", out, checkout, cwd=out)
    return next(out.glob("*.whl"))


@pytest.fixture(params=["wheel", "editable"])
def installed(request, tmp_path):
    "The bin folder of a fresh environment that holds lung_unet and borrows everything else from this one."
    venv.create(tmp_path / "env", with_pip=False, symlinks=sys.platform != "win32")
    bin = tmp_path / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    site = Path(run(bin / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    what = [request.getfixturevalue("wheel")] if request.param == "wheel" else ["-e", request.getfixturevalue("checkout")]
    run(bin / "python", "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed", *what, cwd=tmp_path)
    home = site if request.param == "wheel" else request.getfixturevalue("checkout")
    return bin, home


def test_bundled_files_are_found_from_elsewhere(installed, tmp_path):
    bin, home = installed
    code = "import lung_unet, sys\nfrom lung_unet.scan import bundled\nprint(lung_unet.__file__)\nfor name in sys.argv[1:]: print(bundled(name))"
    module, *files = map(Path, run(bin / "python", "-c", code, *TRAVELS, cwd=tmp_path).splitlines())
    assert module.is_relative_to(home)
    for name, file in zip(TRAVELS, files, strict=True):
        assert file.name == name and file.is_relative_to(home)
        assert file.read_bytes() == (ROOT / "models" / name).read_bytes()


def test_command_outlines_the_sample_from_elsewhere(installed, tmp_path):
    bin, _ = installed
    run(bin / "lung-unet", "predict", "sample", "--out", "result", cwd=tmp_path)
    assert {p.name for p in (tmp_path / "result").iterdir()} == {"sample_overlay.png", "sample_mask.png", "sample.json"}


def test_wheel_holds_every_module_and_the_model(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    modules = {f"lung_unet/{p.name}" for p in (ROOT / "lung_unet").glob("*.py")}
    models = {f"lung_unet/models/{p.name}" for p in (ROOT / "models").iterdir()}
    assert names == modules | models
    assert {f"lung_unet/models/{name}" for name in TRAVELS} <= names


def test_metadata_comes_from_settings(wheel):
    cfg = settings()
    with zipfile.ZipFile(wheel) as z: meta = Parser().parsestr(z.read(f"lung_unet-{cfg['version']}.dist-info/METADATA").decode())
    assert meta["Name"] == "lung_unet" and meta["Version"] == cfg["version"] == lung_unet.__version__
    assert meta["Requires-Python"] == f">={cfg['min_python']}"
    needs = meta.get_all("Requires-Dist")
    plain = [need for need in needs if "extra ==" not in need]
    assert len(plain) >= 10 and not any(need.startswith(("tensorflow", "keras", "matplotlib")) for need in plain)
    assert any(need.startswith("keras>=3.15.1") for need in needs)
    assert {"dask", "distributed", "pyarrow", "bokeh"} <= {Requirement(need).name for need in needs if 'extra == "screen"' in need}


def test_source_archive_can_be_built_from(checkout, tmp_path):
    run(sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path, cwd=checkout)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive: names = {n.partition("/")[2] for n in archive.getnames()}
    assert {"settings.ini", "setup.py", "README.md", "LICENSE", "lung_unet/scan.py"} <= names
    assert {f"models/{name}" for name in TRAVELS} <= names


def test_constraints_pin_everything_that_is_required():
    cfg = settings()
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pinned = {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}
    for need in map(Requirement, shlex.split(" ".join(cfg[key] for key in ("requirements", "screen_requirements", "dev_requirements")))):
        pin = str(pinned[canonicalize_name(need.name)].specifier)
        assert pin.startswith("==") and need.specifier.contains(pin[2:]), need
