import hashlib
import json
import os

import h5py
import keras
import numpy as np
import pytest

import rw_keras
from rw_keras import DescriptorModel
from rw_keras.model import preset_folder
from rw_keras.model.presets import PRESETS, Preset

FILES = {"config.json", "architecture.json", "model.weights.h5", "README.md"}


@pytest.fixture(scope="module", name="model")
def whitened_model(tiny_model, draw):
    """At two scales, whitened, by a preset of its own."""
    preset = Preset("mine", scales=(1, 0.5), shrinkage=0.2, components=6, max_side=40, regions="int8", rerank=7)
    model = tiny_model(preset=preset)
    rw_keras.fit_whitening(model.inner, [draw(seed) for seed in range(6)], name="six spots", progress=False)
    return model


@pytest.fixture
def saved(model, tmp_path):
    model.save_to_preset(tmp_path / "preset")
    return tmp_path / "preset"


def change(folder, **fields):
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, **fields}))


def rewrite(folder, name, content):
    """Another file, with its digest in the configuration."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "config.json").read_text())["files"]
    change(folder, files={**files, name: hashlib.sha256(content).hexdigest()})


class TestRoundTrip:
    @pytest.mark.slow
    def test_is_the_same_model(self, model, saved, draw):
        loaded = DescriptorModel.from_preset(saved)
        assert (loaded.recipe, loaded.preset, loaded.name) == (model.recipe, model.preset, model.name)
        assert loaded.whitening_provenance == model.whitening_provenance
        photo = draw(9, 90, 70)
        found = rw_keras.describe(loaded, photo)
        np.testing.assert_array_equal(found, rw_keras.describe(model, photo))
        assert found.recipe.max_side == 40

    def test_a_saved_one_is_a_model_file(self, model, saved):
        assert rw_keras.model.build.load_descriptor(saved).recipe == model.recipe

    def test_what_people_read(self, saved, model):
        assert set(os.listdir(saved)) == FILES
        about = json.loads((saved / "config.json").read_text())
        assert about["recipe"] == json.loads(json.dumps(model.recipe.to_dict()))
        assert about["preset"]["rerank"] == 7
        assert about["preprocessing"]["max_side"] == 40
        assert about["output"]["dimensions"] == 6
        card = (saved / "README.md").read_text()
        assert "six spots" in card and "from_preset" in card
        assert str(saved.parent) not in "".join((saved / name).read_text() for name in FILES if not name.endswith(".h5"))

    def test_a_model_without_preset_or_whitening(self, tiny_model, tmp_path):
        tiny_model().save_to_preset(tmp_path / "deep" / "plain")
        assert DescriptorModel.from_preset(tmp_path / "deep" / "plain").preset is None

    def test_a_name_builds(self):
        model = DescriptorModel.from_preset("small", weights=None, whitening=None)
        assert model.preset == PRESETS["small"].but(whitening=None)


class TestWriting:
    def test_a_preset_is_replaced_and_what_lies_beside_stays(self, saved, tiny_model):
        (saved / ".git").mkdir()
        (saved / "README.md").write_text("my card")
        other = tiny_model(seed=4)
        other.save_to_preset(saved)
        assert DescriptorModel.from_preset(saved).recipe == other.recipe
        assert (saved / "README.md").read_text() == "my card"
        assert set(os.listdir(saved)) == FILES | {".git"}
        assert os.listdir(saved.parent) == ["preset"]

    def test_an_empty_folder_is_taken(self, model, tmp_path):
        (tmp_path / "empty").mkdir()
        model.save_to_preset(tmp_path / "empty")
        assert DescriptorModel.from_preset(tmp_path / "empty").recipe == model.recipe

    @pytest.mark.parametrize("what", ["folder", "file", "others_config"])
    def test_something_else_is_left_as_it_is(self, model, tmp_path, what):
        target = tmp_path / "photos"
        if what == "file":
            target.write_text("mine")
        else:
            target.mkdir()
            (target / ("config.json" if what == "others_config" else "a.jpg")).write_text('{"format": 3}')
        with pytest.raises(ValueError, match="something else than a preset"):
            model.save_to_preset(target)
        assert os.listdir(tmp_path) == ["photos"]

    @pytest.mark.parametrize("existing", [False, True])
    def test_a_fault_leaves_what_was_there(self, model, tiny_model, tmp_path, monkeypatch, existing):
        if existing:
            model.save_to_preset(tmp_path / "preset")
        before = sorted(os.listdir(tmp_path))

        def full(*_):
            raise OSError("disk full")

        monkeypatch.setattr(preset_folder, "_card", full)
        with pytest.raises(OSError, match="disk full"):
            tiny_model(seed=4).save_to_preset(tmp_path / "preset")
        assert sorted(os.listdir(tmp_path)) == before
        if existing:
            assert DescriptorModel.from_preset(tmp_path / "preset").recipe == model.recipe


class TestRefused:
    @pytest.mark.parametrize("name", ["architecture.json", "model.weights.h5"])
    def test_another_file_than_was_saved(self, saved, name):
        content = bytearray((saved / name).read_bytes())
        content[len(content) // 2] ^= 1
        (saved / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is not the file that config.json was written for"):
            DescriptorModel.from_preset(saved)
        (saved / name).unlink()
        with pytest.raises(FileNotFoundError, match=name):
            DescriptorModel.from_preset(saved)

    def test_weights_of_another_model_with_their_digest(self, saved, tiny_model, tmp_path):
        other = rw_keras.multi_scale(tiny_model(seed=3, components=6), (1, 0.5))
        other.save_to_preset(tmp_path / "other")
        rewrite(saved, "model.weights.h5", (tmp_path / "other" / "model.weights.h5").read_bytes())
        with pytest.raises(ValueError, match=r"is not of the model beside it: .*weights"):
            DescriptorModel.from_preset(saved)

    def test_a_link_to_another_file(self, saved, tmp_path):
        with h5py.File(tmp_path / "evil.h5", "w") as file:
            file["layers"] = h5py.ExternalLink("/etc/passwd", "/")
        rewrite(saved, "model.weights.h5", (tmp_path / "evil.h5").read_bytes())
        with pytest.raises(ValueError, match="/etc/passwd"):
            DescriptorModel.from_preset(saved)

    def test_code_in_it_does_not_run(self, saved):
        evil = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Lambda(lambda photos: photos)])
        rewrite(saved, "architecture.json", json.dumps(keras.saving.serialize_keras_object(evil)).encode())
        with pytest.raises(ValueError, match=r"cannot be loaded: .*[Ll]ambda"):
            DescriptorModel.from_preset(saved)

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"format": "rw_keras preset 9"}, "'rw_keras preset 9'"),
            ({"format": 3}, "is no preset"),
            ({"files": {}}, "damaged"),
            ({"files": {"../secret": "ab", "architecture.json": "", "model.weights.h5": ""}}, "'../secret'"),
            ({"recipe": {"levels": "x"}}, "levels 'x'"),
            ({"preset": None}, "its preset is another"),
        ],
    )
    def test_a_configuration_that_is_none(self, saved, fields, words):
        change(saved, **fields)
        with pytest.raises(ValueError) as caught:
            DescriptorModel.from_preset(saved)
        assert words in str(caught.value)

    def test_what_is_no_name_and_no_folder(self, tmp_path, saved):
        with pytest.raises(FileNotFoundError, match=r"no preset 'recomended', and no folder.* paper, recommended"):
            DescriptorModel.from_preset("recomended")
        with pytest.raises(ValueError, match=r"hf://me/mine is an address; download"):
            DescriptorModel.from_preset("hf://me/mine")
        with pytest.raises(ValueError, match=r"no preset: it has no config.json"):
            DescriptorModel.from_preset(tmp_path)
        with pytest.raises(ValueError, match="components does not go with"):
            DescriptorModel.from_preset(saved, components=3)
