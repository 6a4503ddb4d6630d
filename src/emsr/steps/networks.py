"""The networks that a training stage begins with: its own, frozen earlier ones, and what compares images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from emsr.models.stage import Stage


def begin(settings: Mapping[str, Any], card: Mapping[str, Any], options: Any, stage: Stage) -> nn.Module:
    """The network of `stage`, drawn from the seed, with the frozen parts and starting weights that `settings` name.

    `card` says which network it is; `options` are the model's. Raises one-line errors for weights that do not fit.
    """
    import torch

    from emsr.models import checkpoint, published

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        network: Any = checkpoint.network(card)
    if stage.objective in ("fusion", "image"):
        _check_made_with(settings["cards"])
        for earlier, path in settings["cards"].items():
            network.adopt(earlier, _state(Path(path), earlier, None))
    if stage.objective == "fusion" and settings["perceptual"] and options.reference and options.mask_features == "vgg":
        network.reference.look.load_state_dict(_vgg(settings, "relu1_2", normalise=False))
    if stage.objective == "flow" and settings["spynet"]:
        network.load_state_dict(published.spynet_state(Path(settings["spynet"]["path"]), options))
    if settings["init_from"]:
        path = Path(settings["init_from"]["path"])
        scale = None if stage.objective in ("flow", "codebook") else settings["scale"]
        checkpoint.fill(network, _state(path, stage.name, scale), str(path))
    return network


def _check_made_with(cards: Mapping[str, str]) -> None:
    """Each earlier stage was made with the very weights of the stages before it that stand here."""
    from emsr.models import checkpoint

    read = {stage: checkpoint.load_card(Path(path)) for stage, path in cards.items()}
    for stage, card in read.items():
        for earlier, sha256 in card.get("made_with", {}).items():
            if earlier in read and read[earlier]["sha256"] != sha256:
                raise ValueError(
                    f"{cards[stage]} was made with {earlier} {sha256[:12]}, not {cards[earlier]}: train {stage} again"
                )


def _state(path: Path, stage: str, scale: int | None) -> dict[str, Tensor]:
    """Tensors of the weights at `path`, which must be of `stage` and, unless None, of `scale`."""
    from emsr.models import checkpoint

    card = checkpoint.load_card(path)
    checkpoint.expect(card, path, stage, scale)
    return checkpoint.load_state(path, card)


def _vgg(settings: Mapping[str, Any], layer: Any, normalise: bool) -> dict[str, Tensor]:
    from emsr.models import published

    return published.vgg_state(Path(settings["perceptual"]["path"]), layer, normalise)


def beside(settings: Mapping[str, Any], options: Any, stage: Stage) -> dict[str, nn.Module]:
    """Networks beside the trained one, by name: frozen earlier stages, a discriminator."""
    import torch

    from emsr.models import checkpoint

    cards = settings["cards"].items() if stage.objective in ("indexer", "fusion") else ()
    networks: dict[str, nn.Module] = {earlier: checkpoint.load(Path(path), stage=earlier) for earlier, path in cards}
    if stage.adversarial_weight and stage.objective in ("codebook", "adversarial"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings["seed"] + 1)
            networks["discriminator"] = _discriminator(settings, options, stage)
    return networks


def perceptual(settings: Mapping[str, Any], encoder: Any, device: str) -> Callable[[Tensor], Tensor]:
    """Features of the contextual loss (spec C.9): VGG19 relu3_4 by path, else the codebook's encoder at a quarter."""
    return _vgg_features(settings, "relu3_4", device) if settings["perceptual"] else _encoded(encoder)


def compared(settings: Mapping[str, Any], device: str) -> Callable[[Tensor], Tensor]:
    """Features of perceptual losses: of weights with a card the codebook's encoder, at a quarter, else VGG19 conv5_4.

    ValueError where no weights are named.
    """
    from emsr.models import checkpoint
    from emsr.models.stage import NOTHING_COMPARES

    if not settings["perceptual"]:
        raise ValueError(NOTHING_COMPARES)
    path = Path(settings["perceptual"]["path"])
    if not checkpoint.card_path(path).is_file():
        return _vgg_features(settings, "conv5_4", device)
    network: Any = checkpoint.load(path, stage="codebook").requires_grad_(False).to(device)
    return _encoded(network.encoder)


def _discriminator(settings: Mapping[str, Any], options: Any, stage: Stage) -> nn.Module:
    """The model's own, or a codebook's."""
    from emsr import plugins
    from emsr.models import vqgan

    if stage.objective == "codebook":
        return vqgan.Discriminator(options.discriminator_channels)
    made: nn.Module = plugins.load("models", settings["model"]["name"]).discriminator(options)
    return made


def _encoded(encoder: Any) -> Callable[[Tensor], Tensor]:
    from functools import partial

    return partial(encoder.features, stride=4)


def _vgg_features(settings: Mapping[str, Any], layer: Any, device: str) -> Callable[[Tensor], Tensor]:
    from emsr.layers.features import Vgg19

    vgg = Vgg19(layer, normalise=True)
    vgg.load_state_dict(_vgg(settings, layer, normalise=True))
    return vgg.eval().requires_grad_(False).to(device)


def cost(network: nn.Module, card: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters and, of a whole network, the operations of one window (counted, not run).

    `macs` are multiply-accumulates of a section that enters and of a centre; `flops_per_window`, two operations each,
    those of one centre with all its sections.
    """
    from emsr.inference.cost import of_network

    found: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in network.parameters())}
    if not hasattr(network, "centre"):
        return found
    counted = of_network(network, card["depth"] if "depth_overlap" in card else card["sections"], card["window"])
    section, centre = counted.section.total, counted.centre.total
    macs = {"section": section, "centre": centre}
    return {**found, "macs": macs, "flops_per_window": 2 * (card["sections"] * section + centre)}
