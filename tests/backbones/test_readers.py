import dataclasses
import pathlib
import re
import sys

import h5py
import numpy as np
import pytest
from backbones import layouts
from backbones.layouts import LAYOUTS, RIGHT, check

from rw_keras.backbones import readers, weights
from rw_keras.backbones.vgg16 import PUBLISHED

ENDINGS = {ending for ending, _ in LAYOUTS.values()}

# The convolutions of VGG16 in its authors' files, and their places in PyTorch's `features`.
VGG16_OF_CAFFE = "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv4_1 conv4_2 conv4_3 conv5_1 conv5_2 conv5_3".split()
VGG16_OF_TORCH = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def read(path):
    return readers.read(path, layouts.network)


class TestRead:
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_layouts(self, tmp_path, layout):
        ending, write = LAYOUTS[layout]
        write(tmp_path / f"file{ending}")
        found = read(tmp_path / f"file{ending}")
        if all(name.isdecimal() for name in found):
            found = {name: found[number] for name, number in zip(RIGHT, ("9", "12"))}
        check({name: found[name] for name in RIGHT})

    def test_every_reader_has_a_layout(self):
        assert {next(ending for ending in readers.READERS if name.endswith(ending)) for name in ENDINGS} == set(readers.READERS)

    def test_unknown_ending(self):
        with pytest.raises(ValueError, match=r"the ending '\.bin' is none of \.npz, \.weights\.h5, \.h5, .*\.caffemodel, \.mat, "):
            read(pathlib.Path("file.bin"))

    def test_a_mere_part_of_an_ending(self, tmp_path):
        (tmp_path / "npz").touch()
        with pytest.raises(ValueError, match=r"the ending '' is none of"):
            read(tmp_path / "npz")


class TestONNX:
    def test_kernels_are_turned_and_the_others_left_out(self):
        check(readers.parse_onnx(layouts.onnx()))

    def test_values_in_another_file_are_not_read(self, tmp_path):
        """ONNX may name any file of this machine to take values from."""
        import onnx

        (tmp_path / "secret").write_bytes(bytes(4 * 3 * 3 * 3 * 4))
        model = onnx.load_model_from_string(layouts.onnx())
        for place in (tmp_path / "secret", "../secret", "secret"):
            for tensor in model.graph.initializer:
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
                del tensor.external_data[:]
                tensor.external_data.add(key="location", value=str(place))
            (tmp_path / "file.onnx").write_bytes(model.SerializeToString())
            with pytest.raises(ValueError, match=r"conv1_1/convolution/\S+ lie in another file; save the network as one file"):
                read(tmp_path / "file.onnx")

    def test_a_shape_that_would_fill_the_memory(self):
        import onnx

        model = onnx.load_model_from_string(layouts.onnx())
        for tensor in model.graph.initializer:
            tensor.dims[:] = [1 << 20] * 3
        with pytest.raises(ValueError, match="reshape"):
            readers.parse_onnx(model.SerializeToString())


class TestCaffe:
    @pytest.mark.parametrize("packed", [True, False])
    @pytest.mark.parametrize("double", [True, False])
    @pytest.mark.parametrize("newer", [True, False])
    def test_other_layers_are_left_out(self, tmp_path, newer, double, packed):
        """Those of no blobs, of one, and the fully connected one of two."""
        (tmp_path / "file.caffemodel").write_bytes(layouts.caffemodel(newer=newer, double=double, packed=packed))
        found = read(tmp_path / "file.caffemodel")
        check(found)
        assert {array.dtype for pair in found.values() for array in pair} == {np.dtype("float32")}

    def test_a_long_kernel(self, tmp_path):
        """Lengths of more than one byte, and a shape whose sides differ."""
        layers = layouts.layers_of(3, {"conv1": (5, 7, 3, 200)})
        for newer in (True, False):
            (tmp_path / "file.caffemodel").write_bytes(layouts.caffemodel(layers, newer))
            check(read(tmp_path / "file.caffemodel"), layers)


class TestMatConvNet:
    @pytest.mark.parametrize("newer", [True, False])
    def test_layers_of_other_types_are_left_out(self, tmp_path, newer):
        layouts.write_mat(tmp_path / "file.mat", newer=newer)
        check(read(tmp_path / "file.mat"))

    def test_the_first_kernel_is_turned_to_blue_green_red(self, tmp_path):
        import scipy.io

        layouts.write_mat(tmp_path / "file.mat")
        first, _, _, second, *_ = scipy.io.loadmat(tmp_path / "file.mat", simplify_cells=True)["net"]["layers"]
        found = read(tmp_path / "file.mat")
        for ours, theirs in ((0, 2), (1, 1), (2, 0)):
            np.testing.assert_array_equal(found["conv1"][0][:, :, ours], first["weights"][0][:, :, theirs])
        np.testing.assert_array_equal(found["conv2"][0].ravel(), np.ravel(second["weights"][0]))

    @pytest.mark.parametrize("newer", [True, False])
    def test_a_last_axis_of_one_that_matlab_drops(self, tmp_path, newer):
        layers = layouts.layers_of(3, {"conv1": (3, 3, 3, 4), "conv2": (3, 2, 4, 1)})
        layouts.write_mat(tmp_path / "file.mat", layers, newer=newer, last_axis=False)
        check(read(tmp_path / "file.mat"), layers)

    def test_version_7_3_is_refused_in_a_sentence(self, tmp_path):
        with h5py.File(tmp_path / "file.mat", "w", userblock_size=512) as file:
            file["layers"] = np.ones(3)
        with (tmp_path / "file.mat").open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Feb 10 10:00:00 2014 HDF5 schema 1.00 .")
        with pytest.raises(ValueError, match=r"a \.mat file of version 7\.3; save it as version 7: save\('-v7', \.\.\.\)"):
            read(tmp_path / "file.mat")

    def test_a_file_of_something_else(self, tmp_path):
        import scipy.io

        scipy.io.savemat(tmp_path / "file.mat", {"descriptors": np.ones((3, 4))})
        with pytest.raises(Exception, match="layers"):
            read(tmp_path / "file.mat")


class RunsCode:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


class TestTorch:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("prefix", ["", "features.", "module.", "module.features."])
    def test_names_less_what_holds_all_of_them(self, tmp_path, prefix, zipped):
        layouts.write_torch(tmp_path / "file.pth", prefix=prefix, zipped=zipped)
        found = read(tmp_path / "file.pth")
        check({name: found[name] for name in RIGHT})
        assert set(found) == set(RIGHT)

    def test_what_is_no_convolution_is_left_out(self, tmp_path):
        import torch

        model = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1, bias=False), torch.nn.Linear(2, 2)
        )
        torch.save(model.state_dict(), tmp_path / "file.pt")
        found = read(tmp_path / "file.pt")
        assert set(found) == {"0"}
        np.testing.assert_array_equal(found["0"][0], model[0].weight.detach().permute(2, 3, 1, 0))
        np.testing.assert_array_equal(found["0"][1], model[0].bias.detach())

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
    def test_other_dtypes(self, tmp_path, dtype):
        import torch

        state = {"conv1.weight": torch.ones((2, 3, 1, 1)) * 1.5, "conv1.bias": torch.arange(2)}
        torch.save({name: tensor.to(getattr(torch, dtype)) for name, tensor in state.items()}, tmp_path / "file.pth")
        check(read(tmp_path / "file.pth"), {"conv1": (np.full((1, 1, 3, 2), 1.5), np.arange(2))})
        assert {array.dtype for array in read(tmp_path / "file.pth")["conv1"]} == {np.dtype("float32")}

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_that_runs_code_is_refused(self, tmp_path, zipped):
        import torch

        state = {"conv1.weight": RunsCode(tmp_path / "touched")}
        torch.save(state, tmp_path / "file.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(Exception, match=r"[Ww]eights.only"):
            read(tmp_path / "file.pth")
        assert not (tmp_path / "touched").exists()

    def test_a_whole_model_is_refused(self, tmp_path):
        import torch

        torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / "file.pt")
        with pytest.raises(Exception, match=r"[Ww]eights.only"):
            read(tmp_path / "file.pt")


class TestMissingPackages:
    def test_the_line_that_installs_it(self, tmp_path, monkeypatch):
        (tmp_path / "file.pth.tar").touch()
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(ImportError, match=r'torch.*pip install "rw_keras\[torch\]"'):
            read(tmp_path / "file.pth.tar")


class TestNamesOfVGG16:
    """The same 13 layers, in files of its authors' names and in PyTorch's numbers."""

    @pytest.fixture
    def layers(self):
        return layouts.layers_of(4, dict.fromkeys(PUBLISHED.shapes, (1, 1, 2, 2)))

    @pytest.fixture
    def published(self, layers):
        digest = weights.digest(array for pair in layers.values() for array in pair)
        return dataclasses.replace(PUBLISHED, shapes=dict.fromkeys(PUBLISHED.shapes, (1, 1, 2, 2)), digest=digest)

    @pytest.mark.parametrize("layout", ["caffe", "caffe, V1", "mat", "mat, of 2014", "torch, features", "npz"])
    def test_names_of_caffe(self, tmp_path, layers, published, layout):
        ending, write = LAYOUTS[layout]
        write(tmp_path / f"file{ending}", dict(zip(VGG16_OF_CAFFE, layers.values())))
        found = weights.read_checked(tmp_path / f"file{ending}", published)
        check(found, layers)
        assert next(iter(found)) == "block1_conv1"
        assert list(found)[-1] == "block5_conv3"

    def test_numbers_of_torch(self, tmp_path, layers, published):
        names = [f"features.{number}" for number in VGG16_OF_TORCH]
        layouts.write_torch(tmp_path / "file.pth", dict(zip(names, layers.values())))  # the last one first in it
        check(weights.read_checked(tmp_path / "file.pth", published), layers)

    def test_a_number_too_few(self, tmp_path, layers, published):
        names = [f"features.{number}" for number in VGG16_OF_TORCH[:-1]]
        layouts.write_torch(tmp_path / "file.pth", dict(zip(names, layers.values())))
        with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}.*does not hold VGG16: it has no layer block5_conv3"):
            weights.read_checked(tmp_path / "file.pth", published)
