"""The state of neuroglancer that shows layers, and the address that holds it.

Neuroglancer counts its axes in voxels of a size that the state gives, in metres, and puts whole numbers on corners of
voxels; it moves the translations of OME-Zarr, which are centres, by itself, and reads none of N5: the state has those.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from emsr.viewing.layers import Layer

LAYOUTS = ("4panel", "xy")
FITS = 450  # screen pixels that the longer side of the volume takes
SHADER = "#uicontrol invlerp contrast\nvoid main() {\n  emitGrayscale(contrast());\n}\n"


def viewer_state(layers: Sequence[Layer], address: str, layout: str) -> dict[str, Any]:
    """The state that shows `layers`, served below `address`: the finest image (sr before hr), from its centre on.

    Where there is no image, all segmentations are shown. `layout` is one of LAYOUTS.
    """
    first = _shown(layers)
    middle = [
        (corner + (count // 2 + 0.5) * size) / size
        for corner, count, size in zip(first.corner_nm, first.shape, first.voxel_size_nm, strict=True)
    ]
    side = max(first.shape[1:])
    return {
        "dimensions": _dimensions(first),
        "position": middle[::-1],
        "crossSectionScale": side / FITS,
        "projectionScale": 2 * side,
        "layers": [_layer(one, address, one is first or first.is_segmentation) for one in layers],
        "selectedLayer": {"layer": first.name, "visible": False},
        "showAxisLines": False,
        "layout": layout,
    }


def fragment(state: dict[str, Any]) -> str:
    """The part of an address, from # on, that gives neuroglancer its state."""
    return "#!" + quote(json.dumps(state, separators=(",", ":")), safe="~@$()*!+=:;,.?/'")


def _shown(layers: Sequence[Layer]) -> Layer:
    """The layer to begin with: the finest image, sr before others of its voxel size; else the first segmentation."""
    images = [layer for layer in layers if not layer.is_segmentation] or layers
    return min(images, key=lambda layer: (float(np.prod(layer.voxel_size_nm)), layer.name != "sr"))


def _dimensions(layer: Layer) -> dict[str, Any]:
    """Axes x, y, z and what a voxel spans along them."""
    return {axis: [size / 1e9, "m"] for axis, size in zip("xyz", layer.voxel_size_nm[::-1], strict=True)}


def _moved(layer: Layer) -> dict[str, Any]:
    """A transform that puts voxel 0 of a source, whose axes are x, y, z, at the corner of the layer."""
    corner = [at / size for at, size in zip(layer.corner_nm, layer.voxel_size_nm, strict=True)][::-1]
    matrix = np.column_stack([np.eye(3), corner]).tolist()
    return {"outputDimensions": _dimensions(layer), "matrix": matrix}


def _layer(layer: Layer, address: str, visible: bool) -> dict[str, Any]:
    """What the state says of one layer."""
    url = f"{layer.format}://{address}/{quote(layer.name, safe='')}"
    source = {"url": url, "transform": _moved(layer)} if layer.format == "n5" else url
    stated = {"type": "image", "source": source, "name": layer.name, "visible": visible}
    if layer.is_segmentation:
        return {**stated, "type": "segmentation", "selectedAlpha": 0.4}
    whole = np.dtype(layer.dtype).kind in "iu"
    extremes = [0, int(np.iinfo(layer.dtype).max)] if whole else [0, 1]
    return {**stated, "shader": SHADER, "shaderControls": {"contrast": {"range": extremes}}}
