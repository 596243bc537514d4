"""KerasHub's networks with tiny random weights, and folders of presets of them."""

import keras
import numpy as np

SCALE, OFFSET = [1 / 60, 1 / 50, 1 / 70], [-2.0, -1.9, -1.8]
_TINY = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "intermediate_dim": 24, "patch_size": 4}


def _randomized(network, seed=0):
    random = np.random.default_rng(seed)
    for variable in network.weights:
        if variable.path.endswith("position_ids"):  # which a preset's weights set, and a new network of CLIP does not
            variable.assign(np.arange(variable.shape[1])[None])
        else:
            variable.assign(random.normal(size=variable.shape) * 0.15)
    return network


def dinov2(size=20, table=20, **arguments):
    import keras_hub

    network = keras_hub.models.DINOV2Backbone(
        **_TINY, image_shape=(size, size, 3), position_embedding_shape=(table, table), **arguments
    )
    return _with_table_resized(_randomized(network))


def of_another_size(network, size):
    """KerasHub's DINOv2 or DINOv3 for photos of another size, with the same weights."""
    other = type(network).from_config({**network.get_config(), "image_shape": (size, size, 3)})
    for variable, values in zip(other.weights, network.weights):
        if not variable.path.endswith("interpolated_position_embeddings"):
            variable.assign(values)
    return _with_table_resized(other) if hasattr(other.embeddings, "position_embeddings") else other


def _with_table_resized(network):
    """As DINOv2's layer itself does it when weights are loaded."""
    embedding = network.embeddings
    table, size = (shape[0] // 4 for shape in (embedding.position_embedding_shape, embedding.image_shape))
    positions = keras.ops.convert_to_numpy(embedding.position_embeddings)
    grid = positions[:, 1:].reshape(1, table, table, 16)
    if size != table:
        antialias = embedding.antialias_in_interpolation
        grid = keras.ops.convert_to_numpy(keras.ops.image.resize(grid, (size, size), "bicubic", antialias=antialias))
    embedding.interpolated_position_embeddings.assign(np.concatenate([positions[:, :1], grid.reshape(1, -1, 16)], axis=1))
    return network


def dinov3():
    import keras_hub

    return _randomized(keras_hub.models.DINOV3Backbone(**_TINY, image_shape=(20, 20, 3)))


def vit(**arguments):
    import keras_hub

    return _randomized(
        keras_hub.models.ViTBackbone(
            image_shape=(20, 24, 3), patch_size=4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, **arguments
        )
    )


def clip():
    import keras_hub
    from keras_hub.src.models.clip.clip_text_encoder import CLIPTextEncoder
    from keras_hub.src.models.clip.clip_vision_encoder import CLIPVisionEncoder

    text = CLIPTextEncoder(64, 16, 16, num_layers=1, num_heads=2, intermediate_dim=16, max_sequence_length=77, name="clip_text")
    vision = CLIPVisionEncoder(**_TINY, image_shape=(20, 20, 3), name="clip_vision")
    return _randomized(keras_hub.models.CLIPBackbone(vision, text, 10))


def siglip():
    import keras_hub
    from keras_hub.src.models.siglip.siglip_text_encoder import SigLIPTextEncoder
    from keras_hub.src.models.siglip.siglip_vision_encoder import SigLIPVisionEncoder

    sizes = {"num_layers": 1, "num_heads": 2, "intermediate_dim": 16, "max_sequence_length": 64, "projection_dim": 16}
    text = SigLIPTextEncoder(64, 16, 16, **sizes, name="siglip_text")
    vision = SigLIPVisionEncoder(**_TINY, image_shape=(20, 20, 3), name="siglip_vision")
    return _randomized(keras_hub.models.SigLIPBackbone(vision, text))


def converter(**arguments):
    import keras_hub

    return keras_hub.layers.ImageConverter(scale=SCALE, offset=OFFSET, **arguments)


def clip_preprocessor():
    import keras_hub

    words = ["<|startoftext|>", "<|endoftext|>", "r", "e", "d</w>", "re", "red</w>", "b", "o", "x</w>", "bo", "box</w>"]
    tokenizer = keras_hub.models.CLIPTokenizer(
        vocabulary={word: number for number, word in enumerate(words)}, merges=["r e", "re d</w>", "b o", "bo x</w>"]
    )
    own = keras_hub.layers.CLIPImageConverter(image_size=(20, 20), scale=SCALE, offset=OFFSET)
    return keras_hub.models.CLIPPreprocessor(tokenizer, image_converter=own)


def save_preset(folder, network, preprocessing):
    """A folder as KerasHub's own `save_to_preset` writes it."""
    network.save_to_preset(folder)
    preprocessing.save_to_preset(folder)
    return folder
