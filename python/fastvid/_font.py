"""A 5x7 dot font, for the labels and signs the demo draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Five columns per letter, the lowest bit on top.
_COLUMNS = {
    "0": "3e5149453e", "1": "00427f4000", "2": "4261514946", "3": "2141494d33",
    "4": "1814127f10", "5": "2745454539", "6": "3c4a494931", "7": "4121110907",
    "8": "3649494936", "9": "464949291e", "A": "7c1211127c", "B": "7f49494936",
    "C": "3e41414122", "D": "7f4141413e", "E": "7f49494941", "F": "7f09090901",
    "G": "3e4149497a", "H": "7f0808087f", "I": "00417f4100", "J": "2040413f01",
    "K": "7f08142241", "L": "7f40404040", "M": "7f021c027f", "N": "7f0408107f",
    "O": "3e4141413e", "P": "7f09090906", "Q": "3e4151215e", "R": "7f09192946",
    "S": "2649494932", "T": "01017f0101", "U": "3f4040403f", "V": "1f2040201f",
    "W": "3f4038403f", "X": "6314081463", "Y": "0304780403", "Z": "6151494543",
    " ": "0000000000", ".": "0000606000", "+": "08083e0808", "-": "0808080808",
    "/": "2010080402", ":": "0000363600",
}  # fmt: skip


def text_mask(text: str, scale: int = 1) -> NDArray[np.bool_]:
    """Draw text.

    Args:
        text: Capital letters, digits, space and ` . + - / : `.
        scale: Pixels per dot.

    Returns:
        bool (7 * scale, 6 * len(text) * scale), true where ink is; one empty column per letter.
    """
    columns = [column for letter in text for column in (*bytes.fromhex(_COLUMNS[letter]), 0)]
    dots = (np.array(columns, np.uint8)[None, :] >> np.arange(7, dtype=np.uint8)[:, None]) & 1
    return np.repeat(np.repeat(dots.astype(bool), scale, 0), scale, 1)
