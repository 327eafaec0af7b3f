"""A picture of a summary: the best frame of every chosen shot, with the times of the shots."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from visp.utils.files import replacing
from visp.video.picture import as_file
from visp.video.report import clock

if TYPE_CHECKING:
    from visp.video.result import VideoSummary

Image = npt.NDArray[np.uint8]

_WIDTH, _GAP, _SCALE = 320, 12, 2
_ACROSS = 4
_PAPER, _INK = 22, 235
_GLYPHS = {
    "0": "699996", "1": "262227", "2": "69124f", "3": "e1611e", "4": "99f111", "5": "f8e11e", "6": "68e996",
    "7": "f12444", "8": "696996", "9": "699716", ":": "040040", ".": "000004", "-": "00f000", " ": "000000",
}  # fmt: skip
"""Six rows of four pixels per character, a hexadecimal digit a row."""


def storyboard(summary: VideoSummary) -> Image:
    """Return the picture (H, W, 3) uint8, the shots from left to right and top to bottom."""
    pictures = [_fitted(summary.pictures[frame]) for frame in summary.key_frames.tolist()]
    labels = [_written(f"{clock(a)}-{clock(b)}") for a, b in summary.shot_times[summary.selected].tolist()]
    across = min(_ACROSS, len(pictures))
    down = -(-len(pictures) // across)
    tall = max(len(picture) for picture in pictures)
    cell = tall + len(labels[0]) + 2 * _GAP
    board = np.full((down * cell + _GAP, across * (_WIDTH + _GAP) + _GAP, 3), _PAPER, np.uint8)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        top, left = number // across * cell + _GAP, number % across * (_WIDTH + _GAP) + _GAP
        board[top : top + len(picture), left : left + picture.shape[1]] = picture
        top += tall + _GAP // 2
        part = label[:, : _WIDTH + _GAP]
        board[top : top + len(part), left : left + part.shape[1]] = part
    return board


def write_storyboard(summary: VideoSummary, path: str | os.PathLike[str]) -> None:
    """Write the picture as a PNG, in place of an older file there."""
    with replacing(Path(path)) as file:
        file.write(as_file(storyboard(summary), "png", "rgb24"))


def _fitted(image: Image) -> Image:
    """Return an image at the width of the sheet, or as tall as that at most."""
    from av import VideoFrame

    height, width = image.shape[:2]
    scale = min(_WIDTH / width, _WIDTH / height)
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    size = {"width": max(1, math.floor(width * scale)), "height": max(1, math.floor(height * scale))}
    fitted: Image = frame.reformat(**size, format="rgb24", interpolation="AREA").to_ndarray()  # type: ignore[assignment]
    return fitted


def _written(text: str) -> Image:
    """Return a text of digits as an image."""
    rows = [[int(_GLYPHS[character][row], 16) for character in text] for row in range(6)]
    bits = np.array([[bit for value in row for bit in (8 & value, 4 & value, 2 & value, 1 & value, 0)] for row in rows])
    large = np.kron(bits > 0, np.ones((_SCALE, _SCALE))) > 0
    return np.repeat(np.where(large, _INK, _PAPER).astype(np.uint8)[:, :, None], 3, axis=2)
