"""Import of weights made by others: published GPEMSR checkpoints, affinity networks, EDSR, VGG19, SpyNet (spec D).

The only torch.load.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from emsr.layers.features import Vgg19, VggLayer
from emsr.models import archive, gpemsr, published_affinity, published_edsr
from emsr.models.checkpoint import check_finite, differences

SECTIONS = 5
TESTED = 1024  # hr pixels of the published test's windows
STAGES = ("codebook", "indexer", "fusion", "affinity", "image")

# (our prefix, published prefix, factor, shift): "#" is a number n of ours, factor * n + shift of theirs (spec D, G)
Rule = tuple[str, str, int, int]
_ENCODER: tuple[Rule, ...] = (
    ("first.0.", "input_layer.0.", 1, 0),
    ("first.2.", "feat_extract.0.", 1, 0),
    ("levels.#.", "feat_extract.#.", 1, 1),
    ("tail.", "output_layer.", 1, 0),
)
_DECODER: tuple[Rule, ...] = (
    ("head.4.", "feat_extract.0.", 1, 0),
    ("head.", "input_layer.", 1, 0),
    ("blocks.#.", "feat_extract.#.", 2, 1),
    ("ups.#.", "feat_extract.#.upblock.", 2, 2),
    ("last.", "output_layer.", 1, 0),
)
_INDEXER: tuple[Rule, ...] = (
    ("stem.", "input_layer.", 1, 0),
    ("levels.", "feat_extract.", 1, 0),
    ("tail.", "output_layer.", 1, 0),
    ("classify.", "embedding.", 1, 0),
)
_ENTRIES: tuple[Rule, ...] = (("entries", "embedding.weight", 1, 0),)
_FUSION: tuple[Rule, ...] = (
    ("first.", "conv_first.", 1, 0),
    ("front.", "feature_extraction.", 1, 0),
    ("reference.look.layers.", "vgg.slice1.", 1, 0),
    ("prior.mask.conv", "refmaskconv", 1, 0),
    ("prior.lifts.#.", "reffea_L#_conv1.", 1, 2),
    ("prior.fuse.#.0.", "reffusionconv#.", 1, 1),
    ("prior.fuse.#.1.", "fusion_fea_block#.", 1, 1),
    ("prior.downs.#.", "down_fea_conv#.", 1, 1),
    ("prior.reduce.", "reduce_dim_conv.", 1, 0),
    ("pyramid.downs.#.", "fea_L#_conv1.", 1, 2),
    ("pyramid.convs.#.", "fea_L#_conv2.", 1, 2),
    ("flow.levels.#.", "align_module.spynet.basic_module.#.basic_module.", 1, 0),
    ("flow.", "align_module.spynet.", 1, 0),
    ("alignment.flows.0.#.", "align_module.flowdsconv#_1.", 1, 0),
    ("alignment.flows.1.#.", "align_module.flowdsconv#_2.", 1, 0),
    ("alignment.levels.#.conv", "align_module.L#_offset_conv", 1, 1),
    ("alignment.levels.#.deform.offsets.", "align_module.L#_dcnpack.conv_offset.", 1, 1),
    ("alignment.levels.#.deform.", "align_module.L#_dcnpack.", 1, 1),
    ("alignment.levels.#.merge.", "align_module.L#_fea_conv.", 1, 1),
    ("alignment.cascade.offsets.", "align_module.cas_dcnpack.conv_offset.", 1, 0),
    ("alignment.cascade.", "align_module.cas_dcnpack.", 1, 0),
    ("alignment.cascade", "align_module.cas_offset_conv", 1, 0),
    ("attention.embed_centre.", "ThreeDA.temporal_attn1.", 1, 0),
    ("attention.embed.", "ThreeDA.temporal_attn2.", 1, 0),
    ("attention.fuse.", "ThreeDA.feat_fusion.", 1, 0),
    ("attention.mix.#.", "ThreeDA.conv3D_#.", 1, 1),
    ("attention.mix_fuse.#.", "ThreeDA.conv3D_fusion_#.", 1, 1),
    ("attention.refine.", "ThreeDA.conv2D_fusion_3.", 1, 0),
    ("attention.spatial.reduce.", "ThreeDA.spatial_attn1.", 1, 0),
    ("attention.spatial.half1.", "ThreeDA.spatial_attn2.", 1, 0),
    ("attention.spatial.half2.", "ThreeDA.spatial_attn3.", 1, 0),
    ("attention.spatial.half3.", "ThreeDA.spatial_attn4.", 1, 0),
    ("attention.spatial.whole.", "ThreeDA.spatial_attn5.", 1, 0),
    ("attention.spatial.deep", "ThreeDA.spatial_attn_l", 1, 0),
    ("attention.spatial.bias", "ThreeDA.spatial_attn_add", 1, 0),
    ("back.", "recon_trunk.", 1, 0),
    ("ups.#.0.", "upconv#.", 1, 1),
    ("fine.", "HRconv.", 1, 0),
    ("last.", "conv_last.", 1, 0),
)
_PARTS = {"encoder": _ENCODER, "decoder": _DECODER, "indexer": _INDEXER, "codebook": _ENTRIES}
_BLOCKS = ((".body.", ".block."), (".skip.", ".channel_up."), (".norm.", ".gn."), (".project.", ".proj_out."))
# what inference never uses (spec D); the last four are dead at x8
_UNUSED = r"vgg\.slice[2-5]\.|refmodel\.encoder\."
_DEAD = r"|reffea_L4_conv1\.|down_fea_conv3\.|reffusionconv4\.|fusion_fea_block4\."


def published_name(stage: str, name: str) -> str:
    """The published key of our tensor ``name`` in the network of ``stage``."""
    if stage == "indexer":
        return _renamed(name, _INDEXER)
    prefix = "" if stage == "codebook" else "reference."
    part, _, rest = name.removeprefix(prefix).partition(".")
    if name.startswith(prefix) and part in _PARTS:
        return f"{'refmodel.' if prefix else ''}{part}.{_renamed(rest, _PARTS[part])}"
    return _renamed(name, _FUSION)


def _renamed(name: str, rules: tuple[Rule, ...]) -> str:
    for ours, theirs, factor, shift in rules:
        match = re.match(re.escape(ours).replace(r"\#", r"(\d+)"), name)
        if match:
            number = str(factor * int(match[1]) + shift) if match.groups() else ""
            name = theirs.replace("#", number) + name[match.end() :]
            break
    for ours, theirs in _BLOCKS:
        name = name.replace(ours, theirs)
    return re.sub(r"^(feat_extract\.\d+)\.(weight|bias)$", r"\1.downblock.\2", name)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.pth`` file, out of the dictionaries and prefixes that they are published in.

    Raises FileNotFoundError or ValueError, in one line, for what is no file of weights.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: check the path of the weights")
    archive.check_archive(path)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, MemoryError) as error:
        reason = str(error).strip().split("\n")[0][:120]
        if isinstance(error, UnpicklingError):  # whose text tells how to run it all the same
            reason = "it is none, or holds more than tensors"
        raise ValueError(f"{path} cannot be read as PyTorch weights ({reason}): download it again") from None
    for wrapper in ("params", "state_dict", "model_weights"):
        state = state[wrapper] if isinstance(state, Mapping) and wrapper in state else state
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError(f"{path} holds no dictionary of tensors: give a checkpoint of weights")
    archive.check_tensors(path, state)
    check_finite(path, state)
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def convert(state: Mapping[str, Tensor], stage: str, scale: int, source: str) -> dict[str, Tensor]:
    """Published tensors -> the state of our network of ``stage``, without what inference never uses.

    Raises ValueError, in one line, naming what is missing, misshapen or unknown by its published key.
    """
    with torch.device("meta"):
        network = gpemsr.network(stage, scale, SECTIONS, gpemsr.PRESETS["published"])
    names = {name: published_name(stage, name) for name in network.state_dict()}
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    grey = names.get("reference.look.layers.0.weight", "")
    unused = re.compile(_UNUSED + (_DEAD if scale == 8 else ""))
    taken = {name: tensor.float() for name, tensor in state.items() if stage != "fusion" or not unused.match(name)}
    if grey in taken and taken[grey].dim() == 4:
        taken[grey] = taken[grey].sum(1, keepdim=True)  # a grey image is the same in all three channels
    # the 1x1x1 convolutions of 3DA are 1x1 ones here
    taken = {name: t.squeeze(4) if t.dim() == 5 else t for name, t in taken.items()}
    wrong = differences(shapes, taken)
    if wrong:
        raise ValueError(
            f"{source} is no published x{scale} checkpoint of stage {stage}: {wrong}; check --stage, --scale"
        )
    return {name: taken[theirs].contiguous() for name, theirs in names.items()}


def import_weights(path: Path, stage: str, scale: int | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State and card of the published checkpoint ``path``, for ``checkpoint.save``; "affinity" has no scale."""
    if stage not in STAGES:
        raise ValueError(f"stage {stage!r} was not published: use one of {', '.join(STAGES)}")
    if stage == "affinity":
        published_affinity.check_scale(scale)
        state, about = published_affinity.convert(read(path), str(path))
    elif stage == "image":
        state, about = published_edsr.convert(read(path), scale, str(path))
    else:
        state, about = _gpemsr(path, stage, scale)
    card = {
        **about,
        "intensity": {"dtype": "uint8", "range": [0, 255]},
        "degradation": None,
        "stage": stage,
        "training": {"imported": {"file": Path(path).name, "sha256": _digest(path)}},
        "scores": {},
        "health": {},
        "cost": {},
    }
    return state, card


def _gpemsr(path: Path, stage: str, scale: int | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of a gpemsr stage and what its card says of the network."""
    scales = ", ".join(map(str, gpemsr.SCALES))
    if scale is None:
        raise ValueError(f"stage {stage} has weights for each scale: say which with --scale, one of {scales}")
    if scale not in gpemsr.SCALES:
        raise ValueError(f"scale {scale} is not one of gpemsr's: use one of {scales}")
    window = TESTED // scale
    about = {"model": "gpemsr", "preset": "published", "options": asdict(gpemsr.PRESETS["published"]), "scale": scale}
    about |= {"sections": SECTIONS, "section_step": 1, "window": window, "patch": window}
    return convert(read(path), stage, scale, str(path)), about


def _digest(path: Path) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def vgg_state(path: Path, layer: VggLayer, normalise: bool) -> dict[str, Tensor]:
    """The state of ``Vgg19(layer, normalise)`` from torchvision's vgg19 file or a published stage 3 checkpoint."""
    given = {re.sub(r"^(features|vgg\.slice\d)\.", "layers.", name): tensor for name, tensor in read(path).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in Vgg19(layer, normalise).state_dict().items()}
    taken = {name: tensor.float() for name, tensor in given.items() if name in shapes}
    first = "layers.0.weight"
    if not normalise and first in taken and taken[first].dim() == 4:
        taken[first] = taken[first].sum(1, keepdim=True)
    return _checked(taken, shapes, f"{path} holds no VGG19")


def spynet_state(path: Path, options: gpemsr.Options) -> dict[str, Tensor]:
    """The state of the flow network of ``options`` from a published SpyNet file (or a stage 3 checkpoint)."""
    if options.flow != "spynet":
        raise ValueError(
            f"option flow is {options.flow}, which has no use for weights of SpyNet: leave spynet out, or the option"
        )
    network = gpemsr.flow_network(options).state_dict()
    given = {name.removeprefix("align_module.spynet."): tensor.float() for name, tensor in read(path).items()}
    taken = {re.sub(r"^basic_module\.(\d+)\.basic_module\.", r"levels.\1.", name): t for name, t in given.items()}
    constants = {name: network[name] for name in ("mean", "std")}  # some files leave them out
    shapes = {name: tuple(tensor.shape) for name, tensor in network.items()}
    return _checked(
        {name: t for name, t in (constants | taken).items() if name in shapes}, shapes, f"{path} is no SpyNet"
    )


def _checked(taken: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], problem: str) -> dict[str, Tensor]:
    wrong = differences(shapes, taken)
    if wrong:
        raise ValueError(f"{problem}: {wrong}; give another file or leave it out")
    return taken
