"""Colours for the eye: what a photo's profile means by its values, in sRGB."""

import functools
import io

import numpy as np
from PIL import Image

# Profiles are a few hundred bytes to a few kilobytes; those of printers, which are not of RGB, a megabyte.
_MOST_BYTES = 4 << 20


def in_srgb(pixels: np.ndarray, profile: bytes | None) -> np.ndarray:
    """RGB pixels as sRGB has them.

    Args:
        pixels: `(H, W, 3)` uint8, whose values are meant by `profile`.
        profile: an ICC profile, or `None`. For one that is damaged, or of other colours than RGB, the pixels stay as they are.
    """
    if not profile or len(profile) > _MOST_BYTES:
        return pixels
    transform = _transform(bytes(profile))
    return pixels if transform is None else np.asarray(transform.apply(Image.fromarray(pixels)))


@functools.lru_cache(16)
def _transform(profile):
    """What brings colours to sRGB; `None` where they are there already, or nothing is known of them."""
    try:
        from PIL import ImageCms
    except ImportError:  # Pillow was built without it
        return None
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if own.profile.xcolor_space.strip() != "RGB" or (own.profile.profile_description or "").startswith("sRGB"):
            return None
        return ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        return None
