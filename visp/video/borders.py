"""The frames between a cut and the nearest key frame: decoded, and encoded to stand beside copied ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visp.video.container import VideoError
from visp.video.h264 import PPS, SPS, Framing, kind_of
from visp.video.timeline import TICK

if TYPE_CHECKING:
    import av
    from av.packet import Packet
    from av.video.stream import VideoStream

    from visp.video.timeline import Timeline

TOLERANCE = 2e-3
"""Seconds by which rounded timestamps may differ from the times asked for."""


@dataclass(frozen=True)
class Part:
    """Packets [first, stop), in decoding order, that are copied or decoded and encoded; times on the file's clock."""

    first: int
    stop: int
    start: float
    end: float
    encode: bool = False


@dataclass(frozen=True)
class Index:
    """The packets of the picture, in decoding order.

    Attributes:
        times: When each is shown.
        ends: Until when.
        keys: Numbers of those that begin at a key frame.
        framing: How the pictures are stored, if the frames at a cut can be encoded; None if they cannot.
        like: The first frame, if so.
    """

    times: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    keys: list[int] = field(default_factory=list)
    framing: Framing | None = None
    like: av.VideoFrame | None = None


class Encoder:
    """Decodes frames of a part and encodes them as a file's other pictures are.

    Args:
        stream: The source's picture.
        framing: How its packets are made.
        like: A frame of it.
    """

    def __init__(self, stream: VideoStream, framing: Framing, like: av.VideoFrame) -> None:
        from av import VideoFrame

        self._stream, self._framing, self._like = stream, framing, like
        self._number = framing.free_id()
        encoder = self._opened()
        packets = encoder.encode(VideoFrame(like.width, like.height, like.format.name)) + encoder.encode(None)
        units = [unit for packet in packets for unit in Framing(0, ()).units(bytes(packet))]
        self.sets = [unit for unit in units if kind_of(unit) in (SPS, PPS)]

    def encoded(
        self, part: Part, packets: Iterator[tuple[int, Packet[Any]]], index: Index, timeline: Timeline
    ) -> Iterator[tuple[bytes, bool, float, float]]:
        """Yield the pictures of a part: bytes, whether a key frame, when it is shown, and until when.

        Raises:
            VideoError: If not all can be decoded.
        """
        from av import CodecContext, FFmpegError

        decoder: Any = CodecContext.create("h264", "r")
        decoder.extradata = self._stream.codec_context.extradata
        encoder = self._opened()
        times: list[float] = []
        made: list[Packet[Any]] = []
        base = 0.0
        for packet in (*(packet for _, packet in packets), None):
            base = float(packet.time_base or 0) if packet is not None else base
            try:
                frames = decoder.decode(packet)
            except FFmpegError:  # damage is told from the number of frames
                continue
            for frame in frames:
                time = timeline.exact(frame.pts * base)
                if part.start - TOLERANCE <= time < part.end - TOLERANCE:
                    times.append(time)
                    frame.pts, frame.time_base, frame.pict_type = round(time / TICK), TICK, 0
                    made += encoder.encode(frame)
        made += encoder.encode(None)
        expected = index.times[part.first : part.stop]
        expected = expected[(expected >= part.start - TOLERANCE) & (expected < part.end - TOLERANCE)]
        if len(made) != len(expected):
            raise VideoError(
                f"only {len(made)} of {len(expected)} frames can be decoded from {part.start:.2f} to {part.end:.2f} s; "
                "this video cannot be cut without encoding"
            )
        for packet, time, end in zip(made, times, [*times[1:], part.end], strict=True):
            units = [unit for unit in Framing(0, ()).units(bytes(packet)) if kind_of(unit) not in (SPS, PPS)]
            yield self._framing.packed(units), packet.is_keyframe, time, end

    def _opened(self) -> Any:
        from av import CodecContext

        source, like = self._stream.codec_context, self._like
        encoder: Any = CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = like.width, like.height, like.format.name
        encoder.time_base = TICK
        encoder.framerate = self._stream.average_rate or Fraction(25)
        encoder.sample_aspect_ratio = source.sample_aspect_ratio or 1
        encoder.color_range, encoder.colorspace = like.color_range, like.colorspace
        encoder.color_primaries, encoder.color_trc = like.color_primaries, like.color_trc
        # Parameter sets of a number of their own stand beside the source's; frames are decoded as they are shown.
        encoder.options = {"crf": "17", "preset": "fast", "bf": "0", "x264-params": f"sps-id={self._number}"}
        return encoder
