"""What arguments stand for that are not given: as the index was made, for a new one as the model's preset says."""

import types
import typing

import pytest

from rw_keras.description import defaults
from rw_keras.model.presets import Preset
from rw_keras.model.recipe import Recipe


def model(preset=None, **recipe):
    """What stands for a model here; no region vectors are asked of it."""
    return types.SimpleNamespace(output_shape=(None, 12), preset=preset, recipe=Recipe.from_dict(recipe), name="stand-in")


@pytest.fixture
def with_regions(monkeypatch):
    """Every model has region vectors."""
    monkeypatch.setattr(defaults, "regions_function_of", lambda model: None)


SMALL = Preset("small", max_side=300, dtype="int8", regions="float16", region_components=8, rerank=50, expand=5)


class TestMaxSide:
    @pytest.mark.parametrize(
        ("of", "about", "expected"),
        [
            (model(), None, 1024),
            (model(SMALL), None, 300),
            (model(SMALL, max_side=200), None, 200),
            (model(SMALL, max_side=None), None, None),
            (model(SMALL), {"recipe": {"max_side": 64}}, 64),
            (model(SMALL), {"recipe": {"max_side": None}}, None),
            (model(SMALL), {"recipe": None}, 1024),
        ],
        ids=str,
    )
    def test_auto(self, of, about, expected):
        assert defaults.settled_max_side("auto", of, about) == expected
        assert defaults.settled_max_side(77, of, about) == 77
        assert defaults.settled_max_side(None, of, about) is None

    @pytest.mark.parametrize("value", ["big", 0, 2.0, True])
    def test_others_are_refused(self, value):
        with pytest.raises(ValueError, match=f"max_side.*{value!r}"):
            defaults.settled_max_side(value, model())


def test_dtype():
    assert defaults.settled_dtype(None, model(), None) is None
    assert defaults.settled_dtype(None, model(SMALL), None) == "int8"
    assert defaults.settled_dtype(None, model(SMALL), {"dtype": "float16"}) is None  # the index's own
    assert defaults.settled_dtype("float32", model(SMALL), None) == "float32"


@pytest.mark.usefixtures("with_regions")
class TestRegions:
    @pytest.mark.parametrize(
        ("regions", "components", "preset", "about", "expected"),
        [
            ("auto", None, None, None, None),
            (None, None, None, None, None),
            ("int8", None, None, None, ("int8", 12)),
            ("float16", 5, None, None, ("float16", 5)),
            ("auto", None, SMALL, None, ("float16", 8)),
            ("auto", 3, SMALL, None, ("float16", 3)),
            ("int8", None, SMALL, None, ("int8", 8)),
            (None, None, SMALL, None, None),
            ("auto", None, Preset("wide", regions="int8", region_components=128), None, ("int8", 12)),
            ("auto", None, SMALL, {}, None),
            ("auto", None, SMALL, {"regions": None}, None),
            ("auto", None, None, {"regions": {"dtype": "int8", "dimensions": 7}}, ("int8", 7)),
            ("int8", None, None, {"regions": {"dtype": "int8", "dimensions": 7}}, ("int8", 7)),
            ("float16", 9, None, {"regions": {"dtype": "int8", "dimensions": 7}}, ("float16", 9)),
        ],
        ids=str,
    )
    def test_what_they_stand_for(self, regions, components, preset, about, expected):
        found = defaults.settled_regions(regions, components, model(preset), about)
        assert found == (None if expected is None else dict(zip(("dtype", "dimensions"), expected)))

    @pytest.mark.parametrize(
        ("regions", "components", "about", "words"),
        [
            ("int4", None, None, 'regions is one of "auto", "int8", "float16" and None, but got \'int4\''),
            (True, None, None, "regions is one of .* but got True"),
            ("int8", 0, None, "region_components is a whole number of 1 to 12, the model's dimensions, or None, but got 0"),
            ("int8", 13, None, "1 to 12.*got 13"),
            ("int8", True, None, "got True"),
            (None, 4, None, 'region_components=4 goes with region vectors, and none are kept; pass regions="int8"'),
            ("auto", 4, None, 'region_components=4 .*pass regions="int8"'),
            (None, None, {"regions": {"dtype": "int8", "dimensions": 7}}, r"keeps .*int8 of 7 .*asked for regions=None"),
            ("auto", 4, {}, "made without region vectors, and you asked for region_components=4; .*resume=False"),
        ],
        ids=str,
    )
    def test_refused(self, regions, components, about, words):
        with pytest.raises(ValueError, match=words):
            defaults.settled_regions(regions, components, model(), about)

    def test_how_a_new_index_is_searched(self):
        assert defaults.search_defaults(model(), None) == {}
        wanted = {"rerank": 50, "smooth": None, "expand": 5, "alpha": 0.0}
        assert defaults.search_defaults(model(SMALL), {"dtype": "int8"}) == wanted
        assert defaults.search_defaults(model(SMALL), None)["rerank"] is None


class TestRuntime:
    FAST: typing.ClassVar = {"runtime": "ncnn", "precision": "fast", "computes_in": "float16"}

    @pytest.mark.parametrize(
        ("about", "devices", "expected"),
        [
            (None, None, ("auto", "exact")),
            (None, ["GPU:0"], ("tensorflow", "exact")),
            ({"next_row": 0}, None, ("auto", "exact")),  # a run that was killed before its first photos
            ({"next_row": 9}, None, ("tensorflow", "exact")),  # an index that does not say
            ({"next_row": 9, "described_with": [{"runtime": "openvino"}, FAST]}, None, ("ncnn", "fast")),
            ({"next_row": 9, "described_with": [FAST]}, ["GPU:0"], ("tensorflow", "exact")),
            ({"next_row": 9, "described_with": [{"runtime": "jax", "precision": "int4"}]}, None, ("tensorflow", "exact")),
        ],
        ids=str,
    )
    def test_default(self, about, devices, expected):
        assert defaults.settled_runtime(None, None, about, devices) == expected

    def test_given(self):
        about = {"next_row": 9, "described_with": [self.FAST]}
        assert defaults.settled_runtime("openvino", None, about) == ("openvino", "fast")
        assert defaults.settled_runtime(None, "exact", about) == ("ncnn", "exact")
        with pytest.raises(ValueError, match=r"runtime is one of auto.*'other'"):
            defaults.settled_runtime("other", None, about)
