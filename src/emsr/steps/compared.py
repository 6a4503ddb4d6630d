"""Whether weights were trained on images like the lr that they are to super-resolve."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emsr.inference import allocation
from emsr.metrics import likeness
from emsr.steps import sampled

log = logging.getLogger(__name__)


def compare(weights: Mapping[str, Any], card: Path, image: Mapping[str, Any], lr: Path, accepted: bool) -> None:
    """Refuse, or if that is accepted warn of, an lr that is unlike those that the weights were trained on.

    `weights` is what their `card` says, `image` what that of `lr` says. What cannot be compared is a warning.
    """
    found, seen = allocation.other_mapping(weights, image), weights.get("looks")
    compared = [one for one in (seen or {}).values() if one]
    own = sampled.looks(lr) if compared else None
    if own:
        found += sorted((likeness.mismatch(own, one) for one in compared), key=len)[0]
    elif seen != {}:
        what = f"{lr} shows too little" if compared else f"{card} does not say how training images looked"
        log.warning("%s: whether lr is like them is not known", what)
    if not found:
        return
    said = f"{lr} is unlike the images that {card} was trained on: {', '.join(found)}"
    if not accepted:
        raise ValueError(f"{said}: take weights trained on such images, or state accept_mismatch: true for the volume")
    log.warning("%s; accepted by accept_mismatch", said)
