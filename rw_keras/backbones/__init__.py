"""The networks that give the feature map. A new one is one file, and one line here."""

from rw_keras.backbones.vgg16 import vgg16

# Each is a function (layer, weights) -> keras.Model: RGB photos 0..255 -> the map of that layer.
BACKBONES = {"vgg16": vgg16}

# The licence of the published weights of each.
LICENCES = {
    "vgg16": "Creative Commons Attribution; Karen Simonyan and Andrew Zisserman, Visual Geometry Group, University of Oxford",
}

__all__ = ["BACKBONES", "LICENCES", "vgg16"]
