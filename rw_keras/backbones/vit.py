"""KerasHub's vision transformers as networks of photos of any size: tokens laid out as a map, or their pooled embedding.

KerasHub builds DINOv2, SigLIP, CLIP and ViT for one size. Here the patches, the table of positions and the prefix tokens are one
layer, `PatchTokens`, with the same weights, and KerasHub's own encoder goes on from there. At the size of the table the values are
KerasHub's own. At another one the table is resized:

- DINOv2 as its own code does it, bicubic, antialiased where the network's configuration says so. KerasHub on TensorFlow rounds the
  filter to 1/1024 of a cell; on JAX it does not, and neither does this.
- SigLIP, CLIP and ViT, whose KerasHub code has no other size: bicubic and antialiased, as `resample_abs_pos_embed` of timm does it.
- DINOv3 has no table: its angles are computed for the map that there is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from rw_keras.layers import PatchTokens, ResizeToMultiple, RotaryPositions, TokensToMap


@dataclasses.dataclass(frozen=True)
class Transformer:
    """What a family's network is made of.

    Attributes:
        patch_size: the side of a patch, in pixels.
        projection: KerasHub's convolution of patches.
        prefix: `(P, C)`, the tokens before those of the patches, their own positions included.
        encode: (tokens, pixels) -> tokens after the last norm.
        positions: `(rows, columns, C)`, the table of positions; `None` where there is none.
        antialias: whether the table is resized with antialiasing.
        pool: tokens -> the pooled embedding `(B, D)` that text is compared with; `None` where there is none.
    """

    patch_size: int
    projection: keras.layers.Conv2D
    prefix: np.ndarray
    encode: Callable[[Any, Any], Any]
    positions: np.ndarray | None = None
    antialias: bool = True
    pool: Callable[[Any], Any] | None = None

    def outputs(self, photos: keras.KerasTensor, rescale: Callable[[Any], Any], layer: str) -> keras.KerasTensor:
        """The map `(B, h, w, C)`, or for `layer="joint"` the pooled embedding as a map of one cell `(B, 1, 1, D)`."""
        pixels = rescale(ResizeToMultiple(self.patch_size, dtype="float32", name="whole_patches")(photos))
        patches = PatchTokens(
            self.patch_size,
            self.projection.filters,
            prefix_tokens=len(self.prefix),
            grid=None if self.positions is None else self.positions.shape[:2],
            antialias=self.antialias,
            use_bias=self.projection.use_bias,
            dtype=self.projection.dtype_policy,
            name="patches",
        )
        tokens = self.encode(patches(pixels), pixels)
        patches.projection.set_weights(self.projection.get_weights())
        for variable, values in ((patches.prefix, self.prefix), (patches.positions, self.positions)):
            if variable is not None:
                variable.assign(values)
        if layer == "joint":
            pooled = self.pool(tokens)
            return keras.layers.Reshape((1, 1, pooled.shape[-1]), dtype="float32", name="joint")(pooled)
        return TokensToMap(self.patch_size, len(self.prefix), name="map")(tokens, pixels)


def transformer_of(backbone: keras.Model) -> Transformer | None:
    """The parts of one of KerasHub's vision transformers; `None` for any other network."""
    for kind in type(backbone).__mro__:
        if kind.__name__ in _FAMILIES and kind.__module__.startswith("keras_hub."):
            return _FAMILIES[kind.__name__](backbone)
    return None


def _dinov2(backbone):
    embedding = backbone.embeddings
    known, used = _array(embedding.position_embeddings)[0], _array(embedding.interpolated_position_embeddings)[0]
    patch, antialias = embedding.patch_size, embedding.antialias_in_interpolation
    rows, columns = (side // patch for side in embedding.position_embedding_shape)
    table = known[1:].reshape(rows, columns, -1)
    size = tuple(side // patch for side in embedding.image_shape)
    # What KerasHub trains is the table resized to its photos: where that has moved on, it is the one to take.
    resized = table[None] if size == (rows, columns) else ops.image.resize(table[None], size, "bicubic", antialias=antialias)
    if not np.allclose(ops.convert_to_numpy(resized).reshape(len(used) - 1, -1), used[1:], atol=1e-6):
        table = used[1:].reshape(*size, -1)
    prefix = [_array(embedding.cls_token)[0] + used[:1]]
    if embedding.num_register_tokens:
        prefix.append(_array(embedding.register_tokens)[0])
    return Transformer(
        patch,
        embedding.patch_embeddings.projection,
        np.concatenate(prefix),
        lambda tokens, pixels: backbone.layernorm(backbone.encoder(tokens)[0]),
        table,
        antialias,
    )


def _dinov3(backbone):
    embedding = backbone.embeddings
    prefix = [_array(embedding.cls_token)[0]]
    if embedding.num_register_tokens:
        prefix.append(_array(embedding.register_tokens)[0])
    prefix = np.concatenate(prefix)

    def encode(tokens, pixels):
        rotary = RotaryPositions(backbone.patch_size, backbone.hidden_dim // backbone.num_heads, backbone.rope_theta, name="rotary")
        encoded, _ = backbone.encoder(tokens, position_embeddings=rotary(pixels), num_prefix_tokens=len(prefix))
        return backbone.layernorm(encoded)

    return Transformer(backbone.patch_size, embedding.patch_embeddings.projection, prefix, encode)


def _siglip_vision(encoder):
    embedding = encoder.embedding

    def encode(tokens, pixels):
        for block in encoder.encoder_layers:
            tokens = block(tokens)
        return encoder.post_layer_norm(tokens)

    table, side = _table(embedding), embedding.image_size // embedding.patch_size
    nothing = np.zeros((0, table.shape[-1]), "float32")
    table = table.reshape(side, side, -1)
    return Transformer(embedding.patch_size, embedding.patch_embedding, nothing, encode, table, pool=encoder.head)


def _clip_vision(encoder):
    embedding = encoder.embedding

    def encode(tokens, pixels):
        tokens = encoder.pre_layer_norm(tokens)
        for block in encoder.encoder_layers:
            tokens = block(tokens)
        return encoder.layer_norm(tokens)

    table, side = _table(embedding), embedding.image_size // embedding.patch_size
    prefix = _array(embedding.class_embedding)[None] + table[:1]
    return Transformer(embedding.patch_size, embedding.patch_embedding, prefix, encode, table[1:].reshape(side, side, -1))


def _clip(backbone):
    vision = _clip_vision(backbone.vision_encoder)
    return dataclasses.replace(vision, pool=lambda tokens: backbone.vision_projection(backbone.vision_pooler(tokens)))


def _vit(backbone):
    embedding, encoder = backbone.get_layer("vit_patching_and_embedding"), backbone.get_layer("vit_encoder")
    rows, columns = embedding.patch_size
    if rows != columns:
        raise ValueError(
            f"The network {backbone.name!r} has patches of {columns} x {rows}; only square ones are laid out as a map."
        )
    table = _array(embedding.position_embedding.embeddings)
    prefix = np.zeros((0, table.shape[-1]), "float32")
    if embedding.use_class_token:
        prefix, table = _array(embedding.class_token)[0] + table[:1], table[1:]
    table = table.reshape(*(side // rows for side in embedding.image_size), -1)
    return Transformer(rows, embedding.patch_embedding, prefix, lambda tokens, pixels: encoder(tokens), table)


def _table(embedding):
    """The positions as CLIP's and SigLIP's layers look them up: by numbers that are weights, too."""
    return _array(embedding.position_embedding.embeddings)[keras.ops.convert_to_numpy(embedding.position_ids)[0].astype(int)]


def _array(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable), "float32")


# KerasHub's class -> its parts.
_FAMILIES = {
    "CLIPBackbone": _clip,
    "CLIPVisionEncoder": _clip_vision,
    "DINOV2Backbone": _dinov2,
    "DINOV3Backbone": _dinov3,
    "SigLIPBackbone": lambda backbone: _siglip_vision(backbone.vision_encoder),
    "SigLIPVisionEncoder": _siglip_vision,
    "ViTBackbone": _vit,
}
