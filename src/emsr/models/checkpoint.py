"""Weights on disk: a safetensors file and, beside it, its card (JSON). Whole or absent; checked against its sha256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from emsr import durable, plugins, scales
from emsr.scales import Scale

SCHEMA = 1
STATED = ("sha256", "model", "options", "scale", "sections", "stage")


def card_path(path: Path) -> Path:
    """The card beside weights ``path``; a card's own path is left as it is."""
    return Path(path).with_suffix(".json")


def save(path: Path, state: Mapping[str, Tensor], card: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``state`` to ``path`` and the card beside it, each durably and in one step; returns the card with its hash.

    Equal states give equal bytes. The card must state model, options, scale, sections and stage.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(state.items())}
    content = to_bytes(tensors)
    whole = {"schema": SCHEMA, **card, "sha256": hashlib.sha256(content).hexdigest()}
    _check_card(path, whole)
    durable.write_bytes(Path(path), content)
    durable.write_sealed(card_path(path), whole)
    return whole


def load_card(path: Path) -> dict[str, Any]:
    """The card of weights ``path`` (either file's path). FileNotFoundError or ValueError if unusable."""
    beside = card_path(path)
    if not beside.is_file():
        raise FileNotFoundError(f"{beside} does not exist: weights need their card beside them (emsr import-weights)")
    card: dict[str, Any] = durable.read_json(beside, SCHEMA)
    _check_card(beside, card)
    return card


def _check_card(path: Path, card: Any) -> None:
    missing = [name for name in STATED if name not in card] if isinstance(card, dict) else list(STATED)
    if missing:
        raise ValueError(
            f"{path} is no card of weights: {', '.join(missing)} missing; train or import the weights again"
        )
    kinds = {"sha256": str, "model": str, "stage": str, "options": dict, "sections": int}
    _check_scale(path, card["scale"])
    for name, kind in kinds.items():
        if type(card[name]) is not kind or (kind is int and card[name] < 1):
            raise ValueError(
                f"{path} is no card of weights: {name} is {card[name]!a}; train or import the weights again"
            )
    if (schema := card.get("schema", SCHEMA)) != SCHEMA:
        raise ValueError(
            f"{path} has schema {json.dumps(schema)}, this emsr reads 1 to {SCHEMA}: use the emsr that wrote it, or "
            "delete it and run the step that makes it again"
        )


def _check_scale(path: Path, scale: Any) -> None:
    try:
        scales.of(scale)
    except ValueError:
        raise ValueError(
            f"{path} is no card of weights: scale is {scale!a}; train or import the weights again"
        ) from None


def load_state(path: Path, card: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Tensors of weights ``path``, after their sha256 was found equal to the card's."""
    weights = Path(path).with_suffix(".safetensors")
    if not weights.is_file():
        raise FileNotFoundError(f"{weights} does not exist: check the path or train the weights")
    content = weights.read_bytes()
    stated = (card or load_card(path))["sha256"]
    found = hashlib.sha256(content).hexdigest()
    if found != stated:
        raise ValueError(
            f"{weights} has sha256 {found[:12]}, its card says {stated[:12]}: restore the file or the card"
        )
    try:
        state = dict(sorted(from_bytes(content).items()))
    except SafetensorError as error:
        raise ValueError(f"{weights} is not safetensors ({error}): train or import the weights again") from None
    check_finite(weights, state)
    return state


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """ValueError, in one line, for NaN or infinity in the weights of ``path``, which spoil all that they compute."""
    for name, tensor in state.items():
        numbers = tensor.float() if tensor.element_size() == 1 else tensor  # float8 is only a way to store
        if not bool(torch.isfinite(numbers).all()):
            raise ValueError(f"{path}: tensor {name!a} holds NaN or infinity: train or import the weights again")


def network(card: Mapping[str, Any], source: str = "its card") -> nn.Module:
    """The network of the card's stage, untrained: the model's own, or what it builds for an earlier stage.

    Raises ValueError where the card names a module that is no model, which is seen without importing it, or states what
    none can be built of.
    """
    plugins.fields(plugins.file_of("models", str(card["model"])), "Options")
    module = plugins.load("models", card["model"])
    try:
        options = module.Options(**_tuples(card["options"]))
        scale = scales.of(card["scale"])
        if hasattr(module, "network"):
            built: nn.Module = module.network(card["stage"], scale, card["sections"], options)
        else:
            built = module.build(scale, card["sections"], options)
    except (TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"no network of {card['model']} can be built of {source} ({said}): train or import the weights again"
        ) from error
    return built


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def expect(card: Mapping[str, Any], path: Path, stage: str | None = None, scale: Scale | None = None) -> None:
    """Raise a one-line ValueError unless the card's weights are of ``stage`` and ``scale``."""
    for name, wanted in (("stage", stage), ("scale", scales.stated(scale))):
        if wanted is not None and card[name] != wanted:
            raise ValueError(f"{path} holds weights of {name} {card[name]}, {wanted} is needed: name other weights")


def load(
    path: Path,
    device: str | torch.device = "cpu",
    stage: str | None = None,
    scale: Scale | None = None,
    used_at: Scale | None = None,
) -> nn.Module:
    """The network of weights ``path`` in evaluation mode on ``device``, without gradients.

    ``used_at`` is the scale that a model of real scales is built for, where that is not the one of the weights.
    """
    card = load_card(path)
    expect(card, path, stage, scale)
    card |= {} if used_at is None else {"scale": scales.stated(used_at)}
    state = load_state(path, card)
    with torch.device("meta"):  # without memory: the card's options may say any size
        check_fit(network(card, str(card_path(path))), state, str(path))
    model = network(card)
    fill(model, state, str(path))
    return model.to(device).eval().requires_grad_(False)


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy ``state`` into ``model``; a one-line ValueError names what is missing, unknown or misshapen."""
    check_fit(model, state, source)
    model.load_state_dict(dict(state))


def check_fit(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Raise a one-line ValueError, which names what is missing, unknown or misshapen, unless ``state`` is a model's."""
    own = model.state_dict()
    wrong = differences({name: tuple(tensor.shape) for name, tensor in own.items()}, state)
    if wrong:
        raise ValueError(f"{source} does not fit the network: {wrong}; use weights of the same model and options")


def differences(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> str:
    """In one line, which tensors of ``state`` are missing, misshapen or unknown against ``expected``; "" if none."""
    missing = [name for name in expected if name not in state]
    shapes = [
        f"{name} is {tuple(state[name].shape)} and not {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    unknown = [name for name in state if name not in expected]
    parts = [_listed("missing", missing), _listed("misshapen", shapes), _listed("unknown", unknown)]
    return "; ".join(part for part in parts if part)


def _listed(what: str, names: list[str], most: int = 4) -> str:
    if not names:
        return ""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{what} {', '.join(names[:most])}{more}"
