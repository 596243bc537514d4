"""Flags that say what computes the network."""

from __future__ import annotations

from collections.abc import Sequence

from rw_keras.commands.parser import Parser, one_of

# Those of `rw_keras.runtimes`, whose import takes long.
RUNTIMES = ("keras", "tensorflow", "jax", "torch", "openvino", "ncnn", "auto")
PRECISIONS = ("exact", "fast", "int8")


def add_runtime(parser: Parser, earlier: Sequence[str]) -> None:
    """The flags `--runtime` and `--precision`.

    Args:
        parser: the program's.
        earlier: what `--runtime` was called there.
    """
    words = (
        "What computes the network: keras, on its backend, or the backend's name; openvino, ncnn, or auto, the fastest that is "
        "installed, measured once."
    )
    parser.flag("runtime", words, one_of(RUNTIMES), "auto", earlier=earlier)
    add_precision(parser)


def add_precision(parser: Parser) -> None:
    """The flag `--precision`."""
    words = (
        "What the network's runtime keeps to. exact: a cosine to Keras in float32 of at least 0.999999; fast: of 0.9999; "
        "int8, for networks in 8 bits: of 0.995 in the mean."
    )
    parser.flag("precision", words, one_of(PRECISIONS), "exact")
