import dataclasses

import keras
import numpy as np
import pytest

import rw_keras
from rw_keras import runtimes
from rw_keras.model import presets
from rw_keras.model.build import from_recipe, load_descriptor
from rw_keras.model.presets import PRESETS, Preset
from rw_keras.model.recipe import whitening_layer


@pytest.fixture(name="mine")
def own_preset():
    """A preset that every part of differs from what `build_descriptor` does by default."""
    return Preset(
        "mine",
        method="rmac",
        levels=2,
        scales=(1, 0.5),
        shrinkage=0.3,
        components=5,
        whitening=None,
        max_side=40,
        dtype="int8",
        regions="int8",
        rerank=7,
    )


class TestTable:
    def test_paper_is_what_comes_without_arguments(self):
        model = rw_keras.build_descriptor(weights=None, whitening="auto")
        assert model.preset is PRESETS["paper"]
        same = rw_keras.build_descriptor(weights=None, preset="paper")
        assert same.preset is PRESETS["paper"]
        assert same.name == model.name
        made = {**model.recipe, "weights": None}
        assert {**same.recipe, "weights": None} == made
        assert "scales" not in made and "whiten" not in made

    @pytest.mark.slow
    def test_each_is_built(self):
        for name, preset in PRESETS.items():
            model = rw_keras.build_descriptor(weights=None, preset=name, whitening=None)
            made = model.recipe
            assert (made.backbone, made.method, made.levels) == (preset.backbone, preset.method, preset.levels)
            assert (made.scales, made.whiten_on) == (preset.scales, preset.whiten_on)
            assert whitening_layer(model).components == preset.components
            assert whitening_layer(model).shrinkage == preset.shrinkage
            assert model.preset == (preset.but(whitening=None))

    def test_says_each_in_a_line(self):
        assert all(preset.words and "\n" not in preset.words for preset in PRESETS.values())
        assert list(PRESETS) == [preset.name for preset in PRESETS.values()]


class TestBuildDescriptor:
    def test_takes_every_part_from_it(self, mine, tiny_model):
        model = tiny_model(preset=mine)
        made = model.recipe
        assert (made.method, made.levels, made.scales) == ("rmac", 2, (1.0, 0.5))
        assert (whitening_layer(model).shrinkage, model.output_shape[-1]) == (0.3, 5)
        assert model.preset.max_side == 40

    def test_what_is_given_replaces_a_part(self, mine, tiny_model):
        # What is given may be the default of `build_descriptor` itself.
        model = tiny_model(preset=mine, levels=3, method="rw", components=None, scales=None, shrinkage=0.0)
        assert (model.recipe.method, model.recipe.levels, model.recipe.scales, model.output_shape[-1]) == ("rw", 3, None, 12)
        assert whitening_layer(model).shrinkage == 0.0
        assert model.preset.name.startswith("mine, but backbone tiny ")
        assert model.preset.name.endswith(", method rw, levels 3, scales None, components None, shrinkage 0.0")
        assert (model.preset.max_side, model.preset.rerank) == (40, 7)

    def test_one_that_there_is_not_is_refused(self):
        with pytest.raises(ValueError, match=r"There is no preset 'papre'; choose one of paper, recommended, fast, small."):
            rw_keras.build_descriptor(preset="papre")

    def test_scales_without_a_preset(self, tiny_model, draw):
        model, expected = tiny_model(scales=(1, 0.5), name="two"), rw_keras.multi_scale(tiny_model(), (1, 0.5))
        photo = draw(0)[None].astype("float32")
        np.testing.assert_array_equal(model(photo), expected(photo))
        assert (model.name, model.recipe) == ("two", expected.recipe)

    def test_scales_out_of_range_are_refused_before_a_network_is_built(self):
        with pytest.raises(ValueError, match="all different"):
            rw_keras.build_descriptor(weights="no file", scales=(1, 1))

    def test_a_model_that_is_no_presets_has_none(self, tiny_model):
        assert tiny_model().preset is None
        assert rw_keras.build_descriptor(weights=None, whitening=None).preset is None

    def test_no_regions_where_their_sum_is_whitened(self, mine, tiny_model):
        preset = tiny_model(preset=mine, whiten_on="global").preset
        assert (preset.regions, preset.region_components, preset.rerank) == (None, None, None)

    @pytest.mark.slow
    def test_shrinkage_is_what_the_whitening_recommends(self, tiny_model, photo_folder, tmp_path):
        for method in ("rmac", "root_rw", "rw"):
            model = tiny_model(method=method)
            learned = rw_keras.fit_whitening(model, photo_folder, progress=False)
            learned.provenance["recommended_shrinkage"] = 0.15
            learned.save(tmp_path / f"{method}.npz")
            recommended = tiny_model(method=method, whitening=tmp_path / f"{method}.npz")
            assert whitening_layer(recommended).shrinkage == (0.0 if method == "rw" else 0.15)
            given = tiny_model(method=method, whitening=tmp_path / f"{method}.npz", shrinkage=0.4)
            assert whitening_layer(given).shrinkage == 0.4
            assert given.recipe["whitening"]["shrinkage"] == 0.4

    def test_recommended_shrinkage_is_computed_with_and_saved(self, tiny_model, photo_folder, draw, tmp_path):
        model = tiny_model(method="rmac")
        learned = rw_keras.fit_whitening(model, photo_folder, progress=False)
        learned.provenance["recommended_shrinkage"] = 0.15
        learned.save(tmp_path / "learned.npz")
        one = tiny_model(method="rmac", whitening=tmp_path / "learned.npz")
        two = tiny_model(method="rmac", whitening=tmp_path / "learned.npz", shrinkage=0.15)
        photo = draw(3)[None].astype("float32")
        np.testing.assert_array_equal(one(photo), two(photo))
        assert np.abs(np.asarray(one(photo)) - np.asarray(model(photo))).max() > 1e-3
        one.save(tmp_path / "model.keras")
        assert rw_keras.load_model(tmp_path / "model.keras").recipe == two.recipe


class TestModelRemembers:
    def test_in_a_file(self, mine, tiny_model, tmp_path):
        model = tiny_model(preset=mine)
        model.save(tmp_path / "model.keras")
        loaded = load_descriptor(tmp_path / "model.keras")
        assert loaded.preset == model.preset
        assert loaded.inner.preset == model.inner.preset

    def test_a_model_without_one(self, tiny_model, tmp_path):
        tiny_model().save(tmp_path / "model.keras")
        assert load_descriptor(tmp_path / "model.keras").preset is None

    def test_through_multi_scale(self, mine, tiny_model):
        model = tiny_model(preset=mine, scales=None)
        several = rw_keras.multi_scale(model, (1, 0.5))
        assert several.preset == dataclasses.replace(model.preset, scales=(1.0, 0.5), name=several.preset.name)
        assert several.preset.name == f"{model.preset.name}, scales 1,0.5"

    @pytest.mark.slow
    def test_through_an_indexs_recipe(self):
        model = rw_keras.build_descriptor(weights=None, preset="small", whitening=None, scales=(1, 0.5), components=None)
        again = from_recipe(model.recipe.at(640), weights=None, preset=model.preset.name)
        # What has learned nothing has no shrinkage in its recipe.
        assert again.preset == PRESETS["small"].but(**{**model.preset.parts, "shrinkage": 0.0})
        assert from_recipe(model.recipe, weights=None).preset is None
        assert from_recipe(model.recipe, weights=None, preset="of a later version").preset is None

    def test_on_a_runtime(self, mine, tiny_model):
        model = tiny_model(preset=mine)
        assert runtimes.load(model, "tensorflow").preset == model.preset

    @pytest.mark.parametrize("preset", [3, {"nam": "x"}, {"name": "x", "dtype": "int4"}, {"name": "x", "rerank": 5}])
    def test_another_kind_is_refused(self, tiny_model, preset):
        config = {**tiny_model().get_config(), "preset": preset}
        with pytest.raises(ValueError, match="preset"):
            type(tiny_model()).from_config(config)


class TestDefaults:
    @pytest.mark.slow
    def test_of_an_index(self, mine, tiny_model, photo_folder, tmp_path):
        model = tiny_model(preset=mine)
        rw_keras.extract(model, photo_folder, tmp_path / "index", runtime="tensorflow", progress=False)
        about = rw_keras.retrieval.store.about(tmp_path / "index")
        assert (about["recipe"]["max_side"], about["dtype"]) == (40, "int8")
        rw_keras.extract(
            model, photo_folder, tmp_path / "other", max_side=32, dtype="float16", runtime="tensorflow", progress=False
        )
        about = rw_keras.retrieval.store.about(tmp_path / "other")
        assert (about["recipe"]["max_side"], about["dtype"]) == (32, "float16")
        rw_keras.extract(model, photo_folder, tmp_path / "other", runtime="tensorflow", progress=False)  # as it was made
        assert (
            rw_keras.retrieval.Index.from_folder(model, photo_folder, runtime="tensorflow", progress=False).recipe["max_side"] == 40
        )

    def test_of_a_descriptor(self, mine, tiny_model, draw):
        model = tiny_model(preset=mine)
        photo = draw(0, 96, 64)
        for one in (model, runtimes.load(model, "tensorflow")):
            found = rw_keras.describe(one, photo)
            assert found.recipe.max_side == 40
            np.testing.assert_array_equal(found, rw_keras.describe(one, photo, max_side=40))

    def test_max_side(self, mine, tiny_model):
        model = tiny_model(preset=mine)
        assert presets.default_max_side(model) == 40
        model.note_max_side(None)
        assert presets.default_max_side(model) is None
        assert presets.default_max_side(tiny_model()) == 1024
        assert presets.default_max_side(keras.Sequential()) == 1024

    def test_of_a_search(self, mine):
        assert mine.search == {"rerank": 7, "smooth": None, "expand": None, "alpha": 0.0}
