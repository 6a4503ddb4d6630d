"""What `emsr check` asks of a training: each stage's network, recipe, patches and starting weights fit each other."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emsr import plugins
from emsr.commands import check_features
from emsr.commands.check_scales import check_range
from emsr.config import Segment, Training
from emsr.scales import Scale, least, stated

if TYPE_CHECKING:
    from torch import Tensor, nn

    from emsr.models.stage import Stage

LEAST_PATCH = 4  # lr pixels
WITHOUT_SCALE = ("flow", "codebook")  # objectives whose weights serve every scale


@contextmanager
def said_of(what: str) -> Iterator[None]:
    """What a network cannot be built from, whatever notices it, becomes a ValueError of one line that names `what`."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from None


def check_training(name: str, training: Training, use: tuple[Collection[int], Segment | None]) -> None:
    """Raise ValueError or OSError, in one line, unless every stage can begin and the network fits its `use`.

    `use`: the windows that it must take, and how it segments if it does (`Config.windows`).
    """
    from emsr.models.stage import overridden, recipe_scale
    from emsr.plan import check_window

    model, (windows, segment) = plugins.load("models", training.model.name), use
    with said_of(f"trainings.{name}"):
        options = overridden(model.PRESETS[training.model.preset], training.model.options)
        whole = untrained(_card(training, options, training.last_stage))
        stages = model.stages(training.model.preset, recipe_scale(training.scale, model.SCALES))
        recipe = {stage.name: stage for stage in stages}
        for stage, overrides in training.stages.items():
            if "use" not in overrides and stage in recipe:
                check_features.check_terms(training, overridden(recipe[stage], overrides))
        if training.output == "affinity":
            _check_geometry(training, whole, recipe, segment)
            return
        for window in sorted(windows):
            check_window(window, 0, {"options": asdict(options), "scale": training.scale})
        for stage, overrides in training.stages.items():
            if "use" not in overrides:
                if stage not in recipe:
                    raise ValueError(plugins.unknown("stage", stage, recipe))
                _check_stage(training, options, overridden(recipe[stage], overrides), getattr(whole, "multiple", 1))


def _check_geometry(training: Training, network: Any, recipe: Mapping[str, Stage], segment: Segment | None) -> None:
    """Windows of an affinity model, and patches if it is trained, are of a depth and sides that it can take.

    So are those that `segment` makes of them, and they leave a step.
    """
    from emsr.models.stage import overridden

    for stage, overrides in training.stages.items():
        if "use" not in overrides:
            what = overridden(recipe[stage], overrides)
            sides = {"patch": what.patch} if what.objective != "none" else {}
            _check_parts(network, what)
            for name, side in {**sides, "window": training.window}.items():
                with said_of(f"stage {stage}: depth {what.depth} and {name} {side}"):
                    network.geometry.output((what.depth, side, side))
            if segment and stage == training.last_stage:
                _check_segmenting(segment, {"depth": what.depth, "window": training.window}, network)
            if path := (training.init_from or {}).get(stage):
                _check_start(Path(path), network, what, training.scale)


def _check_segmenting(segment: Segment, card: Mapping[str, Any], network: Any) -> None:
    """The windows that weights with this card will segment by."""
    from emsr.inference.affinities import input_window, output_window

    settings = segment.model_dump()
    depth, side, _ = input_window(settings, card)
    with said_of(f"segment with depth {depth} and window {side}"):
        output_window(settings, card, network.geometry)


def untrained(card: Mapping[str, Any]) -> nn.Module:
    """The network of a card, without memory: on the meta device."""
    import torch

    from emsr.models import checkpoint

    with torch.device("meta"):
        return checkpoint.network(card)


def check_state(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise a one-line ValueError unless `state`, read from `path`, is one of `network`."""
    from emsr.models.checkpoint import differences

    wrong = differences({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}, state)
    if wrong:
        raise ValueError(f"{path} does not fit the network: {wrong}; use weights of the same model and options")


def card_of(training: Training) -> dict[str, Any]:
    """What the card of a training's whole network will say of the network."""
    from emsr.models.stage import overridden

    model = plugins.load("models", training.model.name)
    options = overridden(model.PRESETS[training.model.preset], training.model.options)
    stated = {"section_step": training.section_step, "window": training.window}
    recipe = {stage.name: stage for stage in model.stages(training.model.preset, training.scale)}
    overrides = training.stages.get(training.last_stage, {})
    stage = overridden(recipe[training.last_stage], {} if "use" in overrides else overrides)
    if stage.objective == "image" and stage.depth:
        stated |= {"depth": stage.depth, "depth_overlap": stage.depth_overlap}
    return _card(training, options, training.last_stage) | stated


def _card(training: Training, options: Any, stage: str) -> dict[str, Any]:
    """What says which network a stage trains."""
    return {
        "model": training.model.name,
        "options": asdict(_with_mask(training, options, stage)),
        "stage": stage,
        "scale": stated(training.scale),
        "sections": training.sections,
    }


def _with_mask(training: Training, options: Any, stage: str) -> Any:
    """`options` with the mask that training gives the network: VGG19's only where its weights are named or brought."""
    from emsr.models.checkpoint import load_card

    if getattr(options, "mask_features", None) != "vgg":
        return options
    if start := (training.init_from or {}).get(stage):
        return replace(options, mask_features=load_card(Path(start))["options"].get("mask_features", "vgg"))
    return options if training.perceptual else replace(options, mask_features="encoder")


def _check_stage(training: Training, options: Any, stage: Stage, multiple: int) -> None:
    """One stage's network, recipe and files; `multiple` is what sides of the whole network's input must be."""
    if stage.objective == "none":
        return
    network = untrained(_card(training, options, stage.name))
    _check_parts(network, stage)
    _check_recipe(training.model.name, options, stage)
    step, least = patch_rule(options, stage, training.scale, multiple)
    if stage.patch % step or stage.patch < least:
        near = max(-(-least // step), (2 * stage.patch + step) // (2 * step)) * step
        wanted = f"a multiple of {step}" + (f" of at least {least}" if least > step else "")
        raise ValueError(
            f"stage {stage.name}: patch {stage.patch} is not {wanted}, which its network needs; use {near}"
        )
    _check_files(training, _with_mask(training, options, stage.name), stage)
    started = (training.init_from or {}).get(stage.name)
    if started:
        _check_start(Path(started), network, stage, training.scale)


def _check_parts(network: nn.Module, stage: Stage) -> None:
    """A batch can be cut into the parts that the recipe asks for, and the network has what it trains apart."""
    from emsr.training import descent, group
    from emsr.training.objectives import image

    descent.check(network, stage, 1, group.parts(stage, 1))
    if stage.objective in ("image", "heads"):
        with said_of(f"stage {stage.name}"):
            image.check(network, stage)


def _check_recipe(model: str, options: Any, stage: Stage) -> None:
    """What a recipe says agrees with itself and with the options."""
    from emsr.training.schedule import segment

    where = f"stage {stage.name}"
    if stage.schedule == "restarts":
        with said_of(where):
            segment(0, stage.restarts, stage.periods)
    if stage.objective == "flow" and stage.displacement == 0:
        raise ValueError(f"{where}: displacement 0 gives the flow network nothing to learn; use lr pixels, as 16")
    if stage.objective == "scales":
        check_range(where, model, stage)
    if stage.objective != "codebook":
        return
    entries, learning = getattr(options, "entries", 0), getattr(options, "codebook_learning", "average")
    if 0 < stage.kmeans_vectors < entries:
        raise ValueError(
            f"{where}: kmeans_vectors {stage.kmeans_vectors} cannot initialise {entries} entries; use 0 or more"
        )
    if stage.entries_decay and learning != "average":
        raise ValueError(
            f"{where}: entries_decay {stage.entries_decay} is for codebook_learning average, not {learning}; use 0"
        )


def patch_rule(options: Any, stage: Stage, scale: Scale, multiple: int) -> tuple[int, int]:
    """What the side of a stage's patches must be a multiple of, and its least value.

    SpyNet halves an enlarged patch level by level, ``correlation`` the patch itself. The codebook makes a map of
    entries from a patch of hr, and an image from it. The indexer's map, decoded, is compared with a patch of hr. The
    whole network says itself.
    """
    stride = getattr(options, "latent_stride", 1)
    if stage.objective == "flow":
        coarse = 2 ** (getattr(options, "flow_levels", 1) - 1)
        enlarged = getattr(options, "flow_scale", 1) if getattr(options, "flow", "spynet") == "spynet" else 1
        return coarse // math.gcd(coarse, enlarged), LEAST_PATCH
    if stage.objective == "codebook":
        return stride, _least_hr(options, stage)
    if stage.objective == "indexer":
        return max(1, stride // least(scale)), LEAST_PATCH
    return multiple, LEAST_PATCH


def _least_hr(options: Any, stage: Stage) -> int:
    """The least side of an hr patch: a window of SSIM, and what the discriminator sees at once if there is one."""
    from emsr.metrics.image import WINDOW

    if not stage.adversarial_weight or stage.adversarial_from >= stage.steps:
        return WINDOW
    side = 7  # of the last two convolutions, kernel 4 and stride 1; each earlier one has kernel 4 and stride 2
    for _ in options.discriminator_channels[1:]:
        side = 2 * side + 2
    return max(WINDOW, side)


def _check_files(training: Training, options: Any, stage: Stage) -> None:
    """Pretrained weights of others that a stage begins with."""
    from emsr.models import published

    check_features.check(training, options, stage)
    if stage.objective == "flow" and training.spynet:
        published.spynet_state(Path(training.spynet), options)
    if stage.objective == "fusion" and training.perceptual and options.reference:
        if options.mask_features == "vgg":
            published.vgg_state(Path(training.perceptual), "relu1_2", normalise=False)
        if stage.contextual_weight:
            published.vgg_state(Path(training.perceptual), "relu3_4", normalise=True)


def _check_start(path: Path, network: nn.Module, stage: Stage, scale: Scale) -> None:
    """The weights that fine-tuning starts from are of this stage, of this scale where that matters, and whole."""
    from emsr.models import checkpoint

    card = checkpoint.load_card(path)
    checkpoint.expect(card, path, stage.name, None if stage.objective in WITHOUT_SCALE else scale)
    check_state(network, checkpoint.load_state(path, card), path)
