"""The frozen prior inside gpemsr: from an lr section to a decoded reference and its likeness (spec C.2, C.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from emsr.layers.blocks import resize
from emsr.layers.codebook import Codebook
from emsr.layers.features import Vgg19, patch_cosine
from emsr.models.checkpoint import fill
from emsr.models.indexer import Indexer
from emsr.models.vqgan import Decoder, first_block

if TYPE_CHECKING:
    from emsr.models.gpemsr import Options


class References(NamedTuple):
    """What the prior says of lr sections (batch, 1, y, x); depends on them alone, so training may keep it.

    ``features``: of strides 2, 4, ... scale, finest first, (batch, channels, scale*y/stride, scale*x/stride);
    ``image`` (batch, 1, scale*y, scale*x), not clamped; ``logits`` of the indexer (batch, y', x', entries);
    ``similarity`` (batch, 1, y', x') on the latent grid, cosine of reference and enlarged input.
    """

    features: list[Tensor]
    image: Tensor
    logits: Tensor
    similarity: Tensor


class Reference(nn.Module):
    """Indexer, codebook, decoder and the features (``look``) in which reference and input are compared."""

    def __init__(self, scale: int, options: Options) -> None:
        super().__init__()
        self.scale, self.stride = scale, options.latent_stride
        self.indexer = Indexer(scale, options)
        self.codebook = Codebook(options.entries, options.latent, "frozen")
        self.decoder = Decoder(options)
        self.look = _look(options)

    def forward(self, lr: Tensor) -> References:
        """(batch, 1, y, x) in [0, 1], sides multiples of latent_stride / scale."""
        logits = self.indexer(lr)
        return self.decode(lr, logits, logits.argmax(-1))

    def decode(self, lr: Tensor, logits: Tensor, indices: Tensor) -> References:
        """References for an index map (batch, y', x') of one's own, such as the true one."""
        features, image = self.decoder.of_indices(indices, self.codebook.entries)
        levels = self.scale.bit_length() - 1
        pairs = zip(image.split(1), resize(lr, self.scale).split(1), strict=True)  # these features are large
        similarity = [patch_cosine(self.look(own), self.look(enlarged), self.stride) for own, enlarged in pairs]
        return References(features[::-1][:levels], image, logits, torch.cat(similarity))

    def adopt(self, stage: str, state: Mapping[str, Tensor]) -> None:
        """Take the indexer, or from stage ``codebook`` decoder, entries and the encoder features that are compared."""
        if stage == "indexer":
            fill(self.indexer, state, "stage indexer")
        elif stage == "codebook":
            fill(self.decoder, part(state, "decoder."), "stage codebook, decoder")
            entries = {name: tensor for name, tensor in part(state, "codebook.").items() if name == "entries"}
            fill(self.codebook, entries, "stage codebook, entries")
            if not isinstance(self.look, Vgg19):
                fill(self.look, part(state, "encoder.first."), "stage codebook, encoder")
        else:
            raise ValueError(f"stage {stage!r} has no part in the prior: use codebook or indexer")


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _look(options: Options) -> nn.Module:
    if options.mask_features == "vgg":
        return Vgg19("relu1_2", normalise=False)
    if options.mask_features == "encoder":
        return first_block(options)
    raise ValueError(f"mask_features {options.mask_features!r} is unknown: use vgg or encoder")
