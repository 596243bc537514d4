"""The networks of `keras.applications`, each under its name in lower case, with its preprocessing inside.

Their retrieval quality with these layers is not measured. NASNet is left out: where the size is not known, Keras builds another,
broken network. MobileNetV2, MobileNetV3 and EfficientNetB0 to B7 pad a map of an odd side, where the size is not known, as if it
were even: of n pixels they leave n // 32 cells, where a network built for the one size may leave one more.
"""

import functools
import os
import pathlib
import warnings

import keras

from rw_keras.backbones import keras_files
from rw_keras.backbones.registry import BACKBONES, register
from rw_keras.backbones.sizes import photo_model
from rw_keras.backbones.weights import keras_downloads
from rw_keras.layers import ImageNetPreprocessing

# How photos 0..255 in R, G, B become what a network takes, by the names of `keras.applications.imagenet_utils`. The networks under
# "inside" do it themselves.
_NETWORKS = {
    "caffe": "VGG19 ResNet50 ResNet101 ResNet152",
    "tf": "ResNet50V2 ResNet101V2 ResNet152V2 InceptionV3 InceptionResNetV2 Xception MobileNet MobileNetV2",
    "torch": "DenseNet121 DenseNet169 DenseNet201",
    "inside": "MobileNetV3Small MobileNetV3Large EfficientNetB0 EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 "
    "EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B0 EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 "
    "EfficientNetV2S EfficientNetV2M EfficientNetV2L ConvNeXtTiny ConvNeXtSmall ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge",
}
# Channels of the map, the fewest pixels a side, and the licence of the weights as Keras' documentation or the repository that they
# came from states it.
_FACTS = {
    "VGG19": (512, 16, "Creative Commons Attribution"),
    **dict.fromkeys("ResNet50 ResNet101 ResNet152".split(), (2048, 1, "MIT")),
    **dict.fromkeys("ResNet50V2 ResNet101V2 ResNet152V2".split(), (2048, 1, "BSD")),
    "InceptionV3": (2048, 75, "Apache 2.0"),
    "InceptionResNetV2": (1536, 75, "Apache 2.0"),
    "Xception": (2048, 7, "MIT"),
    "MobileNet": (1024, 31, "Apache 2.0"),
    "MobileNetV2": (1280, 31, "Apache 2.0"),
    "MobileNetV3Small": (576, 31, "Apache 2.0"),
    "MobileNetV3Large": (960, 31, "Apache 2.0"),
    "DenseNet121": (1024, 29, "BSD"),
    "DenseNet169": (1664, 29, "BSD"),
    "DenseNet201": (1920, 29, "BSD"),
    "EfficientNetB0": (1280, 32, "Apache 2.0"),
    "EfficientNetB1": (1280, 32, "Apache 2.0"),
    "EfficientNetB2": (1408, 32, "Apache 2.0"),
    "EfficientNetB3": (1536, 32, "Apache 2.0"),
    "EfficientNetB4": (1792, 32, "Apache 2.0"),
    "EfficientNetB5": (2048, 32, "Apache 2.0"),
    "EfficientNetB6": (2304, 32, "Apache 2.0"),
    "EfficientNetB7": (2560, 32, "Apache 2.0"),
    "EfficientNetV2B0": (1280, 1, "Apache 2.0"),
    "EfficientNetV2B1": (1280, 1, "Apache 2.0"),
    "EfficientNetV2B2": (1408, 1, "Apache 2.0"),
    "EfficientNetV2B3": (1536, 1, "Apache 2.0"),
    **dict.fromkeys("EfficientNetV2S EfficientNetV2M EfficientNetV2L".split(), (1280, 1, "Apache 2.0")),
    "ConvNeXtTiny": (768, 32, "MIT"),
    "ConvNeXtSmall": (768, 32, "MIT"),
    "ConvNeXtBase": (1024, 32, "MIT"),
    "ConvNeXtLarge": (1536, 32, "MIT"),
    "ConvNeXtXLarge": (2048, 32, "MIT"),
}
# Where the last map is not the one to take: VGG's are pooled once more after their last convolution.
_DEFAULT_LAYERS = {"VGG19": "block5_conv4"}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of R, G, B, 0..1


def application(
    class_name: str, preprocessing: str, layer: str | None = None, weights: str | os.PathLike[str] | None = "imagenet"
) -> keras.Model:
    """A network of `keras.applications` up to a layer.

    Input: RGB photos `(B, H, W, 3)`, 0..255, of any size from about 32 x 32. Output: the map of the layer.

    Args:
        class_name: as `keras.applications` has it, such as "ResNet50".
        preprocessing: "caffe", "tf", "torch" or "inside".
        layer: the name of the last layer, one of Keras' own. Default: the last map, after a ReLU called "features", which
            changes nothing where the network ends in one.
        weights: "imagenet" (Keras' own download, or its cache), the path of a file that `save_weights` or `save` of such a network
            without its top wrote (.weights.h5, .h5, .keras), or `None` for random ones.

    Returns:
        A functional `keras.Model`, with all its layers in it by name.
    """
    name = class_name.lower()
    photos = keras.Input((None, None, 3), name="photos")
    options = {"include_preprocessing": True} if class_name.startswith(("MobileNetV3", "EfficientNetV2", "ConvNeXt")) else {}
    build = functools.partial(
        getattr(keras.applications, class_name), include_top=False, input_tensor=_preprocess(photos, preprocessing), **options
    )
    if weights == "imagenet":
        network = _with_imagenet_weights(build, class_name)
    else:
        network = build(weights=None)
        if weights is not None:
            _load(network, pathlib.Path(weights), class_name)
    layer = layer or _DEFAULT_LAYERS.get(class_name, "features")
    if layer == "features":
        return photo_model(photos, keras.layers.ReLU(name="features")(network.output), name)
    names = [item.name for item in network.layers]
    if layer not in names:
        raise ValueError(f"{class_name} has no layer {layer!r} to cut at; its last ones are {', '.join(names[-8:])}.")
    return photo_model(photos, network.get_layer(layer).output, name)


def _preprocess(photos, mode):
    if mode == "caffe":
        return ImageNetPreprocessing(name="preprocessing")(photos)
    if mode == "tf":
        return keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32", name="preprocessing")(photos)
    if mode == "torch":
        scale = [1 / (255 * std) for std in _STD]
        offset = [-mean / std for mean, std in zip(_MEAN, _STD)]
        return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")(photos)
    return photos


def _with_imagenet_weights(build, class_name):
    try:
        with keras_downloads(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`input_shape` is undefined")  # the weights are the same for any size
            return build(weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception for a failed address
        raise FileNotFoundError(
            f"{class_name}'s ImageNet weights could not be fetched ({str(error).strip()}). Run keras.applications.{class_name}("
            "include_top=False) on a machine that can, and copy the file it leaves in ~/.keras/models into the same folder here."
        ) from error


def _load(network, path, class_name):
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; pass the path of {class_name}'s weights.")
    if class_name.startswith("EfficientNetB"):
        raise ValueError(
            f"{class_name} reads no weights from {path}: its ImageNet weights go with a scaling that Keras adds only when it "
            "fetches them itself; put Keras' file into ~/.keras/models and leave weights out, or pass a keras.Model as backbone."
        )
    try:
        if path.suffix == ".keras":
            network.set_weights(keras_files.load(path, compile=False).get_weights())
        else:
            keras_files.check_hdf5(path)
            network.load_weights(path)
    except Exception as error:  # a broken file, other layers, other shapes
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} does not hold weights of {class_name} without its top: {reason}") from error


for _preprocessing, _classes in _NETWORKS.items():
    for _class in _classes.split():
        if _class.lower() not in BACKBONES and hasattr(keras.applications, _class):
            _channels, _least, _licence = _FACTS[_class]
            register(
                _class.lower(),
                licence=f"{_licence}; see https://keras.io/api/applications, {_class}",
                channels=_channels,
                stride=16 if _class in _DEFAULT_LAYERS else 32,
                smallest_side=_least,
            )(functools.partial(application, _class, _preprocessing))
