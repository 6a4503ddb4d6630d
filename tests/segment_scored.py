"""Labels, segmentations and affinities on disk as the steps leave them, made from arrays, for tests of their scores."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.segmentation import find_boundaries

from emsr.durable import read_json, write_json
from emsr.steps.segment_scores import score_segments
from emsr.stores.ome import Layout
from emsr.stores.zarr import create, open_array, write_box
from segment_project import image
from segmentable import tiles

SHAPE = (10, 41, 38)
SIZE = (8.0, 4.0, 4.0)
GREYS = np.array([20, 90, 160, 230], np.uint8)
Arrays = dict[str, np.ndarray]


def cells(seed: int = 0) -> np.ndarray:
    """Labels of about a dozen objects; one of them is background."""
    return tiles(SHAPE, 11, seed)


def spoilt(labels: np.ndarray, seed: int, share: float) -> np.ndarray:
    """Segments with other ids, some objects joined and some cut: more of both with a larger share."""
    ids = np.random.default_rng(seed).permutation(100)[: labels.max() + 1] + 1
    rng = np.random.default_rng(7)  # the same for all, so that a larger share has the mistakes of a smaller one
    joined = rng.random(len(ids)) < share
    ids[joined] = ids[0]
    cut = (rng.random(len(ids)) < share)[labels] & (np.indices(labels.shape).sum(0) % 17 < 8)
    return (ids[labels] + 200 * cut).astype(np.uint64)


def affinities(labels: np.ndarray, seed: int, share: float) -> np.ndarray:
    """Affinities uint8 (3, z, y, x) of labels in four levels, a share of which is wrong."""
    rng = np.random.default_rng(seed)
    low, high = rng.choice(GREYS[:2], (3, *labels.shape)), rng.choice(GREYS[2:], (3, *labels.shape))
    apart = np.stack([np.roll(labels, 1, axis) != labels for axis in range(3)])
    return np.where(apart ^ (rng.random(apart.shape) < share), low, high).astype(np.uint8)


@dataclass
class Scored:
    """A folder with labels and segmentations; ``settings`` are those of the step."""

    folder: Path
    truth: np.ndarray = field(default_factory=cells)
    segments: Arrays = field(default_factory=dict)
    near: Arrays = field(default_factory=dict)
    settings: dict[str, Any] = field(
        default_factory=lambda: {
            **{"volume": "tissue", "test": [[3, 10]], "validation": None, "segmentations": {}},
            **{"border_nm": 0.0, "membrane_nm": 5.0, "in_plane": True, "absorb": 0, "windows": 13, "seed": 0},
        }
    )

    def __post_init__(self) -> None:
        for seed, (name, share) in enumerate({"bicubic": 0.4, "sr": 0.25, "hr": 0.1}.items()):
            self.segments[name] = spoilt(self.truth, seed, share)
            self.near[name] = affinities(self.truth, seed, share / 2)

    def labels(self, truth: np.ndarray, damaged: tuple[int, ...] = ()) -> None:
        name = f"labels{len(list(self.folder.iterdir()))}"
        self.settings["labels"] = str(image(self.folder, truth, damaged, name, voxel_size_nm=[*SIZE]))

    def write(
        self, name: str, damaged: tuple[int, ...] = (), kind: str | None = None, weights: str = "w", **stated: Any
    ) -> None:
        """Segments, affinities and threshold of one segmentation."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        made = {"source": {"image_sha256": name}, "threshold": 0.5, "threshold_source": "config", "method": "exact"}
        image(folder, self.segments[name], damaged, "segments", voxel_size_nm=[*SIZE], **made, **stated)
        near: Any = self.near[name]
        create(folder / "near.zarr", Layout(near.shape[1:], "uint8", near.shape[1:], near.shape[1:], SIZE, channels=3))
        write_box(open_array(folder / "near.zarr", write=True), (0, 0, 0), near)
        proof = {"array": "near.zarr", "shape": list(near.shape[1:]), "image_sha256": name, "weights_sha256": weights}
        write_json(folder / "affinities.json", proof)
        write_json(folder / "threshold.json", {"schema": 1, "threshold": 0.5, "source": "config"})
        paths = {part: str(folder / f"{part}.json") for part in ("segments", "affinities", "threshold")}
        self.settings["segmentations"][name] = {"image": kind or name, **paths}

    def write_all(self, damaged: tuple[int, ...] = ()) -> Scored:
        self.labels(self.truth)
        for name in self.segments:
            self.write(name, damaged if name == "sr" else ())
        return self

    def score(self, workers: int = 1, **changes: Any) -> dict[str, Any]:
        out = self.folder / "segmentation_scores.json"
        score_segments(json.loads(json.dumps(self.settings | changes)), out, workers=workers)
        found: dict[str, Any] = read_json(out)
        return found


# -- the same by scikit-image and scipy, on whole stretches of sections ------------------------------------------------


def parts(voxels: np.ndarray, stretches: Any) -> list[np.ndarray]:
    return [voxels[..., first:last, :, :] for first, last in stretches]


def edges(labels: np.ndarray, in_plane: bool) -> np.ndarray:
    """Voxels (z, y, x) that touch another label."""
    if in_plane:
        return np.stack([find_boundaries(section.astype(int), connectivity=1) for section in labels])
    return np.asarray(find_boundaries(np.squeeze(labels.astype(int)), connectivity=1)).reshape(labels.shape)


def within(marked: np.ndarray, nm: float, in_plane: bool) -> np.ndarray:
    """Voxels at most so far from a marked one."""
    if not marked.any():
        return np.zeros(marked.shape, bool)
    return np.asarray(distance_transform_edt(~marked, sampling=(1e6, 4, 4) if in_plane else SIZE) <= nm)


def counted(labels: np.ndarray, border_nm: float, in_plane: bool) -> np.ndarray:
    """Labels of one stretch, 0 near a border."""
    return np.where(within(edges(labels, in_plane), border_nm, in_plane), 0, labels) if border_nm else labels


def seen(near: np.ndarray, in_plane: bool) -> np.ndarray:
    """Membrane levels of affinities (3, z, y, x)."""
    return 255 - np.floor(near[1 if in_plane else 0 :].mean(0) + 0.5).astype(int)
