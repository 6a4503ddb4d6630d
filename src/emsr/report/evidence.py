"""What the report is made from: arrays, scores, cards and times as a step has read them.

Lengths are in voxels and axes z, y, x unless a name says nm. Images are uint8 (0 to 255). ``z`` numbers sections of the
volume, and boxes are in sr voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from emsr.scales import Scale

if TYPE_CHECKING:
    from emsr.report.deviation import DeviationEvidence

Card = Mapping[str, Any]


@dataclass(frozen=True)
class SectionView:
    """One section side by side: crops of the same place.

    ``images`` by name in the order of showing ("lr", "bicubic", "sr", "hr"), each (y, x) at sr size, lr with every
    pixel repeated. ``scores`` are those of the whole section ({"bicubic": {"psnr", "ssim"}, "sr": …}) or empty. ``why``
    says how the section was chosen; ``start`` is the crop's first voxel (y, x), ``step`` about how many
    voxels an lr pixel is along y and x, ``ratio`` how many exactly along x.
    """

    z: int
    why: str
    images: Mapping[str, np.ndarray]
    start: tuple[int, int]
    voxel_nm: tuple[float, float]
    step: tuple[int, int]
    ratio: float
    scores: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CrossView:
    """One plane across the sections: crops (z, x) or (z, y) by name in the order of showing.

    ``axis`` is "x" or "y"; ``start`` the crop's first voxel (z, axis); ``fixed`` the coordinate on the third axis.
    Borders are voxel coordinates at which a new shard or job begins, as (along z, along axis). ``absent`` are
    sections without data, ``untold`` those that only hr has none of, ``damaged`` those made from their own data.
    """

    axis: str
    images: Mapping[str, np.ndarray]
    start: tuple[int, int]
    fixed: int
    voxel_nm: tuple[float, float]
    shard_borders: tuple[Sequence[int], Sequence[int]] = ((), ())
    job_borders: tuple[Sequence[int], Sequence[int]] = ((), ())
    absent: frozenset[int] = frozenset()
    untold: frozenset[int] = frozenset()
    damaged: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class MistakeView:
    """A split or merge in the section of its voxel ``nearest``: crops (y, x) of one place.

    ``row`` is the mistake as ``score_segments`` lists it; ``image`` uint8, ``truth`` and ``segments`` ids; ``start``
    the crop's first voxel (y, x).
    """

    row: Card
    image: np.ndarray
    truth: np.ndarray
    segments: np.ndarray
    start: tuple[int, int]
    voxel_nm: tuple[float, float]


@dataclass(frozen=True, eq=False)
class MembraneView:
    """A window in which membrane is invented or lost: crops (y, x) of one place.

    ``row`` is the window as ``score_segments`` lists it; ``images`` are "sr" and "hr", uint8. ``both`` (bool) is the
    membrane of sr and of hr that the other one has within the tolerance, ``invented`` that of sr alone, ``lost`` that
    of hr alone; ``start`` is the crop's first voxel (y, x).
    """

    row: Card
    images: Mapping[str, np.ndarray]
    both: np.ndarray
    invented: np.ndarray
    lost: np.ndarray
    start: tuple[int, int]
    voxel_nm: tuple[float, float]


@dataclass(frozen=True)
class AffinityNetwork:
    """What made affinities: ``origin`` in words, and each (image, volume) that it has ``learned`` from, if known."""

    origin: str
    learned: Sequence[tuple[str, str]] = ()

    @property
    def words(self) -> str:
        """Both: "training membranes, trained on hr of fib"."""
        learned = " and ".join(f"{image} of {volume}" for image, volume in self.learned)
        return f"{self.origin}, trained on {learned}" if learned else self.origin


@dataclass(frozen=True, eq=False)
class SegmentEvidence:
    """The segmentations of a volume: ``scores`` as ``score_segments`` wrote them, and pictures of the worst of them.

    ``networks`` are those of the segmentations by name. ``ssim`` is the share of the gap in SSIM, stated as those of
    ``scores["worth"]``, over sections for sub-volumes; None where there is no truth to score images against.
    """

    scores: Card
    networks: Mapping[str, AffinityNetwork] = field(default_factory=dict)
    ssim: Card | None = None
    splits: Sequence[MistakeView] = ()
    merges: Sequence[MistakeView] = ()
    invented: Sequence[MembraneView] = ()
    lost: Sequence[MembraneView] = ()


@dataclass(frozen=True, eq=False)
class SegmentedEvidence:
    """A volume whose image is segmented and not super-resolved: its card, and its segmentations without pictures."""

    name: str
    hr: Card
    segments: SegmentEvidence


@dataclass(frozen=True)
class Throughput:
    """What the super-resolution of a volume took: sr ``voxels`` in ``seconds``, those of ``jobs`` added up.

    ``slowest`` is in voxels a second of one job. ``shares`` of the workers' time: "network", "blend", "stall" (all
    else) and, of the stall, "read"; "write" is the main thread's, beside the workers. ``halved`` jobs ran short of
    memory.
    """

    jobs: int
    voxels: int
    seconds: float
    slowest: float
    shares: Mapping[str, float]
    peak_mb: float
    devices: Sequence[str]
    halved: int


@dataclass(frozen=True)
class VolumeEvidence:
    """Everything about one volume: its image cards, its scores and what its sections look like.

    ``seams`` are seam scores by kind of border ("window", "shard", "job") and axis, None where there is no such border;
    ``reasons`` says in full why a section is damaged. ``ranges`` names spans of sections by use ("training",
    "validation", "test"), each a list of half-open [from, to). ``segments`` is None where no segmentation is scored,
    ``deviation`` where the volume has no samples.
    """

    name: str
    scale: Scale
    lr: Card
    sr: Card
    scores: Card
    hr: Card | None = None
    weights: str = ""
    sections: Sequence[SectionView] = ()
    crosses: Sequence[CrossView] = ()
    seams: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    ranges: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    reasons: Mapping[int, str] = field(default_factory=dict)
    segments: SegmentEvidence | None = None
    throughput: Throughput | None = None
    deviation: DeviationEvidence | None = None

    @property
    def length(self) -> int:
        """Number of sections."""
        return int(self.lr["shape"][0])

    @property
    def damaged(self) -> dict[int, str]:
        """Reason by section, from every image's card."""
        found = _reasons("damaged", self.lr, self.hr)
        return {z: self.reasons.get(z, state) for z, state in found.items()}

    @property
    def missing(self) -> dict[int, str]:
        """Reason by section without data; "missing in hr" is said where only the truth has none."""
        absent = _reasons("missing", self.lr, None)
        for z, reason in _reasons("missing", self.hr or {}, None).items():
            absent.setdefault(z, f"{reason} in hr")
        return absent


def _reasons(key: str, *cards: Card | None) -> dict[int, str]:
    """Reason by section that any of ``cards`` states under ``key``, ordered by section."""
    found: dict[int, str] = {}
    for card in cards:
        for z, reason in ((card or {}).get(key) or {}).items():
            found.setdefault(int(z), str(reason))
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class StageEvidence:
    """One trained stage: its card and, where they were recorded, curves and cost.

    ``curves`` has "training" and "validation", each a sequence of points {"step": …, name of a figure: value}.
    """

    name: str
    card: Card
    curves: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)
    stats: Card = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingEvidence:
    """One training and its stages in the order in which they were trained."""

    name: str
    stages: Sequence[StageEvidence]


@dataclass(frozen=True)
class RuleCost:
    """Time and memory of one rule: over ``runs`` jobs, seconds together and of the longest, peak megabytes."""

    rule: str
    runs: int
    seconds: float
    longest: float
    peak_mb: float | None
    mean_load: float | None


@dataclass(frozen=True)
class RunEvidence:
    """What was run: the whole of the report."""

    title: str
    made: str
    config_yaml: str
    versions: Mapping[str, str]
    hashes: Sequence[tuple[str, str]]
    volumes: Sequence[VolumeEvidence]
    trainings: Sequence[TrainingEvidence]
    rules: Sequence[RuleCost]
    segmented: Sequence[SegmentedEvidence] = ()
