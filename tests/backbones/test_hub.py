"""KerasHub's networks under the layers, against KerasHub's own outputs."""

import functools
import sys

import keras
import numpy as np
import pytest
from backbones import hub_networks
from layers.habits import BACKEND, run

import rw_keras
from rw_keras import backbones
from rw_keras.model.build import from_recipe

pytest.importorskip("keras_hub", reason='KerasHub is not installed: pip install "rw_keras[hub]"')

# Family -> (network, its input's name, its tokens before those of the patches).
TRANSFORMERS = {
    "DINOv2": (hub_networks.dinov2, "images", 1),
    "DINOv2 with registers": (
        functools.partial(hub_networks.dinov2, num_register_tokens=3, use_swiglu_ffn=True),
        "images",
        4,
    ),
    "DINOv2 with a table of another size": (functools.partial(hub_networks.dinov2, 16, 28), "images", 1),
    "DINOv2 with an antialiased table": (
        functools.partial(hub_networks.dinov2, 16, 28, antialias_in_interpolation=True),
        "images",
        1,
    ),
    "DINOv3": (hub_networks.dinov3, "pixel_values", 5),
    "ViT": (hub_networks.vit, None, 1),
    "ViT without a class token": (functools.partial(hub_networks.vit, use_class_token=False), None, 0),
    "CLIP": (hub_networks.clip, "images", 1),
    "SigLIP": (hub_networks.siglip, "images", 0),
}
SIZES = ((31, 17), (8, 40))


def photos_of(height, width, batch=2):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3)).astype("float32")


def own_tokens(network, name, photos):
    """The tokens that KerasHub makes of photos of its own size."""
    pixels = hub_networks.converter()(photos)
    vision = getattr(network, "vision_encoder", network)
    if vision is not network:
        last = vision.layer_norm if hasattr(vision, "layer_norm") else vision.post_layer_norm
        vision = keras.Model(vision.inputs, last.output)
        return keras.ops.convert_to_numpy(vision([pixels]))
    return keras.ops.convert_to_numpy(network({name: pixels} if name else pixels))


def side_of(network):
    return getattr(network, "vision_encoder", network).image_shape[:2]


# Those that the default run has.
QUICK = ("DINOv2 with registers", "CLIP")


@pytest.mark.parametrize("family", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TRANSFORMERS])
class TestTransformers:
    def test_at_its_own_size_the_map_is_kerashubs(self, family):
        if BACKEND == "torch" and family == "DINOv2 with a table of another size":
            pytest.skip("PyTorch's bicubic filter is another one; this network's values are the same on every backend")
        make, name, prefix = TRANSFORMERS[family]
        network = make()
        photos = photos_of(*side_of(network))
        found = run(backbones.hub(network, hub_networks.converter()), photos)
        expected = own_tokens(network, name, photos)
        np.testing.assert_allclose(found, expected[:, prefix:].reshape(found.shape), atol=1e-5)

    def test_model_takes_any_size_and_is_saved(self, family, tmp_path):
        make, _, prefix = TRANSFORMERS[family]
        network = backbones.hub(make(), hub_networks.converter())
        assert (network.min_side, network.output_shape) == (4, (None, None, None, 16))
        method = "class_rw" if prefix else "signed_rw"
        model = rw_keras.build_descriptor(network, method=method, levels=2, whitening=None)
        model.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        assert loaded.recipe == model.recipe
        for size in SIZES:
            assert run(network, photos_of(*size)).shape[1:3] == tuple((side + 2) // 4 for side in size)
            found = run(model, photos_of(*size))
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
            np.testing.assert_allclose(run(loaded, photos_of(*size)), found, atol=1e-6)


@pytest.mark.parametrize("family", ["DINOv2", pytest.param("DINOv3", marks=pytest.mark.slow)])
def test_another_size_is_that_of_kerashub_built_for_it(family):
    """SigLIP, CLIP and ViT have the size of their table alone in KerasHub."""
    if BACKEND == "torch" and family == "DINOv2":
        pytest.skip("PyTorch's bicubic filter is another one; this network's values are the same on every backend")
    make, name, prefix = TRANSFORMERS[family]
    network, photos = make(), photos_of(12, 12)
    found = run(backbones.hub(network, hub_networks.converter()), photos)
    expected = own_tokens(hub_networks.of_another_size(network, 12), name, photos)[:, prefix:]
    # TensorFlow rounds the filter of a table to 1/1024 of a cell.
    atol = 1e-3 if family == "DINOv2" and BACKEND == "tensorflow" else 1e-5
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=atol)


def test_a_table_that_was_trained_at_another_size_is_taken():
    network = hub_networks.dinov2(16, 28)
    used = network.embeddings.interpolated_position_embeddings
    used.assign(keras.ops.convert_to_numpy(used) + np.random.default_rng(1).normal(size=used.shape))
    photos = photos_of(16, 16)
    found = run(backbones.hub(network, hub_networks.converter()), photos)
    expected = own_tokens(network, "images", photos)[:, 1:]
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-5)


@pytest.mark.slow
def test_a_saved_model_without_kerashub_names_what_to_install(tmp_path, monkeypatch):
    network = backbones.hub(hub_networks.dinov2(), hub_networks.converter())
    rw_keras.build_descriptor(network, method="class_token", whitening=None).save(tmp_path / "model.keras")
    monkeypatch.setitem(sys.modules, "keras_hub.src.models.dinov2.dinov2_layers", None)
    with pytest.raises(ValueError, match=r'holds layers of KerasHub, .*pip install "rw_keras\[hub\]"'):
        rw_keras.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("make", [hub_networks.clip, hub_networks.siglip])
def test_joint_is_kerashubs_embedding(make):
    network, photos = make(), photos_of(20, 20)
    expected = keras.ops.convert_to_numpy(network.get_vision_embeddings(hub_networks.converter()(photos)))
    joint = backbones.hub(network, hub_networks.converter(), layer="joint")
    np.testing.assert_allclose(run(joint, photos)[:, 0, 0], expected, atol=1e-5)
    model = rw_keras.build_descriptor(joint, method="auto", whitening=None)
    assert (model.recipe["method"], model.recipe["layer"]) == ("joint", "joint")
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(run(model, photos), expected / lengths, atol=1e-5)


class TestMethods:
    def test_class_token_is_kerashubs(self):
        network, photos = hub_networks.dinov2(num_register_tokens=2), photos_of(20, 20)
        model = rw_keras.build_descriptor(backbones.hub(network, hub_networks.converter()), method="auto", whitening=None)
        assert model.recipe["method"] == "class_token"
        expected = own_tokens(network, "images", photos)[:, 0]
        np.testing.assert_allclose(run(model, photos), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)

    def test_class_token_is_one_more_region_of_the_whole_photo(self):
        network = backbones.hub(hub_networks.dinov2(), hub_networks.converter())
        model = rw_keras.build_descriptor(network, method="class_rw", levels=1, whitening=None)
        alone = rw_keras.build_descriptor(network, method="signed_rw", levels=1, whitening=None)
        found, expected = (one.with_regions()(photos_of(20, 28, 1)) for one in (model, alone))
        vectors, boxes = (keras.ops.convert_to_numpy(output)[0] for output in found[1:])
        assert boxes[0].tolist() == [0, 0, 1, 1]
        np.testing.assert_array_equal(boxes[1:], keras.ops.convert_to_numpy(expected[2])[0])
        np.testing.assert_allclose(vectors[1:], keras.ops.convert_to_numpy(expected[1])[0], atol=1e-6)

    def test_unknown_pairs_are_refused(self):
        photos = keras.Input((None, None, 3))
        convolution = keras.Model(photos, keras.layers.Conv2D(4, 3)(photos), name="one")
        with pytest.raises(ValueError, match="no class token"):
            rw_keras.build_descriptor(convolution, method="class_token")
        with pytest.raises(ValueError, match="takes a pooled embedding"):
            rw_keras.build_descriptor(convolution, method="joint")
        with pytest.raises(ValueError, match="'hub_DINOV2Backbone' has no embedding that it shares with text; take CLIP or SigLIP"):
            backbones.hub(hub_networks.dinov2(), hub_networks.converter(), layer="joint")
        assert rw_keras.build_descriptor(convolution, method="auto", whitening=None).recipe["method"] == "rw"

    def test_a_function_of_ones_own_takes_the_class_token(self):
        def both(features):
            return rw_keras.methods.class_rw(features, levels=1)

        network = backbones.hub(hub_networks.dinov2(), hub_networks.converter())
        model = rw_keras.build_descriptor(network, method=rw_keras.methods.takes_signed(both), whitening=None)
        same = rw_keras.build_descriptor(network, method="class_rw", levels=1, whitening=None)
        np.testing.assert_array_equal(run(model, photos_of(9, 14)), run(same, photos_of(9, 14)))


class TestConvolutional:
    def network(self, image_shape=(None, None, 3)):
        import keras_hub

        return keras_hub.models.VGGBackbone(stackwise_num_repeats=[1, 1], stackwise_num_filters=[8, 16], image_shape=image_shape)

    @pytest.mark.parametrize("image_shape", [(24, 32, 3), pytest.param((None, None, 3), marks=pytest.mark.slow)])
    def test_map_is_kerashubs(self, image_shape, tmp_path):
        network = self.network(image_shape)
        found = backbones.hub(network, hub_networks.converter(image_size=(8, 8)), name="tiny")
        photos = photos_of(24, 32)
        expected = keras.ops.convert_to_numpy(network(hub_networks.converter()(photos)))
        np.testing.assert_allclose(run(found, photos), expected, atol=1e-5)
        model = rw_keras.build_descriptor(found, whitening=None)
        assert (model.recipe["method"], model.recipe["layer"]) == ("rw", "map")
        model.save(tmp_path / "model.keras")
        np.testing.assert_allclose(run(rw_keras.load_model(tmp_path / "model.keras"), photos), run(model, photos), atol=1e-6)

    def test_what_ends_in_no_map_is_refused(self):
        photos = keras.Input((32, 32, 3))
        pooled = keras.Model(photos, keras.layers.GlobalMaxPooling2D()(photos))
        with pytest.raises(ValueError, match=r"'hub_Functional' \(Functional\) gives \(None, 3\), and neither one feature map"):
            backbones.hub(pooled, None)

    def test_a_converter_that_does_more_is_refused(self):
        with pytest.raises(ValueError, match="The converter of 'tiny', Rescaling, does more than to resize and scale"):
            backbones.hub(self.network(), keras.layers.Rescaling(2.0), name="tiny")

    def test_a_cut_that_there_is_not_is_refused(self):
        with pytest.raises(ValueError, match="cut at one of map, joint, auto, but got layer='block1'"):
            backbones.hub(self.network(), None, layer="block1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "tiny_clip"
    return str(hub_networks.save_preset(str(folder), hub_networks.clip(), hub_networks.clip_preprocessor()))


class TestPresets:
    @pytest.mark.slow
    def test_recipe_builds_the_same_model_again(self, folder):
        model = rw_keras.build_descriptor(f"hub:{folder}", method="auto", whitening=None)
        assert (model.recipe["backbone"], model.recipe["method"], model.name) == (f"hub:{folder}", "joint", "joint_tiny_clip")
        again = from_recipe(model.recipe)
        assert again.recipe == model.recipe
        np.testing.assert_array_equal(run(again, photos_of(9, 14)), run(model, photos_of(9, 14)))
        assert rw_keras.build_descriptor(f"HUB:{folder}", method="gem", whitening=None).recipe["layer"] == "map"

    @pytest.mark.slow
    def test_words_find_photos(self, folder, tmp_path):
        model = rw_keras.build_descriptor(f"hub:{folder}", method="joint", whitening=None)
        photos = [photos_of(25, 31, 1)[0].astype("uint8") + seed for seed in range(3)]
        described = rw_keras.describe(model, photos)
        index = rw_keras.retrieval.Index(["one", "two", "three"], described, recipe=described.recipe)
        network, preprocessor = hub_networks.clip(), hub_networks.clip_preprocessor()
        asked = preprocessor({"prompts": ["red box"], "images": photos_of(20, 20, 1)})
        expected = keras.ops.convert_to_numpy(network.get_text_embeddings(asked["token_ids"]))[0]
        expected /= np.linalg.norm(expected)
        for options in ({}, {"encoder": backbones.TextPart(network, preprocessor)}):
            found = index.search_text(model, "red box", k=3, **options)
            scores = {name: score for name, score in zip(index.names, np.asarray(described) @ expected)}
            assert dict(found) == pytest.approx(scores, abs=1e-5)
            assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
        with pytest.raises(ValueError, match="some words, such as"):
            index.search_text(model, " ")
        with pytest.raises(ValueError, match=r"vector has the shape \(3,\), and the index 10 dimensions"):
            index.search_text(model, "red box", encoder=lambda text: np.ones(3))

    @pytest.mark.slow
    def test_words_need_a_space_that_is_shared(self, tiny_model):
        model = tiny_model()
        described = rw_keras.describe(model, [photos_of(25, 31, 1)[0].astype("uint8")])
        index = rw_keras.retrieval.Index(["one"], described, recipe=described.recipe)
        with pytest.raises(ValueError, match="by the method 'rw' share no space with texts; describe the photos"):
            index.search_text(model, "red box")
        joint = backbones.hub(hub_networks.clip(), None, layer="joint")
        own = rw_keras.build_descriptor(joint, method="joint", whitening=None)
        described = rw_keras.describe(own, [photos_of(25, 31, 1)[0].astype("uint8")])
        index = rw_keras.retrieval.Index(["one"], described, recipe=described.recipe)
        with pytest.raises(ValueError, match="a network of your own, is not known; pass encoder="):
            index.search_text(own, "red box")
        with pytest.raises(ValueError, match="DINOV2Backbone has no text part"):
            backbones.TextPart(hub_networks.dinov2(), None)

    def test_a_preset_that_there_is_not_is_refused(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"KerasHub has no Backbone of the preset '.*nothing', or it could not be"):
            rw_keras.build_descriptor(f"hub:{tmp_path / 'nothing'}")

    def test_weights_of_a_file_are_refused(self, folder):
        with pytest.raises(ValueError, match=r"A preset of KerasHub has its own weights, but got weights='mine\.h5'"):
            rw_keras.build_descriptor(f"hub:{folder}", weights="mine.h5")

    def test_licences(self):
        assert backbones.licence_of("hub:dinov3_vit_small_lvd1689m").startswith("DINOv3 License")
        assert backbones.licence_of("hub:resnet_50_imagenet") == "not known"
        assert backbones.licence_of("vgg16") == backbones.LICENCES["vgg16"]
