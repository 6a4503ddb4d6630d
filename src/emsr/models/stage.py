"""One training stage as data: what is minimised, for how long, on which patches. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

Objective = Literal[
    "flow", "codebook", "indexer", "fusion", "image", "heads", "dual", "scales", "adversarial", "affinity", "none"
]
Record = TypeVar("Record")
NOTHING_COMPARES = (
    "perceptual_weight compares features, and no weights are named that make them: name VGG19's or those of a stage "
    "codebook in perceptual, or use perceptual_weight 0"
)


@dataclass(frozen=True)
class Stage:
    """A stage of a model's recipe; every field may be overridden by ``trainings.<name>.stages.<stage>`` in the config.

    ``patch`` is the side of a training sample: hr pixels for ``codebook``, pixels of the labelled image for
    ``affinity``, lr pixels for every other objective. Fractions are of ``steps``; zero switches a term off. A share is
    the probability that something is done to a training patch.
    """

    name: str
    objective: Objective
    steps: int
    batch: int
    patch: int
    learning_rate: float
    optimiser: Literal["adam", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.99)  # "sgd": the first is its momentum
    weight_decay: float = 0.0  # how much of each weight is added to its gradient
    schedule: Literal["cosine", "restarts", "halvings"] = "cosine"
    warmup: int = 0  # steps of linear rise before the schedule's own value
    restarts: tuple[int, ...] = ()  # "restarts": steps at which the rate returns to learning_rate
    periods: tuple[int, ...] = ()  # "restarts": length of each cosine in steps, one more than restarts
    halvings: tuple[int, ...] = ()  # "halvings": steps from which on the rate is half of what it was
    halving: float = 0.5  # "halvings": that half, where a paper divides by another number
    minimum_rate: float = 1e-7  # where a cosine ends
    slow: tuple[str, ...] = ()  # parts of the network that learn at another rate
    slow_factor: float = 0.1  # slow: their rate, of that of the others
    slow_from: int = 0  # slow: first step at which they learn
    weight_ema: float = 0.0  # decay of the averaged weights that are validated and saved; 0 = the weights themselves
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # float16 scales the loss
    accumulate: int = 1  # parts in which a batch goes through the network, to need less memory
    validate_every: int = 0  # steps; 0 = only at the end
    checkpoint_every: int = 0  # steps; 0 = never: a killed training begins anew
    augment: bool = True  # the eight orientations of a patch; affinity: of each, and upside down
    clip: float = 0.0  # largest norm of the gradient; 0 = no limit
    clip_change: float = 0.0  # largest norm of the gradient times the rate (Kim et al. 2016, VDSR); 0 = no limit
    cache: bool = False  # keep what frozen stages say of each section and orientation
    # terms of the loss
    image_weight: float = 1.0  # difference of the images
    image_error: Literal["absolute", "squared", "charbonnier"] = "absolute"  # of any of them; how it is measured
    early_weight: float = 0.0  # image: share of what a network makes on the way to sr; the rest is sr's
    early_until: float = 0.0  # image: fraction of the steps after which that share has fallen to 0; 0 = it stays
    perceptual_weight: float = (
        0.0  # image, adversarial: difference of the features of VGG19, or of a codebook's encoder
    )
    perceptual_error: Literal["absolute", "squared"] = "absolute"
    # dual: two directions of one network; sums over an image divided by its hr voxels
    guide_weight: float = 0.0  # of the squared difference of its lr to lr; 0 = scale^2
    latent_weight: float = 0.0  # of the squares of its latents, in units of models.dual.UNIT
    cycle_weight: float = 0.0  # of hr made again of its own lr, in 8 bits, and its latents
    alternate: bool = False  # a descent for each direction, one after the other
    protocol: Literal["super-resolution", "rescaling"] = "super-resolution"  # what is enlarged: lr, or its own lr
    # scales: patches of hr that are made coarse on the fly, at a scale that is drawn for each batch
    scales: tuple[float, ...] = ()  # the least and the greatest; both the training's own or none: its lr as it is
    scales_drawn: Literal["uniform", "logarithmic"] = "uniform"
    anisotropy: float = 0.0  # share of the batches with one scale along y and another along x
    samples: int = 2304  # voxels of hr that a patch is compared at, fewer where it has fewer
    contextual_weight: float = 0.0  # fusion: contextual loss of sr features against reference features
    codebook_weight: float = 0.0  # codebook: factor of the whole quantisation loss
    commitment: float = 0.0  # codebook: share of the half that pulls latents to entries
    # codebook, adversarial: a discriminator (spec A.6)
    adversarial_weight: float = 0.0
    adversarial_from: int = 0  # first step with it
    adversarial_image: float = 1.0  # adversarial: factor of image_weight from that step on
    penalty_weight: float = 0.0  # codebook: R1 gradient penalty
    penalty_every: int = 16  # codebook: steps
    # codebook: entries as moving averages
    unquantised: float = 0.0  # fraction of the steps before k-means, latents go to the decoder as they are
    kmeans_vectors: int = 0  # latents that initialise the entries; 0 = random entries
    entries_decay: float = 0.0  # decay of the moving averages
    restart_after: int = 0  # steps an entry may stay unused; 0 = for ever
    restart_until: float = 0.0  # fraction of the steps after which no entry is restarted
    # flow: synthetic warps
    displacement: float = 0.0  # largest, lr pixels
    rotation: float = 0.0  # flow, affinity: largest, degrees
    contrast: float = 0.0  # flow, affinity: largest relative change
    depth: int = 0  # affinity, image: sections of a training sample, and of a window at inference; image: 0 = one
    depth_overlap: int = 0  # image: sections that windows share at inference
    # affinity: patches with labels
    border: int = 0  # pixels of each object that become background where another is as near; published 1
    affinity_error: Literal["cross_entropy", "squared"] = "cross_entropy"
    balance_limit: float = 0.0  # largest weight of the rarer class of a patch; 0 = all affinities weigh alike
    # affinity: what happens to training patches
    rotation_share: float = 0.0
    elastic_share: float = 0.0
    elastic: float = 0.0  # longest displacement, pixels
    elastic_spacing: float = 32.0  # pixels between the knots of the displacement
    shift_share: float = 0.0  # one section, or all that follow it, lie displaced
    shift: int = 0  # largest in y and in x, pixels
    intensity_share: float = 0.0  # changes of contrast, brightness and gamma
    brightness: float = 0.0  # largest change, of the range
    gamma: float = 0.0  # largest relative change of the exponent
    section_intensity: float = 0.0  # the part of these changes that each section gets on its own
    poor_share: float = 0.0  # sections that are blurred or faint
    poor: int = 0  # most of them in a patch
    blur: float = 0.0  # largest standard deviation, pixels
    faint: float = 0.0  # largest part of the contrast that is lost
    missing_share: float = 0.0  # sections that show nothing
    missing: int = 0  # most of them in a patch


def own_scale(stage: Stage, scale: float | tuple[float, float]) -> bool:
    """Whether a stage with objective ``scales`` stays at ``scale``, that of its training."""
    own = {scale} if isinstance(scale, int | float) else set(scale)
    return not stage.scales or (own == set(stage.scales) and len(own) == 1)


def recipe_scale(scale: Any, scales: Sequence[int]) -> int:
    """The scale whose recipe is taken: a model's own, or the next larger one it has a recipe for, or its largest."""
    largest = max(scale) if isinstance(scale, list | tuple) else scale
    return next((one for one in scales if largest <= one), scales[-1])


def overridden(record: Record, overrides: Mapping[str, Any], what: str = "option") -> Record:
    """``record`` (a frozen dataclass) with some fields replaced; lists become tuples.

    Raises ValueError for a name that the record does not have.
    """
    names = [field.name for field in fields(record)]  # type: ignore[arg-type]
    for name in overrides:
        if name not in names:
            raise ValueError(f"{what} {name!r} is unknown: use one of {', '.join(names)}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in overrides.items()}
    return replace(record, **values)  # type: ignore[type-var]
