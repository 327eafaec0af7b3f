"""Frames as they are to be shown: turned and mirrored as their display matrix says."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import av

LIMITED = 1
"""AVCOL_RANGE_MPEG: luma from 16 to 235."""
_RGB, _UNKNOWN, _BT601 = 0, 2, 6
"""AVCOL_SPC_RGB, AVCOL_SPC_UNSPECIFIED and AVCOL_SPC_SMPTE170M."""


@dataclass(frozen=True)
class Orientation:
    """What is done to a stored picture before it is shown: first transposed, then mirrored.

    Attributes:
        transposed: Rows and columns change places.
        left_right: Mirrored from left to right, afterwards.
        upside_down: Mirrored from top to bottom, afterwards.
    """

    transposed: bool = False
    left_right: bool = False
    upside_down: bool = False

    def __bool__(self) -> bool:
        return self.transposed or self.left_right or self.upside_down

    def turn(self, plane: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a plane (H, W, ...) as it is shown."""
        plane = plane.swapaxes(0, 1) if self.transposed else plane
        plane = plane[:, ::-1] if self.left_right else plane
        return plane[::-1] if self.upside_down else plane


def orientation(frame: av.VideoFrame) -> Orientation:
    """Return what a frame's display matrix asks for, to the nearest quarter turn.

    The matrix maps a stored point (x, y) to (a x + c y, b x + d y), with its entries in the order a, b, u, c, d, v, x,
    y, w (ISO 14496-12, 8.3.2).
    """
    from av.sidedata.sidedata import Type

    side_data: Any = frame.side_data  # by type as well as by name
    data = side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return Orientation()
    entries = np.frombuffer(bytes(data), dtype=np.int32)
    if entries.size < 9:
        return Orientation()
    a, b, _, c, d = entries[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def upright_image(frame: av.VideoFrame) -> npt.NDArray[np.uint8]:
    """Return the frame as (H, W, 3) uint8 RGB, turned as its display matrix says."""
    image: npt.NDArray[np.uint8] = frame.to_ndarray(format="rgb24")  # type: ignore[assignment]
    return np.ascontiguousarray(orientation(frame).turn(image))


def drawn(frame: av.VideoFrame, size: tuple[int, int], aspect: float = 1) -> av.VideoFrame:
    """Return a frame as it is shown, as yuv420p of limited range and an even (width, height).

    Of a stored pixel, ``aspect`` is the width over the height, and those of the result are square unless it is 1.

    An interlaced frame becomes its first lines with those between them interpolated. A frame of another shape is
    fitted in, between black bars.
    """
    from av import VideoFrame

    turned = orientation(frame)
    room = size[::-1] if turned.transposed else size
    width, height = _fitted((frame.width * aspect, frame.height), room)
    if frame.interlaced_frame:
        frame = _deinterlaced(frame)
    frame = frame.reformat(
        width=width, height=height, format="yuv420p", src_color_range=_range(frame), dst_color_range=LIMITED
    )
    if turned or (width, height) != room:
        planes = [turned.turn(plane) for plane in _planes(frame)]
        planes = [_padded(plane, side, shade) for plane, side, shade in zip(planes, _sizes(size), _BLACK, strict=True)]
        flat = np.concatenate([plane.reshape(-1) for plane in planes])
        frame = VideoFrame.from_ndarray(flat.reshape(-1, size[0]), format="yuv420p")
    frame.pict_type = 0  # else the encoder repeats the source's choice of key frames
    return frame


def drawn_matrix(frame: av.VideoFrame) -> int:
    """Return the colour matrix (AVCOL_SPC) that holds for the frame as it is drawn."""
    if frame.format.is_rgb or frame.colorspace == _RGB:
        return _BT601  # what RGB is converted with
    return int(frame.colorspace)


def as_file(image: npt.NDArray[np.uint8], codec: str, pix_fmt: str, width: int | None = None) -> bytes:
    """Return an image (H, W, 3) uint8 as the bytes of a file of one picture, at most ``width`` wide."""
    from av import CodecContext, VideoFrame

    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    width = min(width or frame.width, frame.width)
    height = frame.height if width == frame.width else max(2, round(frame.height * width / frame.width))
    frame = frame.reformat(width=width, height=height, format=pix_fmt)
    encoder: Any = CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
    encoder.time_base = Fraction(1, 25)
    return b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)]))


_BLACK = (16, 128, 128)


def _range(frame: av.VideoFrame) -> int:
    full = frame.color_range == 2 or frame.format.name.startswith("yuvj") or frame.format.is_rgb
    return 2 if full else LIMITED


def _fitted(size: tuple[float, float], room: tuple[int, int]) -> tuple[int, int]:
    """Return the largest even (width, height) of a picture's shape that fits; all of it where hardly any is left."""
    scale = min(room[0] / size[0], room[1] / size[1])
    width, height = (max(2, round(side * scale / 2) * 2) for side in size)
    near = abs(width - room[0]) <= 2 and abs(height - room[1]) <= 2
    return room if near else (min(width, room[0]), min(height, room[1]))


def _sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the shapes (H, W) of the planes of yuv420p."""
    return [(size[1], size[0]), (size[1] // 2, size[0] // 2), (size[1] // 2, size[0] // 2)]


def _planes(frame: av.VideoFrame) -> list[npt.NDArray[np.uint8]]:
    """Return the planes (H, W) of a frame of yuv420p."""
    width, height = frame.width, frame.height
    flat = np.asarray(frame.to_ndarray()).reshape(-1)
    parts = np.split(flat, [width * height, width * height * 5 // 4])
    return [part.reshape(shape) for part, shape in zip(parts, _sizes((width, height)), strict=True)]


def _padded(plane: npt.NDArray[Any], shape: tuple[int, int], shade: int) -> npt.NDArray[Any]:
    if plane.shape == shape:
        return plane
    canvas = np.full(shape, shade, dtype=np.uint8)
    top, left = (shape[0] - plane.shape[0]) // 2, (shape[1] - plane.shape[1]) // 2
    canvas[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return canvas


def _deinterlaced(frame: av.VideoFrame) -> av.VideoFrame:
    """Keep the even lines of each plane, and interpolate the odd ones between them."""
    from av import VideoFrame

    size = (max(2, frame.width // 2 * 2), max(4, frame.height // 4 * 4))
    full = _range(frame)
    planes = _planes(frame.reformat(*size, "yuv420p", src_color_range=full, dst_color_range=LIMITED))
    for plane in planes:
        even = plane[::2].astype(np.uint16)
        below = np.concatenate([even[1:], even[-1:]])
        plane[1::2] = ((even + below + 1) // 2).astype(np.uint8)[: len(plane[1::2])]
    flat = np.concatenate([plane.reshape(-1) for plane in planes])
    done = VideoFrame.from_ndarray(flat.reshape(-1, size[0]), format="yuv420p")
    done.color_range, done.colorspace = LIMITED, frame.colorspace
    return done
