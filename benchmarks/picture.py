"""A picture for the docs: the same place of one section, coarse, bicubic, super-resolved and fine.

python benchmarks/picture.py RESULTS VOLUME Z OUT.png        e.g. results tissue 28 docs/demo.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from emsr.degradation import upsample
from emsr.stores.card import array_path, read_card
from emsr.stores.zarr import open_array

SIDE = 320  # hr pixels
SHOWN = 480  # pixels of a panel
GAP, TITLE = 8, 26


def voxels(card: Path, z: int) -> np.ndarray:
    """Section z of an image."""
    return open_array(array_path(card, read_card(card)))[z].read().result()


def panels(folder: Path, z: int) -> dict[str, np.ndarray]:
    """The middle of section z in each image, at hr size."""
    scores = json.loads((folder / "scores.json").read_text())
    scale = scores["settings"]["scale"]
    lr = next(card for card in (folder / "lr.json", folder / f"lr_x{scale}.json") if card.is_file())
    coarse, sr, hr = voxels(lr, z), voxels(folder / "sr.json", z), voxels(folder / "hr.json", z)
    y, x = ((length - SIDE) // 2 // scale * scale for length in sr.shape)
    row = next(row for row in scores["per_section"] if row["z"] == z)
    nearest = coarse.repeat(scale, 0).repeat(scale, 1)
    titles = {
        f"coarse, x{scale}": nearest,
        f"bicubic  {row['bicubic']['psnr']:.2f} dB / {row['bicubic']['ssim']:.3f}": upsample(coarse, scale),
        f"emsr  {row['sr']['psnr']:.2f} dB / {row['sr']['ssim']:.3f}": sr,
        "fine": hr,
    }
    return {title: image[y : y + SIDE, x : x + SIDE] for title, image in titles.items()}


def draw(images: dict[str, np.ndarray]) -> Image.Image:
    """The panels side by side, with titles."""
    width = len(images) * SHOWN + (len(images) - 1) * GAP
    sheet = Image.new("L", (width, SHOWN + TITLE), 255)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for i, (title, image) in enumerate(images.items()):
        left = i * (SHOWN + GAP)
        pen.text((left + 2, 2), title, fill=0, font=font)
        sheet.paste(Image.fromarray(image).resize((SHOWN, SHOWN), Image.Resampling.NEAREST), (left, TITLE))
    return sheet


if __name__ == "__main__":
    results, volume, z, out = sys.argv[1:]
    draw(panels(Path(results) / volume, int(z))).save(out, optimize=True)
