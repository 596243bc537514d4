import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from command_lines import NAMES, only_line
from retrieval.small_stores import DIMENSIONS, write_old

from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.retrieval import Index
from rw_keras.retrieval.writer import Writer

RECIPE = {
    "backbone": "vgg16",
    "layer": "block5_conv3",
    "method": "rw",
    "levels": 3,
    "min_side": 16,
    "weights": "0" * 64,
    "whitening": {"name": "paris6k", "photos": 322, "regions": 6780, "max_side": 512, "components": 12, "shrinkage": 0.2},
    "scales": [1.0, 0.5],
    "max_side": 800,
}


@pytest.fixture
def made(tmp_path):
    """The folder of an index that has something of everything."""
    folder = tmp_path / "made"
    stamp = [1, 2]
    with Writer(folder, RECIPE, 12, dtype="float16") as writer:
        writer.put([f"photo {number}" for number in range(1200)], np.eye(1200, 12) + 1, [stamp] * 1200, [True] * 1200)
        writer.put(["added"], np.ones((1, 12)), [None], [False])
        writer.mark("photo 3", "it was away")
        writer.fail("text.jpg", "no photo", stamp, True)
        writer.set("described_with", [{"engine": "ncnn", "precision": "fast", "computes_in": "bfloat16"}])
        writer.set("versions", {"rw_keras": "0.1.0", "numpy": "2.0"})
        writer.set("source", "/home/me/\x1b photos")
        writer.set("settings", {"weights": "/home/me/weights.npz"})
        writer.exclude(["deleted 1", "deleted 2"])
        writer.update_metadata({"city": {"photo 1": "Oxford", "photo 2": "Paris"}})
        writer.finish()
    return folder


def test_words(command, capsys, made):
    assert command("info", made) == 0
    out, err = capsys.readouterr()
    assert err == ""
    size = round(pathlib.Path(made / "index.sqlite").stat().st_size / 1000)
    rows = round(sum(path.stat().st_size for path in made.glob("rows-*")) / 1000)
    assert out.splitlines() == [
        str(made),
        "  photos        1,201",
        "  left out      1, which cannot be read",
        "  unread        1 of the photos, which could not be read the last time; their descriptors were kept",
        "  added by hand 1 of the photos, which are not from the source",
        "  excluded      2 names, which updates leave out; `rw-keras index --take_back NAME` takes one back",
        "  descriptors   12 dimensions, float16",
        "  regions       none are kept",
        "  network       vgg16, layer block5_conv3",
        "  method        rw, levels 3",
        "  whitening     of regions, 12 components, shrinkage 0.2",
        "    learned on  paris6k (322 photos, 6780 regions, max_side 512)",
        "  scales        1, 0.5",
        "  max_side      800 pixels",
        "  described by  ncnn in bfloat16, precision fast",
        "  versions      rw_keras 0.1.0, numpy 2.0",
        "  source        /home/me/\\x1b photos",
        "  weights       /home/me/weights.npz",
        "  metadata      city (of 2 photos)",
        f"  on disk       rows {rows} kB, database {size} kB",
        "  format        5",
    ]
    assert max(map(len, out.splitlines()[1:])) <= 100


def test_json(command, capsys, made):
    assert command("info", "--json", made) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["index"], found["photos"], found["left_out"], found["unread"], found["added_by_hand"]) == (
        str(made),
        1201,
        1,
        1,
        1,
    )
    assert (found["recipe"], found["dimensions"], found["dtype"], found["format"]) == (RECIPE, 12, "float16", 5)
    assert found["metadata"] == {"city": 2}
    assert found["settings"] == {"weights": "/home/me/weights.npz"}
    assert found["bytes"]["rows"] == sum(path.stat().st_size for path in made.glob("rows-*"))


def test_preset_regions_and_searches(command, capsys, tmp_path):
    regions = {"dtype": "int8", "dimensions": 12}
    with Writer(tmp_path / "made", RECIPE, 12, regions=regions) as writer:
        writer.put(
            ["a"], np.ones((1, 12)), [None], [True], regions=[PhotoRegions(np.eye(2, 12, dtype="float32"), np.zeros((2, 4)))]
        )
        writer.set("preset", "recommended, but scales 1,0.5")
        writer.set("search", {"rerank": 400, "expand": 5, "alpha": 1.0})
        writer.finish()
    assert command("info", tmp_path / "made") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  regions       vectors of 12 dimensions, int8" in lines
    assert "  preset        recommended, but scales 1,0.5" in lines
    assert "  searched      the best 400 in order by their regions; expanded over 5 photos, alpha 1" in lines
    assert command("info", tmp_path / "made", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["preset"], found["regions"]) == ("recommended, but scales 1,0.5", regions)
    assert found["search"] == {"rerank": 400, "expand": 5, "alpha": 1.0}


def test_what_a_command_made(command, capsys, model_file, photo_folder, tmp_path):
    (photo_folder / "text.jpg").write_text("no photo")
    assert command("index", photo_folder, "-o", tmp_path / "out", "--model", model_file, "-q", "--runtime=tensorflow") == 3
    capsys.readouterr()
    assert command("info", tmp_path / "out") == 0
    out = capsys.readouterr().out
    for line in (
        f"  photos        {len(NAMES)}",
        "  left out      1, which cannot be read",
        "  whitening     none",
        "  scales        1",
        "  max_side      1024 pixels",
        "  described by  tensorflow in float32, precision exact",
        f"  source        {photo_folder}",
        f"  model         {model_file}",
    ):
        assert line in out.splitlines()


def test_an_index_that_does_not_say_what_made_it(command, capsys, tmp_path):
    Index(["a"], [[1.0]]).save(tmp_path / "plain")
    assert command("info", tmp_path / "plain") == 0
    assert "  recipe        not known\n" in capsys.readouterr().out


def test_whitened_global_vectors(command, capsys, tmp_path):
    whitening = {"name": "set", "photos": 3, "vectors": 3, "shrinkage": 0.0}
    recipe = {**RECIPE, "whiten": "global", "whitening": whitening, "max_side": None}
    Index(["a"], [[1.0]], recipe=recipe).save(tmp_path / "index")
    assert command("info", tmp_path / "index") == 0
    out = capsys.readouterr().out
    assert "  whitening     of global vectors, shrinkage 0\n    learned on  set (3 photos, 3 vectors)\n" in out
    assert "  max_side      photos at their own size\n" in out


@pytest.mark.parametrize(
    "recipe",
    [{**RECIPE, "whitening": "x"}, {**RECIPE, "scales": 3}, {**RECIPE, "max_side": "big"}],
    ids=["whitening", "scales", "side"],
)
@pytest.mark.parametrize("flag", [[], ["--json"]], ids=str)
def test_a_damaged_recipe(command, capsys, tmp_path, recipe, flag):
    Index(["a"], [[1.0]], recipe=recipe).save(tmp_path / "index")
    assert command("info", tmp_path / "index", *flag) == 1
    only_line(capsys, tmp_path / "index", "is damaged", "make it again")


def test_no_index(command, capsys, tmp_path):
    assert command("info", tmp_path) == 1
    only_line(capsys, tmp_path, "rw-keras index")
    for arguments in ([], ["one", "two"]):
        assert command("info", *arguments) == 2
        only_line(capsys, "info takes one index, NAME", f"{len(arguments)} arguments")


def test_a_damaged_database(command, capsys, made):
    (made / "index.sqlite").write_bytes(b"no database" * 1000)
    assert command("info", made) == 1
    only_line(capsys, made, "index.sqlite", "make the index again")


def test_loads_no_tensorflow(made):
    script = (
        "import sys\nfrom rw_keras.commands.main import run\nassert run(['info', sys.argv[1]]) == 0\n"
        "assert not {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script, str(made)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("version", [1, 2])
def test_an_earlier_format(command, capsys, tmp_path, version):
    photos = {f"photo {number}": ([9, number], np.eye(5, DIMENSIONS)[number]) for number in range(5)}
    write_old(tmp_path / "old", {**photos, "empty": ([0, 1], "empty")} if version == 2 else photos, version)
    before = sorted(tmp_path.rglob("*"))
    assert command("info", tmp_path / "old") == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"  photos        5", f"  descriptors   {DIMENSIONS} dimensions, float32", f"  format        {version}"} <= set(lines)
    assert ("  metadata      length (of 5 photos), even (of 5 photos)" in lines) == (version == 2)
    assert sorted(tmp_path.rglob("*")) == before
