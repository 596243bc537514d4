import importlib.util

import keras
import numpy as np
import pytest
from layers import reference

import rw_keras
from rw_keras import backbones


def run(model, photos):
    return keras.ops.convert_to_numpy(model(np.asarray(photos, "float32"), training=False))


def describes(backbone, **arguments):
    return rw_keras.build_descriptor(backbone, whitening=None, **arguments)


def names(model):
    return [layer.name for layer in model.layers]


def assert_same_descriptors(found, expected):
    """Of descriptors, which have unit length, the distance."""
    assert found.shape == expected.shape
    assert np.linalg.norm(found.astype("float64") - expected, axis=-1).max() < reference.RELATIVE_ERROR


def descriptor_of(features):
    """What rw makes of a feature map, in float64."""
    return reference.descriptor(reference.region_sums(reference.weighted(features)))


def convolution(channels, seed, **arguments):
    """One whose map has values of either sign in every channel."""
    kernel = keras.initializers.RandomNormal(stddev=0.01, seed=seed)
    return keras.layers.Conv2D(channels, 3, strides=2, kernel_initializer=kernel, **arguments)


def ending_in(*last, name="network", **arguments):
    photos = keras.Input((None, None, 3))
    features = convolution(12, 1, **arguments)(photos)
    for stage in last:
        features = stage(features)
    return keras.Model(photos, features, name=name)


@keras.saving.register_keras_serializable(package="test_network")
class Shifted(keras.layers.Layer):
    """Its activation is not the last thing it does."""

    activation = staticmethod(keras.activations.relu)

    def call(self, inputs):
        return self.activation(inputs) - 0.5


@pytest.fixture(scope="module")
def photos(draw):
    return np.stack([draw(seed) for seed in range(3)])


def sum_of_map(features):
    """A method that any map, of whatever sign, gives its own result of."""
    return keras.ops.sum(features, axis=(1, 2))[:, None]


# Their layers are made anew for each test.
NON_NEGATIVE = {
    "ReLU": lambda: ending_in(keras.layers.ReLU()),
    "ReLU up to 6": lambda: ending_in(keras.layers.ReLU(max_value=6)),
    "Activation": lambda: ending_in(keras.layers.Activation("relu")),
    "sigmoid": lambda: ending_in(keras.layers.Activation("sigmoid")),
    "convolution with relu": lambda: ending_in(activation="relu"),
    "convolution with softplus": lambda: ending_in(activation="softplus"),
    "batch normalisation before": lambda: ending_in(keras.layers.BatchNormalization(), keras.layers.ReLU()),
}
SIGNED = {
    "linear": lambda: ending_in(),
    "swish": lambda: ending_in(activation="swish"),
    "Activation of swish": lambda: ending_in(keras.layers.Activation("swish")),
    "gelu": lambda: ending_in(activation="gelu"),
    "tanh": lambda: ending_in(activation="tanh"),
    "elu": lambda: ending_in(keras.layers.ELU()),
    "leaky ReLU": lambda: ending_in(keras.layers.LeakyReLU()),
    "activation of leaky ReLU": lambda: ending_in(activation="leaky_relu"),
    "layer normalisation": lambda: ending_in(keras.layers.LayerNormalization(), activation="relu"),
    "batch normalisation": lambda: ending_in(keras.layers.BatchNormalization(center=False), activation="swish"),
    "ReLU with a slope": lambda: ending_in(keras.layers.ReLU(negative_slope=0.1)),
    "ReLU before": lambda: ending_in(keras.layers.ReLU(), convolution(12, 2)),
    "rescaling after": lambda: ending_in(keras.layers.Rescaling(1.0, -0.5), activation="relu"),
    "layer that goes on after its activation": lambda: ending_in(Shifted()),
}


class TestNonNegative:
    @pytest.mark.parametrize("kind", NON_NEGATIVE)
    def test_map_without_negative_values_stays_as_it_is(self, kind, photos):
        network = NON_NEGATIVE[kind]()
        assert run(network, photos).min() >= 0
        model = describes(network)
        assert "rectified" not in names(model)
        assert_same_descriptors(run(model, photos), descriptor_of(run(network, photos)))

    @pytest.mark.parametrize("kind", SIGNED)
    def test_map_with_negative_values_is_that_of_its_relu(self, kind, photos):
        network = SIGNED[kind]()
        features = run(network, photos)
        assert features.min() < 0 < features.max()
        model = describes(network)
        assert names(model).count("rectified") == 1
        assert_same_descriptors(run(model, photos), descriptor_of(np.maximum(features, 0)))

        twin = keras.Model(network.input, keras.layers.ReLU()(network.output))
        assert "rectified" not in names(describes(twin))
        np.testing.assert_array_equal(run(model, photos), run(describes(twin), photos))

    @pytest.mark.parametrize("method", ["sum", sum_of_map])
    def test_of_every_method(self, method, photos):
        network = ending_in(name="network")
        features = np.maximum(run(network, photos), 0)
        expected = reference.unit(features.sum(axis=(1, 2), dtype="float64"))
        assert_same_descriptors(run(describes(network, method=method), photos), expected)

    def test_map_is_looked_at_where_the_network_is_cut(self, photos):
        network = ending_in(keras.layers.ReLU(name="fires"), keras.layers.Rescaling(-1.0))
        assert "rectified" in names(describes(network))
        assert "rectified" not in names(describes(network, layer="fires"))

    def test_whole_range_of_a_map_in_float32_is_kept_under_a_policy_of_lower_precision(self, photos):
        photo = keras.Input((None, None, 3), dtype="float32")
        network = keras.Model(photo, keras.layers.Rescaling(1e4, -1e5, dtype="float32")(photo))
        expected = descriptor_of(np.maximum(run(network, photos), 0))
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model = describes(network)
        finally:
            keras.config.set_dtype_policy(before)
        assert "rectified" in names(model)
        assert_same_descriptors(run(model, photos), expected)

    def test_model_is_saved_and_loaded(self, photos, tmp_path):
        model = describes(ending_in(activation="swish"))
        model.save(tmp_path / "model.keras")
        loaded = rw_keras.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(run(loaded, photos), run(model, photos))


class Subclassed(keras.Model):
    def __init__(self, **arguments):
        super().__init__(name="network")
        self.stages = [convolution(6, 1, activation="relu"), convolution(12, 2, **arguments)]

    def call(self, photos):
        for stage in self.stages:
            photos = stage(photos)
        return photos


def sequential(**arguments):
    return keras.Sequential([convolution(6, 1, activation="relu"), convolution(12, 2, **arguments)], name="network")


def functional(**arguments):
    photos = keras.Input((None, None, 3))
    return keras.Model(photos, convolution(12, 2, **arguments)(convolution(6, 1, activation="relu")(photos)), name="network")


def nested(**arguments):
    return keras.Sequential([keras.Input((None, None, 3)), functional(**arguments)], name="network")


CUSTOM = (functional, sequential, Subclassed, nested)


class TestOnesOwn:
    @pytest.mark.parametrize("activation", ["relu", "swish"])
    @pytest.mark.parametrize("make", CUSTOM)
    def test_value(self, make, activation, photos):
        network = make(activation=activation)
        model = describes(network)
        assert_same_descriptors(run(model, photos), descriptor_of(np.maximum(run(network, photos), 0)))
        assert model.output_shape == (None, 12)
        assert model.recipe["min_side"] == 7

    def test_outputs_and_inputs_by_name(self, photos):
        photo = keras.Input((None, None, 3), name="photo")
        network = keras.Model({"photo": photo}, {"map": convolution(12, 1, activation="relu")(photo)})
        expected = run(describes(ending_in(activation="relu")), photos)
        np.testing.assert_allclose(run(describes(network), photos), expected, atol=1e-6)


def channels(data_format, pooling=keras.layers.MaxPooling2D, activation="relu"):
    """The same network of either data format."""
    photos = keras.Input((None, None, 3) if data_format == "channels_last" else (3, None, None))
    features = convolution(6, 1, activation="relu", data_format=data_format, name="first")(photos)
    features = pooling(2, data_format=data_format)(features)
    features = convolution(12, 2, activation=activation, data_format=data_format, name="second")(features)
    return keras.Model(photos, features, name="network")


@keras.saving.register_keras_serializable(package="test_network")
class Doubled(keras.layers.Layer):
    """A layer of one's own that asks for no data format."""

    def call(self, inputs):
        return inputs * 2.0


class Block(keras.layers.Layer):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.convolution = keras.layers.Conv2D(4, 3, data_format="channels_first")

    def call(self, inputs):
        return self.convolution(inputs)


def squeezed(x, form, axis):
    """Squeeze and excitation: channels weighed by a function of their means."""
    weights = keras.layers.GlobalAveragePooling2D(keepdims=True, **form)(x)
    return keras.layers.Multiply()([x, keras.layers.Conv2D(6, 1, activation="sigmoid", **form)(weights)])


def twice(x, form, axis):
    convolution = keras.layers.Conv2D(6, 3, padding="same", **form)
    return keras.layers.Add()([convolution(x), convolution(convolution(x))])


def nested_in(x, form, axis):
    inner = keras.Sequential([keras.layers.Conv2D(6, 3, activation="relu", **form), keras.layers.BatchNormalization(axis=axis)])
    return inner(x)


# From a map of 6 channels to another, of the same layers in either data format: (map, the format, the channels' axis) -> map.
OF_EITHER_FORMAT = {
    "batch normalisation": lambda x, form, axis: keras.layers.BatchNormalization(axis=axis)(x),
    "batch normalisation of an axis from the end": lambda x, form, axis: keras.layers.BatchNormalization(axis=axis - 4)(x),
    "layer normalisation": lambda x, form, axis: keras.layers.Permute((3, 1, 2) if axis == 1 else (1, 2, 3))(
        keras.layers.LayerNormalization()(keras.layers.Permute((2, 3, 1) if axis == 1 else (1, 2, 3))(x))
    ),
    "group normalisation": lambda x, form, axis: keras.layers.GroupNormalization(2, axis=axis)(x),
    "concatenation": lambda x, form, axis: keras.layers.Concatenate(axis=axis)([x, keras.layers.ReLU()(x)]),
    "addition": lambda x, form, axis: keras.layers.Add()([x, keras.layers.Conv2D(6, 1, **form)(x)]),
    "operation": lambda x, form, axis: keras.ops.add(x, keras.layers.Conv2D(6, 1, **form)(x)),
    "padding": lambda x, form, axis: keras.layers.ZeroPadding2D(((1, 0), (2, 3)), **form)(x),
    "cropping": lambda x, form, axis: keras.layers.Cropping2D(((1, 0), (2, 3)), **form)(x),
    "upsampling": lambda x, form, axis: keras.layers.UpSampling2D((2, 3), **form)(x),
    "depthwise": lambda x, form, axis: keras.layers.DepthwiseConv2D((3, 2), depth_multiplier=2, **form)(x),
    "separable": lambda x, form, axis: keras.layers.SeparableConv2D(5, (3, 2), **form)(x),
    "transposed": lambda x, form, axis: keras.layers.Conv2DTranspose(5, (3, 2), strides=2, **form)(x),
    "groups": lambda x, form, axis: keras.layers.Conv2D(8, 3, groups=2, **form)(x),
    "strides and dilation": lambda x, form, axis: keras.layers.Conv2D(5, (2, 3), dilation_rate=(2, 1), **form)(
        keras.layers.Conv2D(6, 3, strides=(1, 2), padding="same", **form)(x)
    ),
    "squeezed": squeezed,
    "layer called twice": twice,
    "model": nested_in,
    "own layer": lambda x, form, axis: Doubled()(x),
    "softmax over the channels": lambda x, form, axis: keras.layers.Softmax(axis=axis)(x),
    "dropout": lambda x, form, axis: keras.layers.SpatialDropout2D(0.5, **form)(keras.layers.Dropout(0.5)(x)),
}


# The permutations that are left in the network, around layers that are not turned.
PERMUTED = {
    "layer normalisation": 4,  # two of them its own
    "group normalisation": 2,
    "operation": 3,
    "model": 4,  # two of them inside
    "own layer": 2,
    "softmax over the channels": 2,
    "dropout": 2,
}


def of_either_format(middle, data_format):
    form, axis = {"data_format": data_format}, 3 if data_format == "channels_last" else 1
    photos = keras.Input((None, None, 3) if axis == 3 else (3, None, None))
    x = keras.layers.Conv2D(6, 3, strides=2, activation="tanh", **form)(photos)
    x = keras.layers.Conv2D(7, 3, **form)(middle(x, form, axis))
    return keras.Model(photos, keras.layers.MaxPooling2D(2, **form)(x), name="network")


@pytest.fixture
def channels_first():
    """Keras set to channels first for the test."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


class TestChannelsFirst:
    @pytest.mark.slow
    @pytest.mark.parametrize("activation", ["relu", "swish"])
    @pytest.mark.parametrize("pooling", [keras.layers.MaxPooling2D, keras.layers.AveragePooling2D])
    def test_describes_as_its_twin_of_channels_last(self, pooling, activation, photos, tmp_path):
        first, last = (channels(f"channels_{end}", pooling, activation) for end in ("first", "last"))
        first.set_weights(last.get_weights())
        model, twin = describes(first), describes(last)
        assert model.input_shape == (None, None, None, 3)
        assert model.output_shape == (None, 12)
        assert model.recipe["min_side"] == twin.recipe["min_side"]
        # The descriptor of a map that lies on its side would be the same.
        features = keras.Model(model.input, model.get_layer("spatial_weight").input)
        np.testing.assert_allclose(run(features, photos), np.maximum(run(last, photos), 0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(run(model, photos), run(twin, photos), atol=1e-6)
        np.testing.assert_allclose(rw_keras.describe(model, photos), run(twin, photos), atol=1e-6)
        np.testing.assert_allclose(run(model, photos[:, :33, 5:]), run(twin, photos[:, :33, 5:]), atol=1e-6)

        model.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(run(rw_keras.load_model(tmp_path / "model.keras"), photos), run(model, photos))

    def test_activation_along_an_axis(self, photos):
        """A convolution's softmax goes along the last axis of what it gives, which is the width there."""
        first, last = (channels(f"channels_{end}", activation="linear") for end in ("first", "last"))
        first.set_weights(last.get_weights())
        first.get_layer("second").activation = keras.activations.softmax
        expected = keras.ops.softmax(run(last, photos / 255), axis=2)
        model = describes(first)
        features = keras.Model(model.input, model.get_layer("spatial_weight").input)
        np.testing.assert_allclose(run(features, photos / 255), expected, rtol=1e-5)

    def test_cut_at_a_layer(self, photos):
        first, last = (channels(f"channels_{end}") for end in ("first", "last"))
        found = run(describes(first, layer="first"), photos)
        assert found.shape == (3, 6)
        np.testing.assert_allclose(found, run(describes(last, layer="first"), photos), atol=1e-6)

    def test_networks_of_one_kind_that_differ_have_other_recipes(self):
        made = [describes(channels("channels_first", pooling)).recipe for pooling in (keras.layers.MaxPooling2D,) * 2]
        assert made[0] == made[1]
        assert made[0] != describes(channels("channels_first", keras.layers.AveragePooling2D)).recipe
        assert made[0] != describes(channels("channels_last")).recipe
        assert made[0] != describes(channels("channels_first"), layer="first").recipe

    @pytest.mark.parametrize("kind", OF_EITHER_FORMAT)
    def test_layers_of_every_kind(self, kind, photos, tmp_path):
        first, last = (of_either_format(OF_EITHER_FORMAT[kind], f"channels_{end}") for end in ("first", "last"))
        random = np.random.default_rng(1)
        for ours, theirs in zip(first.weights, last.weights, strict=True):
            assert ours.shape == theirs.shape
            theirs.assign(
                np.abs(random.normal(size=theirs.shape)) if "variance" in theirs.path else random.normal(size=theirs.shape)
            )
            ours.assign(theirs)
        model = describes(first)
        features = keras.Model(model.input, model.get_layer("spatial_weight").input)
        expected = np.maximum(run(last, photos), 0)
        assert expected.std() > 0
        np.testing.assert_allclose(run(features, photos), expected, rtol=1e-5, atol=1e-5 * expected.max())
        layers = model._flatten_layers()
        assert not [
            layer.name for layer in layers if getattr(layer, "kernel", None) is not None and layer.data_format != "channels_last"
        ]
        assert sum(isinstance(layer, keras.layers.Permute) for layer in layers) == PERMUTED.get(kind, 0)
        if kind in ("model", "own layer", "operation"):  # the others are Keras' own layers, one after another
            model.save(tmp_path / "model.keras")
            np.testing.assert_array_equal(run(rw_keras.load_model(tmp_path / "model.keras"), photos), run(model, photos))

    def test_the_users_own_model_is_left_as_it_is(self, photos):
        network = channels("channels_first")
        before = [(layer.name, layer.get_config()) for layer in network.layers]
        weights = network.get_weights()
        model = describes(network)
        model.set_weights([value + 1 for value in model.get_weights()])
        assert [(layer.name, layer.get_config()) for layer in network.layers] == before
        for value, kept in zip(network.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(value, kept)

    def test_channels_first_inside_a_model_that_takes_channels_last(self, photos):
        taken = keras.Input((None, None, 3))
        inner, last = channels("channels_first"), channels("channels_last")
        inner.set_weights(last.get_weights())
        turned = keras.layers.Permute((3, 1, 2))(keras.layers.Rescaling(0.5)(taken))
        network = keras.Model(taken, keras.layers.Permute((2, 3, 1))(inner(turned)), name="network")
        np.testing.assert_allclose(run(describes(network), photos), run(describes(last), photos * 0.5), atol=1e-6)

    def test_layer_that_convolves_channels_first_by_itself_is_refused(self):
        taken = keras.Input((3, None, None))
        network = keras.Model(taken, Block(name="block")(taken), name="network")
        with pytest.raises(ValueError, match=r"'network' .* channels first in its layer 'block' \(Block\).*channels_last"):
            describes(network)

    @pytest.mark.parametrize("make", [sequential, Subclassed])
    def test_model_that_is_not_functional_is_refused(self, make):
        with pytest.raises(ValueError, match=r"'network' .* channels first and is no functional model.*channels_last"):
            describes(make(data_format="channels_first"))

    def test_operation_that_convolves_channels_first_is_refused(self):
        taken = keras.Input((3, None, None))
        features = keras.ops.conv(taken, np.ones((3, 3, 3, 4), "float32"), data_format="channels_first")
        with pytest.raises(ValueError, match=r"'network' .* channels first in its layer .* \(Conv\).*channels_last"):
            describes(keras.Model(taken, features, name="network"))

    @pytest.mark.parametrize("method", ["rw", "sum"])
    def test_model_of_channels_first_where_keras_is_set_to_them(self, method, photos, channels_first):
        found = run(describes(channels("channels_first"), method=method), photos)
        keras.config.set_image_data_format("channels_last")
        np.testing.assert_allclose(found, run(describes(channels("channels_last"), method=method), photos), atol=1e-6)

    @pytest.mark.parametrize("name", ["vgg16", "alexnet", "resnet50"])
    def test_name_is_refused_where_keras_is_set_to_them(self, name, channels_first):
        with pytest.raises(ValueError, match=f"{name}.* takes channels last, but Keras is set to channels_first.*set_image_data"):
            describes(name, weights=None)


def of_shape(shape, *last):
    photos = keras.Input(shape)
    features = photos
    for stage in last or [keras.layers.ReLU()]:
        features = stage(features)
    return keras.Model(photos, features, name="network")


def of_two_inputs():
    both = [keras.Input((None, None, 3)), keras.Input((None, None, 3))]
    return keras.Model(both, keras.layers.Add()(both), name="network")


def of_two_outputs():
    photos = keras.Input((None, None, 3))
    return keras.Model(photos, [keras.layers.ReLU()(photos), photos], name="network")


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda: of_shape((224, 224, 3)), r"'network' takes \(None, 224, 224, 3\); it has to take photos of any size"),
            (lambda: of_shape((3, 224, 224)), r"'network' takes \(None, 3, 224, 224\); it has to take photos of any size"),
            (lambda: of_shape((None, None, 1)), r"'network' takes \(None, None, None, 1\); it has to take photos"),
            (lambda: of_shape((None, 3)), r"'network' takes \(None, None, 3\); it has to take photos"),
            (of_two_inputs, r"'network' takes \(None, None, None, 3\), \(None, None, None, 3\); .* alone"),
            (of_two_outputs, "'network' has 2 outputs; give one that ends in its map alone"),
            (
                lambda: of_shape((None, None, 3), keras.layers.GlobalMaxPooling2D()),
                r"'network' ends in the shape \(None, 3\), not in a feature map .*`layer=`",
            ),
            (
                lambda: of_shape((None, None, 3), keras.layers.Reshape((-1, 3))),
                r"'network' ends in the shape \(None, None, 3\), not in a feature map",
            ),
        ],
    )
    def test_network_of_another_form(self, make, words):
        with pytest.raises(ValueError, match=words):
            describes(make())

    @pytest.mark.parametrize("backbone", [3, None, ["vgg16"], keras.layers.ReLU(), keras.applications.VGG16])
    def test_what_is_no_backbone(self, backbone):
        with pytest.raises(ValueError, match=r"A backbone is a name or a keras\.Model, but got .*vgg16"):
            describes(backbone)

    def test_unknown_name_with_those_there_are(self):
        with pytest.raises(ValueError, match="There is no backbone 'vgg-16'; choose one of ") as refused:
            describes("vgg-16")
        for name in backbones.BACKBONES:
            assert name in str(refused.value)

    @pytest.mark.parametrize("weights", [None, "own.h5"])
    def test_weights_beside_a_model(self, weights):
        with pytest.raises(ValueError, match=rf"weights={weights!r} does not go with a keras\.Model"):
            describes(functional(), weights=weights)

    def test_layer_of_a_model_that_is_not_functional(self):
        with pytest.raises(ValueError, match="'network' is no functional model, so it cannot be cut at layer='first'"):
            describes(Subclassed(), layer="first")

    def test_unknown_layer_of_a_model(self):
        with pytest.raises(ValueError, match="No such layer: third"):
            describes(functional(), layer="third")


@pytest.fixture
def registered():
    """Puts the registry back after the test."""
    kept, licences = dict(backbones.BACKBONES), dict(backbones.LICENCES)
    yield
    for registry, before in ((backbones.BACKBONES, kept), (backbones.LICENCES, licences)):
        registry.clear()
        registry.update(before)


@pytest.mark.usefixtures("registered")
class TestRegister:
    def test_network_of_a_new_name(self, photos):
        @backbones.register("mine", licence="MIT")
        def mine(layer="second", weights="imagenet"):
            taken = keras.Input((None, None, 3), name="photos")
            features = keras.layers.Rescaling(1 / 255, name="preprocessing")(taken)
            features = convolution(6, 1, activation="relu", name="first")(features)
            whole = keras.Model(taken, convolution(12, 2, activation="swish", name="second")(features))
            if weights == "other":
                whole.get_layer("second").bias.assign(np.full(12, 0.1))
            return keras.Model(taken, whole.get_layer(layer).output, name="mine")

        assert mine().output_names == ["second"]  # the decorator hands the function back
        assert backbones.LICENCES["mine"] == "MIT"
        for name in ("mine", "Mine", "MINE"):
            model = describes(name)
            assert (model.recipe["backbone"], model.recipe["layer"], model.recipe["min_side"]) == ("mine", "second", 7)
            assert_same_descriptors(run(model, photos), descriptor_of(np.maximum(run(mine(), photos), 0)))
        cut = describes("mine", layer="first", weights="other")
        assert cut.output_shape == (None, 6)
        assert_same_descriptors(
            run(describes("mine", weights="other"), photos), descriptor_of(np.maximum(run(mine(weights="other"), photos), 0))
        )
        with pytest.raises(ValueError, match=r"no backbone 'yours'; choose one of .*, mine\b"):
            describes("yours")

    def test_name_in_upper_case_is_refused(self):
        with pytest.raises(ValueError, match="A backbone's name is in lower case, but got 'MyNet'; call it 'mynet'"):
            backbones.register("MyNet")
        assert not {"MyNet", "mynet"} & set(backbones.BACKBONES)

    def test_licence_that_is_not_given_is_not_known(self):
        backbones.register("mine")(lambda layer=None, weights=None: functional())
        assert backbones.LICENCES["mine"] == "not known"

    def test_what_it_builds_is_looked_at_as_any_other(self):
        backbones.register("mine")(lambda layer=None, weights=None: of_shape((224, 224, 3)))
        with pytest.raises(ValueError, match=r"'network' takes .*; it has to take photos of any size"):
            describes("mine")


@pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="KerasHub is not installed: pip install rw_keras[hub]")
class TestKerasHub:
    def backbone(self, kind):
        import keras_hub

        if kind == "VGG":
            return keras_hub.models.VGGBackbone(stackwise_num_repeats=[1, 1], stackwise_num_filters=[8, 16])
        return keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128],
            stackwise_num_blocks=[1, 1],
            stackwise_num_strides=[1, 2],
            block_type="basic_block",
            use_pre_activation=kind == "ResNet V2",
        )

    @pytest.mark.parametrize("kind", ["VGG", "ResNet", "ResNet V2"])
    def test_backbone_is_a_network(self, kind, photos, tmp_path):
        network = self.backbone(kind)
        model = describes(network)
        assert model.output_shape == (None, 16 if kind == "VGG" else 128)
        assert_same_descriptors(run(model, photos), descriptor_of(run(network, photos)))
        assert model.recipe["backbone"].startswith(network.name)
        model.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(run(rw_keras.load_model(tmp_path / "model.keras"), photos), run(model, photos))

    def test_backbone_is_cut_at_a_layer(self, photos):
        network = self.backbone("ResNet")
        features = keras.Model(network.input, network.get_layer("stack0_block0_out").output)
        found = run(describes(network, layer="stack0_block0_out"), photos)
        assert_same_descriptors(found, descriptor_of(run(features, photos)))
