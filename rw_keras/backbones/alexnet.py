"""AlexNet (Krizhevsky, Sutskever and Hinton) as Caffe has it, the convolutional part."""

import os

import keras

from rw_keras.backbones.registry import register
from rw_keras.backbones.sizes import photo_model
from rw_keras.backbones.weights import File, Published, load_weights
from rw_keras.layers import GroupedConv2D, ImageNetPreprocessing, LocalResponseNormalization

# Caffe's mean photo of ImageNet, averaged over its places: B, G, R.
_MEANS = (104.007, 116.669, 122.679)


@register(
    "alexnet",
    licence="Unrestricted use; Evan Shelhamer and the Berkeley Vision and Learning Center",
    channels=256,
    stride=16,
    smallest_side=23,
    measured="docs/networks.md",
)
def alexnet(layer: str = "conv5", weights: str | os.PathLike[str] | None = "imagenet", pooling: str = "ceil") -> keras.Model:
    """AlexNet up to a layer, its preprocessing inside: Caffe's `bvlc_alexnet`, with its grouped convolutions and LRN.

    Torchvision's AlexNet, of one column and without LRN, is another network.

    Input: RGB photos `(B, H, W, 3)`, 0..255, of any size of at least 23 x 23 (35 x 35 with `pooling="floor"`). Output:
    `(B, h, w, 256)` for the default layer, after its ReLU; `h` is about `H / 16`: with `a = (H - 11) // 4 + 1` two
    poolings make `ceil((a - 3) / 2) + 1` of `a`, one after the other.

    Args:
        layer: the name of the last layer: "conv1" to "conv5" (each after its ReLU), "norm1", "norm2", "pool1", "pool2"
            or "pool5".
        weights: "imagenet" (from the cache, or downloaded; the digest is checked), the path of a file that holds
            them, or `None` for random ones. Files: `.caffemodel`, MatConvNet's `.mat`, PyTorch's `.pth`, `.npz` with
            `conv1/kernel` and so on, `.h5`, `.weights.h5`, `.keras`; the first kernel takes B, G, R.
        pooling: what the 3 x 3 poolings of stride 2 do at the right and the bottom edge. "ceil", the default, is Caffe's: a
            last window may hang over the edge. "floor" is that of most other libraries: what is left over is dropped.

    Returns:
        A functional `keras.Model`, with all its layers in it by name. It refuses smaller photos.
    """
    if pooling not in ("ceil", "floor"):
        raise ValueError(f"AlexNet's pooling is 'ceil' or 'floor', but got {pooling!r}.")
    photos = keras.Input((None, None, 3), name="photos")
    features = ImageNetPreprocessing(_MEANS, name="preprocessing")(photos)
    features = keras.layers.Conv2D(96, 11, strides=4, activation="relu", name="conv1")(features)
    features = _pool(LocalResponseNormalization(name="norm1")(features), 1, pooling)
    features = GroupedConv2D(256, 5, padding="same", groups=2, activation="relu", name="conv2")(features)
    features = _pool(LocalResponseNormalization(name="norm2")(features), 2, pooling)
    features = keras.layers.Conv2D(384, 3, padding="same", activation="relu", name="conv3")(features)
    features = GroupedConv2D(384, 3, padding="same", groups=2, activation="relu", name="conv4")(features)
    features = GroupedConv2D(256, 3, padding="same", groups=2, activation="relu", name="conv5")(features)
    whole = keras.Model(photos, _pool(features, 5, pooling))
    names = [name for name in (item.name for item in whole.layers) if name.startswith(("conv", "norm", "pool"))]
    if layer not in names:
        raise ValueError(f"AlexNet has no layer {layer!r} to cut at; choose one of {', '.join(names)}.")
    load_weights(whole, weights, PUBLISHED)
    return photo_model(photos, whole.get_layer(layer).output, name="alexnet")


def _pool(features, number, pooling):
    """Overlapping maximum pooling. The map is nowhere below 0, so a row of zeros is never a maximum of its own."""
    if pooling == "ceil":
        # One more row and column let a window begin wherever one cell is left; where none is, they are not reached.
        features = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"edge{number}")(features)
    return keras.layers.MaxPooling2D(3, 2, name=f"pool{number}")(features)


PUBLISHED = Published(
    network="alexnet",
    title="AlexNet",
    shapes={
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 48, 256),
        "conv3": (3, 3, 256, 384),
        "conv4": (3, 3, 192, 384),
        "conv5": (3, 3, 192, 256),
    },
    files=(
        File("http://dl.caffe.berkeleyvision.org/bvlc_alexnet.caffemodel", ("9116a64c0fbe4459d18f4bb6b56d647b63920377",)),
        File(
            "https://www.vlfeat.org/matconvnet/models/imagenet-caffe-alex.mat",
            # Published three times, each time in a newer form of MatConvNet's layers.
            ("b5152a54bf61100a8ed61827c76e7d08", "ed49ef44caf18496291ce0c3257b0596", "77ba5337725eb77362e9f318898af494"),
        ),
    ),
    untrained=lambda: alexnet("conv5", weights=None),
    remark="; the AlexNet of one column, torchvision's, is another network",
)
