"""The whole road through the command line, on phantoms: pairs on disk, a model, its scores, an outline."""
import json

from lung_unet.cli import main
from lung_unet.phantom import write_pairs

RECIPE = {"width": 4, "depth": 2, "max_width": 16, "size": 64, "count": 2, "steps": 8, "warmup": 2, "validate_every": 4, "checkpoint_every": 4, "precision": "float32"}


def test_from_pairs_to_an_outline(tmp_path, capsys):
    data, run = write_pairs(tmp_path / "data", patients=12, slices=1, size=96, spacing=3.7), tmp_path / "run"
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE), encoding="utf-8")

    def lung_unet(*words):
        code = main([str(word) for word in words])
        return code, capsys.readouterr().out

    train = ("train", data, "--out", run, "--recipe", tmp_path / "recipe.json")
    code, said = lung_unet(*train)
    assert code == 0 and "12 pairs of 12 known patients" in said and "validation patients" in said
    log = (run / "log.csv").read_text(encoding="utf-8")
    assert len(log.splitlines()) == 3
    assert lung_unet(*train)[0] == 0 and (run / "log.csv").read_text(encoding="utf-8") == log      # complete: nothing is done again
    parts = dict(line.split(",") for line in (run / "split.csv").read_text(encoding="utf-8").splitlines()[1:])
    assert set(parts.values()) == {"train", "val", "test"} and len(parts) == 12
    code, said = lung_unet("evaluate", data, "--model", run / "best.keras", "--out", tmp_path / "scores")
    assert code == 0 and "left out" in said
    patients = (tmp_path / "scores" / "patients.csv").read_text(encoding="utf-8")
    assert all((patient in patients) == (part == "test") for patient, part in parts.items())
    assert lung_unet("predict", data / "images" / "0000.png", "--model", run / "best.keras", "--out", tmp_path / "result")[0] == 0
    report = json.loads((tmp_path / "result" / "0000.json").read_text(encoding="utf-8"))
    assert report["threshold"] == json.loads((run / "best.json").read_text(encoding="utf-8"))["threshold"] and report["model"].startswith("best ")
    new = write_pairs(tmp_path / "new", patients=6, slices=1, size=96, spacing=3.7, seed=12)
    assert lung_unet("train", new, "--out", tmp_path / "tuned", "--recipe", tmp_path / "recipe.json", "--init", run / "best.keras")[0] == 0
    assert (tmp_path / "tuned" / "best.xml").exists()
    code, said = lung_unet("evaluate", data, "--model", tmp_path / "tuned" / "best.keras", "--out", tmp_path / "again")   # it has learned from the patients of both
    assert code == 0 and f"left out: {sum(part != 'test' for part in parts.values())} pairs" in said
