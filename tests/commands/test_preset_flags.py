"""Presets and their parts on the command line. The networks here are tiny: a backbone of its own is registered for these tests."""

import json

import keras
import numpy as np
import pytest
from command_lines import only_line
from PIL import Image

import rw_keras
from rw_keras import backbones
from rw_keras.commands import models, search
from rw_keras.model.photo_regions import PhotoRegions
from rw_keras.model.presets import PRESETS, Preset
from rw_keras.retrieval import Index, Rerank, store
from rw_keras.retrieval.writer import Writer


@pytest.fixture(autouse=True, scope="module")
def tiny_presets():
    """Presets of a network of 12 channels, under the names of those that there are."""

    def network(layer="convolution", weights="imagenet"):
        kernel = keras.initializers.RandomNormal(stddev=0.01, seed=0)
        photos = keras.Input((None, None, 3), name="photos")
        features = keras.layers.Conv2D(12, 8, 8, activation="relu", kernel_initializer=kernel, name="convolution")(photos)
        return keras.Model(photos, features, name="small_network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "small_network", network)
        tiny = {"backbone": "small_network", "max_side": 40}
        patch.setitem(PRESETS, "paper", Preset("paper", "as published", backbone="small_network", shrinkage=0.0, max_side=48))
        best = {"method": "root_rw", "scales": (1, 0.5), "shrinkage": 0.1, "regions": "int8", "rerank": 3}
        patch.setitem(PRESETS, "recommended", Preset("recommended", "the best", **best, **tiny))
        patch.setitem(PRESETS, "small", Preset("small", "little", components=4, dtype="int8", **tiny))
        yield


@pytest.fixture
def photo_folder(tmp_path, draw):
    """Two photos of one size."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, seed in (("a.png", 1), ("b.png", 2)):
        Image.fromarray(draw(seed)).save(folder / name)
    return folder


@pytest.fixture
def made(command, photo_folder, tmp_path):
    """A function (flags) -> the index that `rw-keras index` wrote with them, in the folder `out`."""

    def make(*flags):
        assert command("index", photo_folder, "-o", tmp_path / "out", "-q", "--runtime=tensorflow", *flags) == 0
        return Index.load(tmp_path / "out")

    return make


@pytest.fixture
def no_keras(monkeypatch):
    """From here on a model that is built is an error."""
    monkeypatch.setattr(models, "load_keras_quietly", None)


class TestIndex:
    @pytest.mark.slow
    def test_a_new_one_is_recommended_and_says_so(self, made, capsys, tmp_path):
        index = made()
        assert "rw-keras: the preset is recommended; --preset paper is the publication's own.\n" in capsys.readouterr().err
        about = store.about(tmp_path / "out")
        assert (about["preset"], about["search"]["rerank"]) == ("recommended", 3)
        assert about["regions"] == {"dtype": "int8", "dimensions": 12}
        assert (index.recipe["method"], index.recipe["scales"], index.recipe["max_side"]) == ("root_rw", [1.0, 0.5], 40)

    def test_paper(self, made, capsys, tmp_path):
        index = made("--preset", "paper")
        assert "the preset is" not in capsys.readouterr().err
        about = store.about(tmp_path / "out")
        assert (about["preset"], about.get("regions"), about["dtype"]) == ("paper", None, "float32")
        assert (index.recipe["method"], index.recipe.get("scales"), index.recipe["max_side"]) == ("rw", None, 48)

    @pytest.mark.slow
    def test_parts_replace_those_of_the_preset(self, made, capsys, tmp_path):
        flags = ("--method=rmac", "--levels=2", "--scales=1", "--max_side=44", "--dtype=float16", "--region_components=5")
        index = made(*flags)
        assert "the preset is recommended, but method rmac, levels 2, scales None; --preset paper" in capsys.readouterr().err
        assert (index.recipe["method"], index.recipe["levels"], index.recipe.get("scales")) == ("rmac", 2, None)
        about = store.about(tmp_path / "out")
        assert (about["recipe"]["max_side"], about["dtype"], about["regions"]["dimensions"]) == (44, "float16", 5)
        made(*flags)  # the same again is an update

    @pytest.mark.slow
    def test_without_regions(self, made, tmp_path):
        made("--regions", "none")
        about = store.about(tmp_path / "out")
        assert (about.get("regions"), about["search"]["rerank"]) == (None, None)

    @pytest.mark.slow
    def test_whitened_sums_have_no_regions(self, made, tmp_path):
        made("--whiten_on", "global")
        assert store.about(tmp_path / "out").get("regions") is None

    @pytest.mark.slow
    def test_regions_of_another_preset(self, made, tmp_path):
        made("--preset=paper", "--regions=float16")
        assert store.about(tmp_path / "out")["regions"] == {"dtype": "float16", "dimensions": 12}

    def test_an_update_takes_all_from_the_index(self, made, capsys, tmp_path):
        before = made("--preset=paper", "--method=rmac").recipe
        capsys.readouterr()
        assert made().recipe == before
        assert "the preset is" not in capsys.readouterr().err
        assert store.about(tmp_path / "out")["preset"] == "paper, but method rmac"

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--preset=paper"], "has preset recommended, and you asked for --preset paper"),
            (["--method=rw"], "has method root_rw, and you asked for --method rw"),
            (["--scales=1"], "has scales 1,0.5, and you asked for --scales none"),
            (["--regions=none"], "has regions int8, and you asked for --regions none"),
            (["--region_components=4"], "has region_components 12, and you asked for --region_components 4"),
        ],
        ids=str,
    )
    def test_what_contradicts_an_index_is_refused(self, command, capsys, photo_folder, tmp_path, no_keras, flags, words):
        recipe = {"backbone": "small_network", "method": "root_rw", "levels": 3, "scales": [1.0, 0.5], "max_side": 40}
        with Writer(tmp_path / "out", recipe, 12, regions={"dtype": "int8", "dimensions": 12}) as writer:
            writer.set("preset", "recommended")
            writer.finish()
        assert command("index", photo_folder, "-o", tmp_path / "out", *flags) == 1
        only_line(capsys, words, "--force")

    @pytest.mark.slow
    def test_force_with_another_part_keeps_the_others(self, made):
        made("--preset=paper", "--levels=2")
        index = made("--force", "--method=rmac")
        assert (index.recipe["method"], index.recipe["levels"], index.recipe.get("scales")) == ("rmac", 2, None)
        assert index.recipe["max_side"] == 48

    @pytest.mark.slow
    def test_force_with_another_preset_is_that_preset(self, made, tmp_path):
        made("--preset=paper", "--levels=2", "--max_side=44")
        index = made("--force", "--preset=recommended")
        assert (index.recipe["levels"], index.recipe["method"], index.recipe["max_side"]) == (3, "root_rw", 40)
        assert store.about(tmp_path / "out")["regions"]["dtype"] == "int8"


class TestRefused:
    @pytest.mark.parametrize(
        ("flags", "code", "words"),
        [
            (["--preset=papre"], 2, "<paper|recommended|fast|small>"),
            (["--whitening=none", "--shrinkage=0.2"], 2, "--shrinkage 0.2 is of a whitening"),
            (["--whitening=none", "--components=3"], 2, "--components 3 is of a whitening"),
            (["--regions=none", "--region_components=3"], 2, "--region_components 3 does not go with --regions none"),
            (["--regions=int4"], 2, "<int8|float16>, or none"),
        ],
        ids=str,
    )
    def test_before_a_network_is_built(self, command, capsys, photo_folder, tmp_path, no_keras, flags, code, words):
        assert command("index", photo_folder, "-o", tmp_path / "out", *flags) == code
        only_line(capsys, words)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (["--method=crow", "--levels=2"], "--levels 2 does not go with the method crow"),
            (["--preset=small", "--whitening=none"], "--whitening none does not go with the preset small, which keeps the 4"),
            (["--method=rww"], "There is no method 'rww'; choose one of rw,"),
        ],
        ids=str,
    )
    def test_before_photos_are_read(self, command, capsys, photo_folder, tmp_path, flags, words):
        assert command("index", photo_folder, "-o", tmp_path / "out", *flags) != 0
        only_line(capsys, words)
        assert not (tmp_path / "out").exists()

    def test_components_without_a_whitening_that_fits(self, command, capsys, photo_folder, tmp_path):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--preset=small") == 1
        assert "there are no 4 strongest components to keep" in capsys.readouterr().err

    def test_regions_where_their_sum_is_whitened(self, command, capsys, photo_folder, tmp_path):
        assert command("index", photo_folder, "-o", tmp_path / "out", "--whiten_on=global", "--regions=int8") == 1
        assert "whiten_on" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


class TestSearch:
    @pytest.mark.parametrize(
        ("flags", "asked"),
        [
            ([], (5, {"alpha": 1.0})),
            (["--rerank=2", "--expand=3"], (3, {"rerank": Rerank(2, 9), "alpha": 0.0})),
            (["--smooth=none"], (5, {"rerank": Rerank(3), "alpha": 1.0})),
            (["--rerank=2", "--smooth=4"], (5, {"rerank": Rerank(2, 4), "alpha": 1.0})),
            (["--rerank=none", "--expand=1"], (1, {"rerank": None, "alpha": 0.0})),
            (["--expand=1"], (1, {"alpha": 0.0})),
            (["--orientations=4"], (5, {"alpha": 1.0, "orientations": 4})),
        ],
        ids=str,
    )
    def test_as_the_index_is_made_for_or_as_it_is_told(self, command, capsys, photo_folder, tmp_path, monkeypatch, flags, asked):
        """How many are re-ranked without a flag, `Index.search_photo` knows itself."""
        with Writer(tmp_path / "out", {"max_side": 40}, 12, regions={"dtype": "int8", "dimensions": 12}) as writer:
            writer.set("search", {"rerank": 3, "smooth": 9, "expand": 5, "alpha": 1.0})
            writer.put(["a"], np.ones((1, 12)), [None], [True], regions=[PhotoRegions(np.eye(2, 12), np.zeros((2, 4)))])
            writer.finish()
        calls = []

        def search_photo(self, model, photo, box, k, expand, **options):
            asked = {flag: options[flag] for flag in ("rerank", "alpha", "orientations") if flag in options}
            calls.append((expand, {flag: value for flag, value in asked.items() if (flag, value) != ("orientations", 1)}))
            return [("a", 0.5)]

        monkeypatch.setattr(Index, "search_photo", search_photo)
        monkeypatch.setattr(search, "describer_of", lambda recipe, values: None)
        assert command("search", tmp_path / "out", photo_folder / "b.png", "--runtime=tensorflow", *flags) == 0
        assert calls == [asked]
        measure = "score" if flags == ["--expand=1"] else "cosine"
        assert capsys.readouterr().out == f"rank  {measure:>6s}  photo\n   1   0.500  a\n"
        page, own = tmp_path / "page.html", [f"--html={tmp_path / 'page.html'}", "--json"]
        assert command("search", tmp_path / "out", photo_folder / "b.png", "--runtime=tensorflow", *own, *flags) == 0
        assert json.loads(capsys.readouterr().out) == [{"rank": 1, "name": "a", measure: 0.5}]
        assert f"<span>{measure}</span>" in page.read_text()
        assert ("orientations" in page.read_text()) == (flags == ["--orientations=4"])

    def test_three_orientations(self, command, capsys, photo_folder, tmp_path):
        assert command("search", tmp_path / "out", photo_folder / "b.png", "--orientations=3") == 2
        only_line(capsys, "flag --orientations=3: value should be one of <1|4>")

    def test_nothing_to_smooth(self, command, capsys, photo_folder, tmp_path):
        rw_keras.retrieval.Index(["a"], [[1.0, 0.0]], recipe={"backbone": "vgg16"}).save(tmp_path / "out")
        assert command("search", tmp_path / "out", photo_folder / "b.png", "--smooth=9") == 2
        only_line(capsys, "--smooth 9 averages the scores of re-ranked photos", "give --rerank a number")

    @pytest.mark.slow
    def test_by_regions(self, made, command, capsys, photo_folder, tmp_path):
        made()
        capsys.readouterr()
        assert command("search", tmp_path / "out", photo_folder / "b.png", "--runtime=tensorflow", "--json") == 0
        assert json.loads(capsys.readouterr().out)[0]["name"] == "b.png"

    def test_reranking_without_regions_is_refused(self, command, capsys, photo_folder, tmp_path, no_keras):
        rw_keras.retrieval.Index(["a"], [[1.0, 0.0]], recipe={"backbone": "vgg16"}).save(tmp_path / "out")
        assert command("search", tmp_path / "out", photo_folder / "b.png", "--rerank=5") == 1
        only_line(capsys, "keeps no vectors of regions, and you asked for --rerank 5", "--regions int8 and --force")


class TestPresets:
    def test_lists_them(self, command, capsys):
        assert command("presets") == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "paper         as published"
        assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(PRESETS)
        assert command("presets", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert [Preset.from_dict(one) for one in found] == list(PRESETS.values())


class TestNetworks:
    def test_lists_them(self, command, capsys):
        assert command("networks", "vgg*") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == ["name", "vgg16", "vgg19"]
        assert command("networks", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found == [network.to_dict() for network in backbones.list()]

    def test_none_is_like_it(self, command, capsys):
        assert command("networks", "vgg20") == 1
        only_line(capsys, "no network like 'vgg20'")
        assert command("networks", "vgg16", "vgg19") == 2
        only_line(capsys, "one PATTERN, but got 2")
