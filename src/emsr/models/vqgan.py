"""Stage one: an autoencoder of hr sections through a codebook, and its discriminator (spec A)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from emsr.layers.attention import NonLocal
from emsr.layers.blocks import Norm, ResidualBlock, conv, group_norm, up
from emsr.layers.codebook import Codebook

if TYPE_CHECKING:
    from emsr.models.gpemsr import Options


class Reconstruction(NamedTuple):
    """``image`` (batch, 1, y, x), ``latents`` (batch, latent, y/stride, x/stride), ``indices``, ``loss`` (scalar)."""

    image: Tensor
    latents: Tensor
    indices: Tensor
    loss: Tensor


def build(options: Options) -> Vqgan:
    """The generator of stage one, untrained."""
    return Vqgan(options)


def widths(options: Options) -> tuple[int, ...]:
    """Channels from full resolution down to the latent grid: the first log2(latent_stride) + 1 of ``channels``.

    Raises ValueError when the stride is no power of two or ``channels`` is too short.
    """
    stride = options.latent_stride
    levels = stride.bit_length() - 1
    if stride < 2 or stride != 2**levels:
        raise ValueError(f"latent_stride {stride} is no power of two: use 2, 4, 8, 16 or 32")
    if len(options.channels) <= levels:
        raise ValueError(f"channels {options.channels} are too few for latent_stride {stride}: give {levels + 1}")
    return options.channels[: levels + 1]


class Vqgan(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.encoder = Encoder(options)
        self.codebook = Codebook(options.entries, options.latent, options.codebook_learning)  # type: ignore[arg-type]
        self.decoder = Decoder(options)

    def forward(self, image: Tensor, commitment: float = 1.0, quantise: bool = True) -> Reconstruction:
        """(batch, 1, y, x) in [0, 1], sides multiples of the stride -> its reconstruction, not clamped.

        ``quantise=False`` decodes the latents as they are; the loss is then zero.
        """
        latents = self.encoder(image)
        if not quantise:
            decoded = self.decoder(latents)[1]
            return Reconstruction(decoded, latents, self.codebook.nearest(latents), latents.new_zeros(()))
        quantised = self.codebook(latents, commitment)
        return Reconstruction(self.decoder(quantised.latents)[1], latents, quantised.indices, quantised.loss)

    def indices(self, image: Tensor) -> Tensor:
        """(batch, 1, y, x) -> index map (batch, y/stride, x/stride)."""
        return self.codebook.nearest(self.encoder(image))

    def decode(self, indices: Tensor) -> Tensor:
        """Index map (batch, y, x) -> image (batch, 1, stride*y, stride*x)."""
        image: Tensor = self.decoder(self.codebook.lookup(indices))[1]
        return image


class Encoder(nn.Module):
    """(batch, 1, y, x) -> latents (batch, latent, y/stride, x/stride) (spec A.2)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        norm, channels = group_norm(options.norm_groups, options.norm_group_channels), widths(options)
        self.normalise = options.normalise_latents
        self.first = first_block(options)
        levels: list[nn.Module] = []
        for wide, wider in pairwise(channels):
            levels += [ResidualBlock(wide, wide, norm), conv(wide, wider, stride=2)]
        self.levels = nn.Sequential(*levels[1:], *_attention(options, norm))
        self.tail = _tail(options, norm)

    def forward(self, image: Tensor) -> Tensor:
        """Latents, of unit root mean square at each position where the options say so (float32 then)."""
        latents: Tensor = self.tail(self.levels(self.first(image)))
        if not self.normalise:
            return latents
        latents = latents.float()
        return latents * torch.rsqrt(latents.square().mean(1, keepdim=True) + 1e-6)

    def features(self, image: Tensor, stride: int) -> Tensor:
        """(batch, 1, y, x) -> (batch, channels, y/stride, x/stride): the last map of that size on the way.

        Raises ValueError for a stride that the encoder does not pass.
        """
        x: Tensor = self.first(image)
        found = x if stride == 1 else None
        for layer in self.levels:
            if found is not None and found.shape[-1] != x.shape[-1]:
                break
            x = layer(x)
            found = x if image.shape[-1] == stride * x.shape[-1] else found
        if found is None:
            raise ValueError(f"the encoder has no features of stride {stride}: use a power of two up to latent_stride")
        return found


def first_block(options: Options) -> nn.Sequential:
    """The encoder's first residual block and what comes before it: (batch, 1, y, x) -> (batch, channels[0], y, x)."""
    norm, width = group_norm(options.norm_groups, options.norm_group_channels), options.channels[0]
    return nn.Sequential(conv(1, width), nn.ReLU(inplace=True), ResidualBlock(width, width, norm))


class Decoder(nn.Module):
    """Latents -> reference features of strides latent_stride..2 and the image (spec A.4)."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        norm, channels = group_norm(options.norm_groups, options.norm_group_channels), widths(options)[::-1]
        blocks = [ResidualBlock(channels[0], channels[0], norm) for _ in range(options.tail_blocks)]
        self.head = nn.Sequential(conv(options.latent, channels[0], kernel=1), *blocks, *_attention(options, norm))
        self.blocks = nn.ModuleList(ResidualBlock(wide, wide, norm) for wide in channels[:-1])
        self.ups = nn.ModuleList(up(wider, wide) for wider, wide in pairwise(channels))
        self.last = conv(channels[-1], 1)
        torch.as_tensor(self.last.bias).data.add_(options.decoder_bias)

    def forward(self, latents: Tensor) -> tuple[list[Tensor], Tensor]:
        """(batch, latent, y, x) -> features, coarsest (latent grid) first, stride 2 last; image, not clamped."""
        return self._rest(self.head[0](latents))

    def of_indices(self, indices: Tensor, entries: Tensor) -> tuple[list[Tensor], Tensor]:
        """``forward`` of the entries (count, latent) that an index map (batch, y, x) names.

        The first convolution, of 1x1, sees each entry once where they are fewer than the positions.
        """
        if indices.numel() <= len(entries):
            return self(F.embedding(indices, entries).permute(0, 3, 1, 2))
        table = self.head[0](entries.T[None, :, :, None])[0, :, :, 0].T  # (count, channels)
        return self._rest(F.embedding(indices, table).permute(0, 3, 1, 2))

    def _rest(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        for layer in list(self.head)[1:]:
            x = layer(x)
        features = []
        for block, lift in zip(self.blocks, self.ups, strict=True):
            x = block(x)
            features.append(x)
            x = lift(x)
        return features, self.last(x)


def _attention(options: Options, norm: Norm) -> list[nn.Module]:
    return [NonLocal(widths(options)[-1], norm)] if options.attention else []


def _tail(options: Options, norm: Norm) -> nn.Sequential:
    width = widths(options)[-1]
    blocks = [ResidualBlock(width, width, norm) for _ in range(options.tail_blocks)]
    return nn.Sequential(*blocks, conv(width, options.latent, kernel=1))


class Discriminator(nn.Module):
    """PatchGAN of 4x4 kernels without padding (spec A.5); sides of at least 70 pixels for four widths."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels[0], 4, 2), nn.LeakyReLU(0.2, inplace=True)]
        for level, (wide, wider) in enumerate(pairwise(channels), start=2):
            stride = 1 if level == len(channels) else 2
            layers += [nn.Conv2d(wide, wider, 4, stride, bias=False), nn.InstanceNorm2d(wider)]
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4))

    def forward(self, image: Tensor) -> Tensor:
        """(batch, 1, y, x) -> logits (batch, 1, y', x'), one for each overlapping patch; 512 gives 56."""
        logits: Tensor = self.layers(image)
        return logits
