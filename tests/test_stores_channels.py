"""Arrays with an axis of channels, as affinities are kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr

from emsr.geometry import Box
from emsr.stores.ome import Layout
from emsr.stores.shards import chunk_shape, keep_or_write, read_box, shard_boxes
from emsr.stores.zarr import create, open_array, write_box

SHAPE = (6, 40, 24)
LAYOUT = Layout(SHAPE, "uint8", (4, 32, 32), (4, 16, 16), (40.0, 4.0, 4.0), (20.0, 2.0, 2.0), channels=3)


def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)


def test_they_are_written_and_read_by_boxes_of_space(tmp_path):
    create(tmp_path / "a.zarr", LAYOUT)
    array, volume = open_array(tmp_path / "a.zarr", write=True), voxels()
    boxes = shard_boxes(array)
    assert [box.shape for box in boxes] == [(4, 32, 24), (4, 8, 24), (2, 32, 24), (2, 8, 24)]
    for box in boxes:
        write_box(array, box.start, volume[(slice(None), *box.slices)])
    assert chunk_shape(array) == (4, 16, 16)
    assert not keep_or_write(array, boxes[0], volume[(slice(None), *boxes[0].slices)])
    part = Box((1, 20, 3), (5, 37, 20))
    np.testing.assert_array_equal(read_box(array, part), volume[(slice(None), *part.slices)])
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], volume)
    assert group["0"].metadata.dimension_names == ("c", "z", "y", "x")


def test_they_pass_the_ome_zarr_schema(tmp_path):
    from ome_zarr_models.v05 import Image

    create(tmp_path / "a.zarr", LAYOUT)
    image = Image.from_zarr(zarr.open_group(tmp_path / "a.zarr", mode="r"))
    (multiscale,) = image.ome_attributes.multiscales
    assert [axis.type for axis in multiscale.axes] == ["channel", "space", "space", "space"]
    scale, shift = multiscale.datasets[0].coordinateTransformations
    assert scale.scale == [1, 40, 4, 4]
    assert shift.translation == [0, 20, 2, 2]


def test_an_unwritten_shard_is_an_error(tmp_path):
    create(tmp_path / "a.zarr", replace(LAYOUT, channels=2))
    with pytest.raises(ValueError, match="run the step"):
        read_box(open_array(tmp_path / "a.zarr"), Box((0, 0, 0), (1, 1, 1)))
