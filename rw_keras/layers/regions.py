"""The grid of `rw_keras.grid`, under the name that its users know it by."""

from rw_keras.grid import count_regions, region_axes, region_windows, window_masks, window_shares

__all__ = ["count_regions", "region_axes", "region_windows", "window_masks", "window_shares"]
