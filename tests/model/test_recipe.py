"""The recipe: its dictionaries, what differs, and the model that is built of one."""

import dataclasses
import json
import pickle
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

import rw_keras
from rw_keras.model.build import from_recipe
from rw_keras.model.recipe import UNSET, Recipe, recipe, with_runtime

FULL = {
    "backbone": "vgg16",
    "layer": "block5_conv3",
    "method": "rw",
    "levels": 3,
    "min_side": 16,
    "whitening": {"name": "paris6k", "photos": 9, "components": None, "shrinkage": 0.2, "digest": "ab"},
    "whiten": "global",
    "scales": [1.0, 0.5],
    "weights": "0" * 64,
    "max_side": 256,
}

texts = strategies.text(max_size=5)
counts = strategies.integers(1, 9)
kept = strategies.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("backbone", "layer", "method", "weights"), texts),
        "levels": strategies.none() | counts,
        "min_side": counts,
        "whitening": strategies.none()
        | strategies.dictionaries(strategies.sampled_from(["name", "digest", "photos"]), texts, min_size=1),
        "whiten": strategies.just("global"),
        "scales": strategies.lists(strategies.floats(0.1, 2), min_size=1, max_size=3),
        "max_side": strategies.none() | counts,
        "of a later version": texts,
    },
)


class TestDictionary:
    @hypothesis.given(kept)
    def test_there_and_back(self, made):
        found = Recipe.from_dict(made)
        assert found.to_dict() == made
        assert found == made and made == found
        assert Recipe.from_dict(found.to_dict()) == found
        assert pickle.loads(pickle.dumps(found)) == found

    def test_is_a_mapping(self):
        found = Recipe.from_dict(FULL)
        assert found["whitening"]["name"] == "paris6k"
        assert "scales" in found and "nothing" not in found
        assert found.get("whiten") == "global" and found.get("nothing", 1) == 1
        assert dict(found) == {**found} == found.to_dict() == FULL
        assert list(found) == list(FULL)
        with pytest.raises(KeyError):
            found["nothing"]
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.levels = 2

    def test_fields_that_say_nothing_are_no_keys(self):
        assert Recipe.from_dict({"backbone": "vgg16", "whiten": "regions", "scales": None}).to_dict() == {"backbone": "vgg16"}
        assert Recipe.from_dict(None) == {}
        assert Recipe.from_dict({"max_side": None}).max_side is None
        assert Recipe.from_dict({}).max_side is UNSET

    def test_names_of_photos_are_left_out(self):
        made = Recipe.from_dict({"whitening": {"name": "paris6k", "photo_ids": ["ab"]}})
        assert made == {"whitening": {"name": "paris6k"}}

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("backbone", 7),
            ("layer", None),
            ("method", None),
            ("weights", 1),
            ("levels", "3"),
            ("levels", 0),
            ("min_side", "x"),
            ("min_side", True),
            ("max_side", "big"),
            ("max_side", 0),
            ("max_side", 2.5),
            ("whitening", "abc"),
            ("whiten", "both"),
            ("whiten", []),
            ("scales", 1.0),
            ("scales", ["a"]),
        ],
    )
    def test_another_kind_is_refused(self, field, value):
        with pytest.raises(ValueError) as error:
            Recipe.from_dict({**FULL, field: value}, "The recipe of my_photos")
        assert str(error.value).startswith(f"The recipe of my_photos has {field} {value!r}, which has to be ")

    def test_of_another_size(self):
        made = Recipe.from_dict(FULL)
        assert made.at(None) == {**FULL, "max_side": None}
        assert made.of_any_size() == {field: value for field, value in FULL.items() if field != "max_side"}

    def test_loads_no_keras(self):
        script = (
            "import sys, rw_keras.model.recipe, rw_keras.model.descriptor\nassert not {'keras', 'tensorflow'} & set(sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", script]).returncode == 0


class TestDifferences:
    @hypothesis.given(kept)
    def test_none_to_itself(self, made):
        assert Recipe.from_dict(made).differences(made, "the other's") == []

    @hypothesis.given(kept, kept)
    def test_both_values_either_way(self, one, other):
        there = Recipe.from_dict(one).differences(other, "B's")
        back = Recipe.from_dict(other).differences(one, "B's")
        assert {words.partition(" is ")[0] for words in there} == {words.partition(" is ")[0] for words in back}

    @pytest.mark.parametrize(
        ("field", "value", "words"),
        [
            ("max_side", 1024, "its max_side is 256, the model's 1024"),
            ("whiten", "regions", "its whiten is 'global', the model's 'regions'"),
            ("scales", None, "its scales is [1.0, 0.5], the model's None"),
            ("weights", "f" * 64, f"its weights is '{'0' * 23}..., the model's '{'f' * 23}..."),
            ("whitening", None, "its whitening name is 'paris6k', the model's None"),
            ("whitening", {**FULL["whitening"], "shrinkage": 0.0}, "its whitening shrinkage is 0.2, the model's 0.0"),
            ("power", 2, "its power is None, the model's 2"),
        ],
    )
    def test_in_words(self, field, value, words):
        other = {**FULL, field: value}
        if value in ("regions", None) and field != "whitening":
            del other[field]
        assert Recipe.from_dict(FULL).differences(other, "the model's") == [words]

    def test_only_of_some_fields(self):
        other = {**FULL, "levels": 2, "max_side": 1, "whitening": None}
        own = Recipe.from_dict(FULL)
        assert own.differences(other, "the model's", {"levels", "method"}) == ["its levels is 3, the model's 2"]
        assert len(own.differences(other, "the model's", {"whitening"})) == 1

    def test_whitenings_without_a_name(self):
        one, other = ({"whitening": {"digest": digest}} for digest in "ab")
        assert Recipe.from_dict(one).differences(other, "the other's") == ["its whitening digest is 'a', the other's 'b'"]
        assert Recipe.from_dict(one).differences({}, "the other's") == ["its whitening name is 'unnamed', the other's None"]


class TestOfModel:
    def test_is_what_an_index_keeps(self, tiny_model, photo_folder):
        model = tiny_model(whiten_on="global")
        rw_keras.fit_whitening(model, photo_folder, progress=False)
        several = rw_keras.multi_scale(model, (1, 0.5))
        found = Recipe.of(several)
        assert found == several.recipe == recipe(several)
        assert found == {**model.recipe, "scales": [1.0, 0.5]}
        assert found.whitening["name"] == "photos" and "photo_ids" not in found.whitening
        assert len(several.whitening_provenance["photo_ids"]) == 5  # two of the six photos are called a.png
        assert json.loads(json.dumps(found.to_dict())) == found

    def test_a_describer_has_the_same(self, model):
        describer = rw_keras.runtimes.load(model, "tensorflow")
        assert isinstance(describer.recipe, Recipe) and isinstance(model.recipe, Recipe)
        assert describer.recipe == model.recipe == Recipe.of(describer)

    @pytest.mark.parametrize("variant", ["float32", "bfloat16"])
    def test_a_describer_has_that_of_the_weights_it_computes_with(self, tiny_model, draw, tmp_path, monkeypatch, variant):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        model, photo = tiny_model(), draw(1)
        describer = rw_keras.runtimes.load(model, "tensorflow")
        if variant == "bfloat16":
            from rw_keras.runtimes import keras_model

            describer = dataclasses.replace(describer, variant=variant, function=keras_model.load(model, variant))
        before = rw_keras.describe(describer, photo)
        model.get_layer("convolution").kernel.assign_add(np.random.default_rng(0).normal(size=(8, 8, 3, 12)))
        after = rw_keras.describe(describer, photo)
        assert np.array_equal(before, after) == (before.recipe == after.recipe) == (variant == "bfloat16")
        assert describer.recipe.at(1024) == after.recipe

    @pytest.mark.slow
    def test_follows_what_is_learned(self, tiny_model, photo_folder):
        model = tiny_model()
        assert model.recipe.whitening is None and model.whitening_provenance is None
        rw_keras.fit_whitening(model, photo_folder, progress=False)
        first = model.recipe
        rw_keras.fit_whitening(model, sorted(photo_folder.glob("*.png")), name="others", progress=False)
        assert (first.whitening["name"], model.recipe.whitening["name"]) == ("photos", "others")
        assert first.whitening["digest"] != model.recipe.whitening["digest"]

    def test_an_old_entry_of_described_with(self):
        assert with_runtime({"engine": "ncnn", "precision": "fast"}) == {"runtime": "ncnn", "precision": "fast"}
        assert with_runtime({"runtime": "ncnn"}) == {"runtime": "ncnn"}


class TestFromRecipe:
    @pytest.fixture
    def register(self, tiny_model):
        """Registers the network of `tiny_model` under a name, so that a recipe can name it."""
        from rw_keras import backbones

        @backbones.register("tiny_of_the_tests")
        def tiny(layer=None, weights=None):
            import keras

            photos = keras.Input((None, None, 3), name="photos")
            kernel = keras.initializers.RandomNormal(stddev=0.01, seed=3)
            features = keras.layers.Conv2D(12, 8, strides=8, activation="relu", kernel_initializer=kernel, name="convolution")(
                photos
            )
            return keras.Model(photos, features, name="tiny_of_the_tests")

        yield
        del backbones.BACKBONES["tiny_of_the_tests"], backbones.LICENCES["tiny_of_the_tests"]

    @pytest.mark.slow
    @pytest.mark.parametrize("several", [False, True])
    @pytest.mark.parametrize("size", [{"max_side": 48}, {}, {"max_side": None}])
    def test_builds_the_same_again(self, register, photo_folder, tmp_path, several, size):
        arguments = {"levels": 2, "components": 5, "shrinkage": 0.3, "whiten_on": "global"}
        model = rw_keras.build_descriptor("tiny_of_the_tests", whitening=None, **arguments)
        rw_keras.fit_whitening(model, photo_folder, progress=False)
        rw_keras.save_whitening(model, tmp_path / "learned.npz")
        model = rw_keras.multi_scale(model, (1, 0.7)) if several else model
        made = {**model.recipe, **size}
        built = from_recipe(json.loads(json.dumps(made)), whitening=tmp_path / "learned.npz")
        assert built.recipe == made
        found = rw_keras.describe(built, photo_folder / "a.png")
        np.testing.assert_array_equal(found, rw_keras.describe(model, photo_folder / "a.png", max_side=size.get("max_side", 1024)))
        assert found.recipe == {"max_side": 1024, **made}

    def test_of_a_file(self, model, tmp_path):
        model.save(tmp_path / "model.keras")
        built = from_recipe(model.recipe.at(40), model=tmp_path / "model.keras")
        assert built.recipe == {**model.recipe, "max_side": 40}
        built.save(tmp_path / "again.keras")
        assert rw_keras.load_model(tmp_path / "again.keras").recipe.max_side == 40

    def test_a_recipe_that_does_not_say_enough(self):
        with pytest.raises(ValueError, match="a recipe without layer, method, levels; pass the model's file"):
            from_recipe({"backbone": "vgg16"})

    def test_a_recipe_of_a_later_version(self):
        with pytest.raises(ValueError, match=r"a recipe with 'power', which this version does not know; install a later rw_keras"):
            from_recipe({**FULL, "power": 2})

    def test_a_file_of_another_model(self, tiny_model, tmp_path):
        network = tiny_model().get_layer("convolution")
        import keras

        keras.Model(network.input, network.output, name="network").save(tmp_path / "network.keras")
        with pytest.raises(ValueError, match=r"holds the model .network., which is none that rw_keras\.build_descriptor made"):
            from_recipe(FULL, model=tmp_path / "network.keras")


def test_the_earlier_name_of_whiten_on(tiny_model):
    with pytest.warns(FutureWarning, match="whiten= is called whiten_on= now"):
        assert tiny_model(whiten="global").recipe.whiten_on == "global"
