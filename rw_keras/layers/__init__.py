"""The layers between a feature map and a descriptor. They know Keras and nothing else.

Importing this module registers them, so that `keras.saving.load_model` reads a saved model.
"""

from rw_keras.layers.center_prior import CenterPrior
from rw_keras.layers.class_token import ClassToken
from rw_keras.layers.crow_channel_weight import CroWChannelWeight
from rw_keras.layers.gem_pooling import GeMPooling
from rw_keras.layers.grouped_conv2d import GroupedConv2D
from rw_keras.layers.idf_channel_weight import IDFChannelWeight
from rw_keras.layers.image_scale import ImageScale
from rw_keras.layers.imagenet_preprocessing import ImageNetPreprocessing
from rw_keras.layers.l2_norm import L2Norm
from rw_keras.layers.local_response_normalization import LocalResponseNormalization
from rw_keras.layers.norm_weight import NormWeight
from rw_keras.layers.one_more_region import OneMoreRegion
from rw_keras.layers.patch_tokens import PatchTokens
from rw_keras.layers.pca_whiten import PCAWhiten
from rw_keras.layers.photo_model import PhotoModel
from rw_keras.layers.power_norm import PowerNorm
from rw_keras.layers.region_boxes import RegionBoxes
from rw_keras.layers.region_sum import RegionSum
from rw_keras.layers.regional_max_pooling import RegionalMaxPooling
from rw_keras.layers.regional_sum_pooling import RegionalSumPooling
from rw_keras.layers.resize_to_multiple import ResizeToMultiple
from rw_keras.layers.rotary_positions import RotaryPositions
from rw_keras.layers.signed_gem_pooling import SignedGeMPooling
from rw_keras.layers.spatial_weight import SpatialWeight
from rw_keras.layers.tokens_to_map import TokensToMap

__all__ = [
    "CenterPrior",
    "ClassToken",
    "CroWChannelWeight",
    "GeMPooling",
    "GroupedConv2D",
    "IDFChannelWeight",
    "ImageNetPreprocessing",
    "ImageScale",
    "L2Norm",
    "LocalResponseNormalization",
    "NormWeight",
    "OneMoreRegion",
    "PCAWhiten",
    "PatchTokens",
    "PhotoModel",
    "PowerNorm",
    "RegionBoxes",
    "RegionSum",
    "RegionalMaxPooling",
    "RegionalSumPooling",
    "ResizeToMultiple",
    "RotaryPositions",
    "SignedGeMPooling",
    "SpatialWeight",
    "TokensToMap",
]
