"""AlexNet against an independent statement of it in PyTorch, float64, which has Caffe's poolings, groups and LRN of its own."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from backbones import layouts

import rw_keras
from rw_keras.backbones import alexnet, weights
from rw_keras.backbones.alexnet import PUBLISHED
from rw_keras.photos.reading import ImageError, read_image

# Channels of each layer that it can be cut at.
CUTS = {"conv1": 96, "norm1": 96, "pool1": 96, "conv2": 256, "norm2": 256, "pool2": 256, "conv3": 384, "conv4": 384, "conv5": 256}
CUTS["pool5"] = 256

# (height, width): the smallest with each pooling, odd ones either way up, those of the publications.
SIZES = [(23, 23), (26, 300), (35, 35), (36, 51), (97, 131), (64, 99), (131, 64), (227, 227)]
SMALLEST = {"ceil": 23, "floor": 35}


def run(model, photos):
    return keras.ops.convert_to_numpy(model(np.asarray(photos, "float32"), training=False))


def random_photo(height, width, seed=0, batch=1):
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3)).astype("float32")


def random_layers(seed=0):
    """Weights that make every stage count: maps of hundreds, so that the normalisations divide, half of them below 0."""
    random = np.random.default_rng(seed)
    spread = {"conv1": 0.06, "conv2": 0.04, "conv3": 0.03, "conv4": 0.03, "conv5": 0.03}
    return {
        name: (
            (random.standard_normal(shape) * spread[name]).astype("float32"),
            (random.standard_normal(shape[-1:]) * 30).astype("float32"),
        )
        for name, shape in PUBLISHED.shapes.items()
    }


def with_weights(model, layers):
    for name, pair in layers.items():
        if name in [layer.name for layer in model.layers]:
            model.get_layer(name).set_weights(pair)
    return model


def pooled_by_caffe(side):
    """What Caffe's pooling layer gives of a side: a kernel of 3, a stride of 2, no padding."""
    return math.ceil((side - 3) / 2) + 1


def pooled_by_others(side):
    return (side - 3) // 2 + 1


POOLED = {"ceil": pooled_by_caffe, "floor": pooled_by_others}


def statement(layers, photos, pooling="ceil", last="conv5"):
    """AlexNet in PyTorch, float64, up to a layer: the map, and conv1's kernel, of which gradients can be taken."""
    torch = pytest.importorskip("torch", reason="the independent statement needs PyTorch")
    functional = torch.nn.functional
    kernels = {name: torch.tensor(kernel.astype("float64").transpose(3, 2, 0, 1).copy()) for name, (kernel, _) in layers.items()}
    biases = {name: torch.tensor(bias.astype("float64")) for name, (_, bias) in layers.items()}
    kernels["conv1"].requires_grad_()
    normalise = torch.nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)

    def convolve(name, **arguments):
        return lambda maps: functional.relu(functional.conv2d(maps, kernels[name], biases[name], **arguments))

    def pool(maps):
        return functional.max_pool2d(maps, 3, 2, ceil_mode=pooling == "ceil")

    stages = {
        "conv1": convolve("conv1", stride=4),
        "norm1": normalise,
        "pool1": pool,
        "conv2": convolve("conv2", padding=2, groups=2),
        "norm2": normalise,
        "pool2": pool,
        "conv3": convolve("conv3", padding=1),
        "conv4": convolve("conv4", padding=1, groups=2),
        "conv5": convolve("conv5", padding=1, groups=2),
        "pool5": pool,
    }
    blue_green_red = torch.tensor(np.asarray(photos, "float64")[..., ::-1].copy())
    maps = (blue_green_red - torch.tensor([104.007, 116.669, 122.679], dtype=torch.float64)).permute(0, 3, 1, 2)
    for name, stage in stages.items():
        maps = stage(maps)
        if name == last:
            return maps.permute(0, 2, 3, 1), kernels["conv1"]
    raise AssertionError(last)


def stated(*arguments, **keywords):
    return statement(*arguments, **keywords)[0].detach().numpy()


def assert_same_map(found, expected, error=1e-4):
    """To a part of the maximum."""
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 0
    assert np.abs(found - expected).max() < error * np.abs(expected).max()


@pytest.fixture(scope="module")
def layers():
    return random_layers()


@pytest.fixture(scope="module")
def networks(layers):
    """With each pooling, up to conv5, of the same weights."""
    return {pooling: with_weights(alexnet(weights=None, pooling=pooling), layers) for pooling in SMALLEST}


@pytest.fixture(scope="module")
def descriptor(layers):
    return with_weights(rw_keras.build_descriptor("alexnet", weights=None, whitening=None), layers)


class TestValue:
    @pytest.mark.parametrize(
        ("size", "pooling"), [(size, pooling) for size in SIZES for pooling in SMALLEST if min(size) >= SMALLEST[pooling]]
    )
    def test_is_that_of_the_statement(self, networks, layers, size, pooling):
        photos = random_photo(*size)
        assert_same_map(run(networks[pooling], photos), stated(layers, photos, pooling))

    def test_of_several_photos(self, networks, layers):
        photos = random_photo(51, 66, batch=3)
        assert_same_map(run(networks["ceil"], photos), stated(layers, photos))

    @pytest.mark.slow
    @pytest.mark.parametrize("pooling", SMALLEST)
    @pytest.mark.parametrize("layer", CUTS)
    def test_of_each_layer(self, layers, layer, pooling):
        model = with_weights(alexnet(layer, weights=None, pooling=pooling), layers)
        assert model.name == "alexnet"
        assert model.output_shape == (None, None, None, CUTS[layer])
        photos = random_photo(83, 119)
        assert_same_map(run(model, photos), stated(layers, photos, pooling, layer))

    def test_the_poolings_differ(self, networks):
        photos = random_photo(97, 131)
        shapes = [run(networks[pooling], photos).shape for pooling in ("ceil", "floor")]
        assert shapes == [(1, 5, 7, 256), (1, 4, 7, 256)]

    @pytest.mark.parametrize("pooling", SMALLEST)
    @pytest.mark.parametrize("size", [(227, 227), (97, 131), (384, 512)])
    def test_with_the_real_weights(self, alexnet_weights, size, pooling):
        model = alexnet(weights=alexnet_weights, pooling=pooling)
        real = {name: model.get_layer(name).get_weights() for name in PUBLISHED.shapes}
        photos = random_photo(*size)
        assert_same_map(run(model, photos), stated(real, photos, pooling))

    @pytest.mark.photos
    @pytest.mark.parametrize("pooling", SMALLEST)
    def test_of_real_photos_with_the_real_weights(self, alexnet_weights, data_folder, pooling):
        model = alexnet(weights=alexnet_weights, pooling=pooling)
        real = {name: model.get_layer(name).get_weights() for name in PUBLISHED.shapes}
        files = sorted((data_folder / "oxford5k_part" / "jpg").glob("*.jpg"))[:2]
        assert files
        for file in files:
            photos = read_image(file, max_side=512)[None]
            assert_same_map(run(model, photos), stated(real, photos, pooling))


class TestSizes:
    @pytest.mark.parametrize("pooling", SMALLEST)
    def test_shape_of_every_size(self, networks, pooling):
        """Caffe's convolutions round down; conv1 takes 11 pixels in steps of 4, and the others keep the sides."""

        def expected(side):
            return POOLED[pooling](POOLED[pooling]((side - 11) // 4 + 1))

        for height, width in itertools.product(range(SMALLEST[pooling], 81), (SMALLEST[pooling], 61, 80)):
            shape = networks[pooling].compute_output_shape((1, height, width, 3))
            assert shape == (1, expected(height), expected(width), 256), (height, width)

    @pytest.mark.parametrize("pooling", SMALLEST)
    def test_a_map_of_every_size_is_pooled_as_caffe_does(self, networks, pooling):
        """Windows of 3 in steps of 2, those over the edge cut there: as many as its rule says, and not one more."""
        model = networks[pooling]
        pool = keras.Model(model.get_layer("norm1").output, model.get_layer("pool1").output)
        random = np.random.default_rng(0)
        for side in range(2 if pooling == "ceil" else 3, 31):
            maps = random.uniform(0, 9, (1, side, 33 - side, 96)).astype("float32")
            if min(maps.shape[1:3]) < 3 and pooling == "floor":
                continue
            rows, columns = (range(0, 2 * POOLED[pooling](length), 2) for length in maps.shape[1:3])
            expected = [[maps[0, top : top + 3, left : left + 3].max(axis=(0, 1)) for left in columns] for top in rows]
            np.testing.assert_array_equal(run(pool, maps)[0], expected)

    @pytest.mark.slow
    @pytest.mark.parametrize("pooling", SMALLEST)
    def test_smallest_photo(self, networks, draw, pooling):
        smallest = SMALLEST[pooling]
        model = rw_keras.build_descriptor(networks[pooling], whitening=None)
        assert model.recipe["min_side"] == smallest
        for size in ((smallest, smallest), (smallest, 90), (90, smallest)):
            np.testing.assert_allclose(np.linalg.norm(rw_keras.describe(model, draw(1, *size))), 1, rtol=1e-5)
        for size in ((smallest - 1, 90), (90, smallest - 1)):
            with pytest.raises(ImageError, match=rf"{size[0]} x {size[1]} pixels, too small: each side needs {smallest} or more"):
                rw_keras.describe(model, draw(1, *size))

    @pytest.mark.parametrize("pooling", SMALLEST)
    def test_a_smaller_photo_is_refused_by_the_network_itself(self, networks, pooling):
        """TensorFlow's kernels make what they like of an empty map: one of zeros, an error, or the end of the process."""
        network, smallest = networks[pooling], SMALLEST[pooling]
        assert run(network, np.zeros((1, smallest, smallest, 3))).shape[1:3] == (1, 1)
        for height, width in ((smallest - 1, 90), (90, smallest - 1), (1, 1), (0, 0)):
            for call in (network, network.predict_on_batch, rw_keras.build_descriptor(network, whitening=None)):
                words = rf"Photos of {width} x {height} pixels are too small for '.*': each side needs {smallest} or more"
                with pytest.raises(ValueError, match=words):
                    call(np.zeros((1, height, width, 3), "float32"))

    def test_a_saved_network_refuses_them_too(self, networks, tmp_path):
        networks["floor"].save(tmp_path / "network.keras")
        loaded = rw_keras.load_model(tmp_path / "network.keras")
        with pytest.raises(ValueError, match="34 x 34 pixels are too small for 'alexnet': each side needs 35 or more"):
            loaded(np.zeros((1, 34, 34, 3)))

    def test_smallest_photo_by_name(self, descriptor, draw):
        assert descriptor.recipe["min_side"] == 23
        np.testing.assert_allclose(np.linalg.norm(rw_keras.describe(descriptor, draw(1, 23, 23))), 1, rtol=1e-5)
        with pytest.raises(ImageError, match="22 x 23 pixels, too small: each side needs 23 or more"):
            rw_keras.describe(descriptor, draw(1, 22, 23))


class TestDescriptor:
    def test_recipe(self, descriptor):
        assert descriptor.output_shape == (None, 256)
        assert descriptor.input_shape == (None, None, None, 3)
        expected = {"backbone": "alexnet", "layer": "conv5", "method": "rw", "levels": 3, "min_side": 23, "whitening": None}
        assert descriptor.recipe == {**expected, "weights": descriptor.recipe.weights}

    @pytest.mark.slow
    @pytest.mark.parametrize("layer", ["conv5", "pool5", "norm1"])
    def test_of_another_layer(self, layer, draw):
        model = rw_keras.build_descriptor("alexnet", weights=None, layer=layer, whitening=None)
        assert model.output_shape == (None, CUTS[layer])
        assert model.recipe["layer"] == layer
        np.testing.assert_allclose(np.linalg.norm(rw_keras.describe(model, draw(1, 97, 99))), 1, rtol=1e-5)

    def test_saved_and_loaded(self, descriptor, tmp_path):
        descriptor.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        assert loaded.recipe == descriptor.recipe
        for size in ((23, 40), (64, 99)):
            photos = random_photo(*size)
            np.testing.assert_array_equal(run(loaded, photos), run(descriptor, photos))

    def test_takes_red_green_blue(self, descriptor):
        pixels = np.array([[[[10, 20, 30]]]], "float32")
        expected = [[[[30 - 104.007, 20 - 116.669, 10 - 122.679]]]]
        np.testing.assert_allclose(run(descriptor.get_layer("preprocessing"), pixels), expected, rtol=1e-6)

    def test_random_weights_on_request(self):
        model = alexnet(weights=None)
        kernels = [model.get_layer(name).get_weights()[0] for name in PUBLISHED.shapes]
        assert [kernel.shape for kernel in kernels] == list(PUBLISHED.shapes.values())
        assert all(len(np.unique(kernel)) > 1000 for kernel in kernels)

    def test_gradient_reaches_the_first_layer(self, networks, layers):
        photos = random_photo(61, 77)
        model = networks["ceil"]
        kernel = model.get_layer("conv1").kernel
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(model(photos))
        found = tape.gradient(total, kernel.value).numpy()
        maps, expected = statement(layers, photos)
        maps.sum().backward()
        assert_same_map(found, expected.grad.permute(2, 3, 1, 0).numpy(), error=1e-3)


class TestArguments:
    @pytest.mark.parametrize("layer", ["conv6", "fc6", "edge1", "preprocessing", "photos", ""])
    def test_unknown_layer(self, layer):
        with pytest.raises(ValueError, match=f"AlexNet has no layer '{layer}' to cut at; choose one of {', '.join(CUTS)}"):
            alexnet(layer, weights=None)
        with pytest.raises(ValueError, match=f"AlexNet has no layer '{layer}'"):
            rw_keras.build_descriptor("alexnet", weights=None, layer=layer)

    @pytest.mark.parametrize("pooling", ["Ceil", "round", None, True])
    def test_unknown_pooling(self, pooling):
        with pytest.raises(ValueError, match=f"pooling is 'ceil' or 'floor', but got {pooling!r}"):
            alexnet(weights=None, pooling=pooling)

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.caffemodel.*AlexNet"):
            rw_keras.build_descriptor("alexnet", weights=tmp_path / "none.caffemodel")


class TestFiles:
    def test_published_shapes_are_the_networks(self):
        network = PUBLISHED.untrained()
        convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
        assert {layer.name: tuple(layer.kernel.shape) for layer in convolutions} == PUBLISHED.shapes
        assert list(PUBLISHED.shapes) == [layer.name for layer in convolutions]
        assert {layer.name: layer.groups for layer in convolutions} == {"conv1": 1, "conv2": 2, "conv3": 1, "conv4": 2, "conv5": 2}

    @pytest.mark.parametrize("layout", ["npz", "weights.h5", "caffe, V1", "caffe", "mat", "torch, numbers"])
    def test_weights_of_a_file(self, tmp_path, networks, layers, capsys, layout):
        """In the forms of Caffe, MatConvNet and PyTorch; a file that nobody published is said so."""
        ending, write = layouts.LAYOUTS[layout]
        path = tmp_path / f"file{ending}"
        if layout == "weights.h5":
            networks["ceil"].save_weights(path)
        else:
            write(path, layers)
        model = alexnet(weights=path)
        layouts.check({name: model.get_layer(name).get_weights() for name in layers}, layers)
        said = capsys.readouterr()
        assert said.err == f"rw_keras: AlexNet has the weights of {path}, which is none of the files they are published in.\n"
        assert said.out == ""

    def test_torchvisions_network_is_another(self, tmp_path):
        shapes = [(0, (11, 11, 3, 64)), (3, (5, 5, 64, 192)), (6, (3, 3, 192, 384)), (8, (3, 3, 384, 256)), (10, (3, 3, 256, 256))]
        zeros = {f"features.{number}": (np.zeros(shape, "float32"), np.zeros(shape[-1], "float32")) for number, shape in shapes}
        layouts.write_torch(tmp_path / "alexnet-owt-4df8aa71.pth", zeros)
        with pytest.raises(ValueError) as refused:
            alexnet(weights=tmp_path / "alexnet-owt-4df8aa71.pth")
        assert str(refused.value) == (
            f"{tmp_path / 'alexnet-owt-4df8aa71.pth'} does not hold AlexNet: conv1 has the shapes (11, 11, 3, 64) and (64,), not "
            "(11, 11, 3, 96) and (96,); the AlexNet of one column, torchvision's, is another network."
        )

    def test_other_bytes_in_the_cache_are_not_used(self, tmp_path, monkeypatch, layers, capsys):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        monkeypatch.setattr(weights, "_download", lambda published, file: layers)
        cached = tmp_path / "models" / "bvlc_alexnet.caffemodel"
        cached.parent.mkdir()
        cached.write_bytes(layouts.caffemodel(layers, newer=False))
        model = alexnet()
        layouts.check({name: model.get_layer(name).get_weights() for name in layers}, layers)
        assert f"not used: {cached} is none of the files that AlexNet's" in capsys.readouterr().err

    def test_real_weights_are_those_of_trained_layers(self, alexnet_weights):
        """A kernel whose colours or axes were turned still has its sum; these numbers are of its places."""
        model = alexnet(weights=alexnet_weights)
        kernel, _ = model.get_layer("conv1").get_weights()
        assert kernel.shape == (11, 11, 3, 96)
        # Neighbouring places of a trained filter are alike, and its filters, which stand in no order, are not.
        along = [
            np.corrcoef(np.take(kernel, range(10), axis).ravel(), np.take(kernel, range(1, 11), axis).ravel())[0, 1]
            for axis in (0, 1)
        ]
        across = np.corrcoef(kernel[..., :-1].ravel(), kernel[..., 1:].ravel())[0, 1]
        assert min(along) > 0.5 > 0.3 > abs(across)


@pytest.fixture(scope="module")
def saved(descriptor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving") / "1"
    rw_keras.export_saved_model(descriptor, folder)
    return folder


@pytest.mark.slow
class TestExport:
    """The grouped convolutions too, at several sizes, by each format's own runtime."""

    PHOTOS = (random_photo(23, 23), random_photo(48, 64), random_photo(101, 37), random_photo(64, 64, batch=2))

    def check(self, model, ask, error=1e-6):
        for photos in self.PHOTOS:
            expected = run(model, photos)
            found = np.asarray(ask(photos))
            assert found.shape == expected.shape
            assert (1 - (found * expected).sum(axis=1)).max() < error

    def test_saved_model(self, descriptor, saved):
        signature = tf.saved_model.load(str(saved)).signatures["pixels"]
        self.check(descriptor, lambda photos: signature(pixels=tf.constant(photos))["descriptor"])

    def test_saved_model_of_image_bytes(self, descriptor, saved, draw):
        signature = tf.saved_model.load(str(saved)).signatures["serving_default"]
        photo = draw(1, 90, 61)
        found = signature(image_bytes=tf.constant([tf.io.encode_png(photo).numpy()]))["descriptor"][0]
        np.testing.assert_allclose(found, rw_keras.describe(descriptor, photo), atol=1e-5)

    def test_onnx(self, descriptor, tmp_path):
        pytest.importorskip("tf2onnx", reason="ONNX needs the extra onnx")
        onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra onnx")
        rw_keras.export_onnx(descriptor, tmp_path / "model.onnx")
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
        self.check(descriptor, lambda photos: session.run(["descriptor"], {"pixels": photos})[0])

    def test_openvino(self, descriptor, tmp_path):
        openvino = pytest.importorskip("openvino", reason="OpenVINO needs the extra openvino")
        rw_keras.export_openvino(descriptor, tmp_path / "model.xml")
        compiled = openvino.Core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        self.check(descriptor, lambda photos: compiled({"pixels": photos})["descriptor"])

    def test_litert(self, descriptor, tmp_path):
        litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT needs the extra litert")
        rw_keras.export_litert(descriptor, tmp_path / "model.tflite")
        interpreter = litert.Interpreter(str(tmp_path / "model.tflite"))

        def ask(photos):
            interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], photos.shape)
            return interpreter.get_signature_runner("serving_default")(pixels=photos)["descriptor"]

        self.check(descriptor, ask)
