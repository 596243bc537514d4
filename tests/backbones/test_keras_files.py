"""Files of strangers: nothing in them runs, and nothing else is read."""

import re
import zipfile

import h5py
import hostile_models
import numpy as np
import pytest

import rw_keras
from rw_keras.backbones import keras_files, readers


@pytest.fixture
def marker(tmp_path):
    """What a payload makes when it runs."""
    return tmp_path / "marker"


class TestLoadModel:
    @pytest.mark.parametrize("payload", [*hostile_models.CODE, *hostile_models.NEEDS_MORE], ids=lambda payload: payload.__name__)
    def test_no_code_in_a_file_runs(self, tmp_path, marker, monkeypatch, payload):
        if payload is hostile_models.pickled_torch_module:
            pytest.importorskip("torch")
        monkeypatch.syspath_prepend(tmp_path)
        path = tmp_path / ("model.h5" if payload is hostile_models.legacy_h5 else "model.keras")
        payload(path, marker)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            rw_keras.load_model(path)
        assert not marker.exists()

    @pytest.mark.parametrize("payload", hostile_models.FILES, ids=lambda payload: payload.__name__)
    def test_weights_of_another_file_are_refused(self, tmp_path, marker, payload):
        payload(tmp_path / "model.keras", marker)
        words = r"model\.weights\.h5 in .*model\.keras is refused: 'layers/dense.*' in it is .*model\.(secret|other\.h5)'"
        with pytest.raises(ValueError, match=words):
            rw_keras.load_model(tmp_path / "model.keras")

    def test_a_vocabulary_in_another_file_is_refused(self, tmp_path, marker):
        hostile_models.vocabulary(tmp_path / "model.keras", marker)
        with pytest.raises(ValueError, match=r"model\.keras cannot be loaded: .*model\.secret\.txt"):
            rw_keras.load_model(tmp_path / "model.keras")

    def test_a_sound_file_of_the_same_form_is_loaded(self, tmp_path):
        dense = hostile_models.layer("Dense", {"units": 3, "activation": "linear"})
        dense["build_config"] = {"input_shape": [None, 4]}

        def weights(file):
            file["layers/dense/vars/0"], file["layers/dense/vars/1"] = np.full((4, 3), 7, "float32"), np.zeros(3, "float32")

        hostile_models.write(tmp_path / "model.keras", hostile_models.functional(dense), weights)
        assert rw_keras.load_model(tmp_path / "model.keras").get_weights()[0].min() == 7

    def test_an_argument_out_of_range_is_named(self, tmp_path):
        config = hostile_models.functional(
            hostile_models.layer(
                "RegionalSumPooling",
                {"levels": 99999999},
                module="rw_keras.layers.regional_sum_pooling",
                registered_name="rw_keras>RegionalSumPooling",
            )
        )
        hostile_models.write(tmp_path / "model.keras", config)
        with pytest.raises(ValueError, match=r"model\.keras cannot be loaded: .*`levels`.* 99999999"):
            rw_keras.load_model(tmp_path / "model.keras")

    @pytest.mark.parametrize("name", ["model.keras", "model.h5", "model"])
    def test_what_is_no_keras_file(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"PK\x03\x04 is not enough")
        with pytest.raises(ValueError, match=rf"{name} cannot be loaded: .*is no \.keras file, or is cut short"):
            rw_keras.load_model(tmp_path / name)
        with pytest.raises(FileNotFoundError, match="There is no model file"):
            rw_keras.load_model(tmp_path / "none.keras")

    def test_a_damaged_file(self, tiny_model, tmp_path):
        tiny_model().save(tmp_path / "model.keras")
        content = bytearray((tmp_path / "model.keras").read_bytes())
        with zipfile.ZipFile(tmp_path / "model.keras") as archive:
            start = archive.getinfo("model.weights.h5").header_offset
        content[start : start + 200] = bytes(200)
        (tmp_path / "model.keras").write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.keras is cut short or damaged"):
            rw_keras.load_model(tmp_path / "model.keras")


class TestReaders:
    """Weights of a network, read by this package."""

    @pytest.fixture
    def hostile(self, tmp_path):
        """A function (name of the file) -> its path: one layer, whose kernel lies in another file."""
        np.ones(9, "float32").tofile(tmp_path / "secret")

        def write(name):
            with h5py.File(tmp_path / name, "w") as file:
                group = file.create_group("conv")
                group.create_dataset("kernel", (1, 1, 3, 3), "float32", external=[(str(tmp_path / "secret"), 0, 36)])
                group["bias"] = np.zeros(3, "float32")
            return tmp_path / name

        return write

    @pytest.mark.parametrize("name", ["file.h5", "file.hdf5", "file.weights.h5"])
    def test_values_of_another_file_are_refused(self, hostile, name):
        with pytest.raises(ValueError, match=r"'conv/kernel' in it is read from the file '.*secret'; save the weights again"):
            readers.read(hostile(name), lambda: pytest.fail("the network was made"))

    def test_a_backbone_names_the_file(self, hostile):
        with pytest.raises(ValueError, match=r"file\.h5 cannot be read as weights.*is refused: 'conv/kernel'"):
            rw_keras.build_descriptor("alexnet", weights=hostile("file.h5"))


def test_a_dataset_that_would_fill_the_memory(tmp_path):
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("large", (1 << 20, 1 << 20), "float32", chunks=(1024, 1024))
    with (
        (tmp_path / "file.h5").open("rb") as file,
        pytest.raises(ValueError, match=r"file.h5 is refused: 'large' in it claims to be 4398046511104 bytes"),
    ):
        keras_files.check_hdf5(file, "file.h5")
