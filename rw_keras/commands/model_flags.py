"""Flags that say which model describes photos, for every program that has one."""

from __future__ import annotations

from rw_keras.commands.parser import Kind, Parser, number, numbers, one_of, text, whole_number

# What a saved model has of its own, or an index's recipe says.
OF_THE_MODEL = ("backbone", "levels", "shrinkage", "whiten_on", "scales")
# Files that a model is made of.
FILES = ("model", "weights", "whitening")


def add_new_model(parser: Parser) -> None:
    """All that a model is built by, under a title of its own."""
    parser.section("The model")
    add_model(parser)
    parser.flag("backbone", "The network: vgg16, alexnet, or one of keras.applications.", text("NAME"), "vgg16")
    add_weights(parser)
    add_levels(parser)
    add_whiten_on(parser)
    parser.flag("shrinkage", "How far the whitening's eigenvalues are drawn to their mean, 0 to 1.", number(0, 1), 0.0)
    add_scales(parser)
    add_max_side(parser)


def add_model(parser: Parser) -> None:
    """The flag `--model`."""
    words = "A .keras file of a descriptor model, in place of VGG16 and the method rw."
    parser.flag("model", words, text("FILE"))


def add_weights(parser: Parser) -> None:
    """The flags `--weights` and `--whitening`, files that are optional."""
    parser.flag("weights", "A file of the network's weights. Default: the published ones.", text("FILE"))
    parser.flag("whitening", "A whitening file. Default: the one that ships, where it fits.", text("FILE"))


def add_levels(parser: Parser) -> None:
    """The flag `--levels`."""
    parser.flag("levels", "Scales of the regional grid.", Kind(_levels, "N"), 3)


def _levels(given):
    from rw_keras.regions import MOST_LEVELS  # loads NumPy

    return whole_number(1, MOST_LEVELS).read(given)


def add_whiten_on(parser: Parser) -> None:
    """The flag `--whiten_on`, before: `--whiten`."""
    words = "What is whitened: the vectors of regions, or the global one, their sum."
    parser.flag("whiten_on", words, one_of(("regions", "global"), "WHAT"), "regions", earlier=["whiten"])


def add_scales(parser: Parser) -> None:
    """The flag `--scales`."""
    words = "Factors of a photo's sides, such as 1,0.7071,0.5, at which its descriptors are added. Default: 1 alone."
    parser.flag("scales", words, numbers())


def add_max_side(parser: Parser, default: int = 1024, least: int = 1) -> None:
    """The flag `--max_side`."""
    parser.flag("max_side", "Longer side, in pixels, that photos are reduced to.", whole_number(least), default)
