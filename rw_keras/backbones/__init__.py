"""The networks that give the feature map: one file each, registered by name. `list()` shows them."""

from rw_keras.backbones.alexnet import alexnet
from rw_keras.backbones.applications import application
from rw_keras.backbones.hub import PREFIX as HUB
from rw_keras.backbones.hub import hub, licence_of
from rw_keras.backbones.listing import list_networks as list
from rw_keras.backbones.network import digest_of_stages, name_of_own, network, non_negative
from rw_keras.backbones.registry import BACKBONES, LICENCES, register
from rw_keras.backbones.sizes import smallest_side
from rw_keras.backbones.text import TextPart
from rw_keras.backbones.vgg16 import vgg16

__all__ = [
    "BACKBONES",
    "HUB",
    "LICENCES",
    "TextPart",
    "alexnet",
    "application",
    "digest_of_stages",
    "hub",
    "licence_of",
    "list",
    "name_of_own",
    "network",
    "non_negative",
    "register",
    "smallest_side",
    "vgg16",
]
