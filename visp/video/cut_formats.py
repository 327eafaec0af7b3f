"""The formats of cut lists, one function each; the ending of the file's name says which."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

from visp.utils.files import replacing
from visp.video.cuts import CutList
from visp.video.decode import shown

_YOUTUBE_SHORTEST = 10.0
"""Seconds, the shortest chapter that YouTube shows."""


def write_cuts(cuts: CutList, path: str | os.PathLike[str]) -> None:
    """Write a cut list, in place of an older file there.

    Times are those of the cuts, or in formats that count frames, the nearest frame at ``cuts.media.rate``.

    Args:
        cuts: What to write.
        path: A name that ends in one of :data:`FORMATS`.

    Raises:
        ModuleNotFoundError: If the format is OpenTimelineIO's, and that is not installed.
        ValueError: If the name has another ending, or the format cannot hold the cuts.
    """
    check_format(path)
    text = FORMATS[Path(path).suffix.lower()](cuts)
    with replacing(Path(path)) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def check_format(path: str | os.PathLike[str]) -> None:
    """Refuse a file whose ending is none of :data:`FORMATS`, or needs a package that is missing.

    Raises:
        ModuleNotFoundError: If OpenTimelineIO is needed and not installed.
        ValueError: If the ending is another.
    """
    if Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"{shown(path)}: expected a name that ends in {', '.join(FORMATS)}")
    if Path(path).suffix.lower() == ".otio":
        _require_otio()


def lossless_cut(cuts: CutList) -> str:
    """Return LosslessCut's CSV: start, end and label, in seconds after the file's beginning."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    offset = cuts.media.offset
    rows.writerows([f"{cut.start + offset:.6f}", f"{cut.end + offset:.6f}", _line(cut.label)] for cut in cuts.cuts)
    return text.getvalue()


def edl(cuts: CutList) -> str:
    """Return a CMX 3600 edit decision list; scores are locators.

    Raises:
        ValueError: If there are more than the 999 events that it can number.
    """
    media = cuts.media
    if len(cuts.cuts) > 999:
        raise ValueError(f"an .edl holds at most 999 cuts, got {len(cuts.cuts)}; .otio and .fcpxml hold any number")
    drop = media.drop_frame
    channels = "V" if media.channels == 0 else "B" if media.channels == 1 else "AA/V"
    name = _line(media.path.name)
    lines = [f"TITLE: {name}", f"FCM: {'DROP' if drop else 'NON-DROP'} FRAME", ""]
    record = 0
    for number, (cut, (start, stop)) in enumerate(zip(cuts.cuts, _spans(cuts), strict=True), start=1):
        source = (media.timecode + start, media.timecode + stop)
        codes = [_timecode(frame, media.rate, drop) for frame in (*source, record, record + stop - start)]
        lines += [f"{number:03d}  AX       {channels:<5} C        {' '.join(codes)}", f"* FROM CLIP NAME: {name}"]
        if cut.score is not None:
            lines.append(f"* LOC: {codes[2]} GREEN   SCORE {cut.score:.3f}")
        record += stop - start
    return "\n".join(lines) + "\n"


def fcpxml(cuts: CutList) -> str:
    """Return Final Cut Pro's XML, version 1.8; scores are markers."""
    media = cuts.media
    frame = 1 / media.rate

    def time(frames: int) -> str:
        seconds = frames * frame
        return f"{seconds.numerator}s" if seconds.denominator == 1 else f"{seconds.numerator}/{seconds.denominator}s"

    name = _line(media.path.name)
    root = ElementTree.Element("fcpxml", version="1.8")
    resources = ElementTree.SubElement(root, "resources")
    width, height = str(media.width), str(media.height)
    ElementTree.SubElement(resources, "format", id="r1", frameDuration=time(1), width=width, height=height)
    length = max(media.frames(media.duration), *(stop for _, stop in _spans(cuts)))
    sound = {"hasAudio": "1", "audioSources": "1"} if media.channels else {}
    if media.channels:
        sound |= {"audioChannels": str(media.channels), "audioRate": str(media.sound_rate)}
    asset = {"id": "r2", "name": name, "src": media.path.as_uri(), "start": time(media.timecode)}
    asset |= {"duration": time(length), "hasVideo": "1", "format": "r1", **sound}
    ElementTree.SubElement(resources, "asset", asset)
    event = ElementTree.SubElement(ElementTree.SubElement(root, "library"), "event", name="visp")
    project = ElementTree.SubElement(event, "project", name=f"Summary of {name}")
    total = sum(stop - start for start, stop in _spans(cuts))
    codes = "DF" if media.drop_frame else "NDF"
    sequence = ElementTree.SubElement(
        project, "sequence", format="r1", duration=time(total), tcStart="0s", tcFormat=codes
    )
    spine = ElementTree.SubElement(sequence, "spine")
    record = 0
    for cut, (start, stop) in zip(cuts.cuts, _spans(cuts), strict=True):
        begin = time(media.timecode + start)
        clip = ElementTree.SubElement(
            spine, "asset-clip", ref="r2", name=_line(cut.label) or name, offset=time(record), start=begin,
            duration=time(stop - start), format="r1", tcFormat=codes,
        )  # fmt: skip
        if cut.score is not None:
            ElementTree.SubElement(clip, "marker", start=begin, duration=time(1), value=f"score {cut.score:.3f}")
        record += stop - start
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n{body}\n'


def otio(cuts: CutList) -> str:
    """Return an OpenTimelineIO timeline; scores are markers, and numbers in the clips' metadata.

    Raises:
        ModuleNotFoundError: If OpenTimelineIO is not installed.
    """
    _require_otio()
    import opentimelineio
    from opentimelineio import opentime, schema

    media, rate = cuts.media, float(cuts.media.rate)

    def span(start: int, length: int) -> opentime.TimeRange:
        return opentime.TimeRange(opentime.RationalTime(start, rate), opentime.RationalTime(length, rate))

    length = max(media.frames(media.duration), *(stop for _, stop in _spans(cuts)))
    name = _line(media.path.name)
    timeline = schema.Timeline(f"Summary of {name}")
    for kind in (schema.TrackKind.Video, schema.TrackKind.Audio)[: 2 if media.channels else 1]:
        track = schema.Track(kind.lower(), kind=kind)
        for cut, (start, stop) in zip(cuts.cuts, _spans(cuts), strict=True):
            reference = schema.ExternalReference(media.path.as_uri(), span(media.timecode, length))
            clip = schema.Clip(_line(cut.label) or name, reference, span(media.timecode + start, stop - start))
            if cut.score is not None:
                clip.metadata["visp"] = {"score": cut.score}
                if kind == schema.TrackKind.Video:
                    marked = span(media.timecode + start, 1)
                    clip.markers.append(schema.Marker(f"score {cut.score:.3f}", marked, schema.MarkerColor.GREEN))
            track.append(clip)
        timeline.tracks.append(track)
    return str(opentimelineio.adapters.write_to_string(timeline, "otio_json")) + "\n"


def auto_editor(cuts: CutList) -> str:
    """Return auto-editor's version 1: chunks of [first frame, one past the last, speed], which cover the video."""
    media = cuts.media
    chunks: list[tuple[int, int, float]] = []
    at = 0
    for start, stop in _spans(cuts):
        if start > at:
            chunks.append((at, start, 99999.0))
        chunks.append((start, stop, 1.0))
        at = stop
    if (end := media.frames(media.duration)) > at:
        chunks.append((at, end, 99999.0))
    source = os.fsencode(media.path).decode("utf-8", "replace")
    rate = f"{media.rate.numerator}/{media.rate.denominator}"
    return json.dumps({"version": "1", "source": source, "timebase": rate, "chunks": chunks}, indent=1) + "\n"


def ffmetadata(cuts: CutList) -> str:
    """Return chapters of the summary as FFmpeg's metadata, a chapter per cut."""
    lines = [";FFMETADATA1"]
    at = Fraction(0)
    for cut in cuts.cuts:
        end = at + Fraction(round((cut.end - cut.start) * 1e6), 10**6)
        lines += ["[CHAPTER]", "TIMEBASE=1/1000000", f"START={int(at * 10**6)}", f"END={int(end * 10**6)}"]
        lines.append("title=" + "".join(f"\\{c}" if c in "=;#\\" else c for c in _line(cut.label)))
        at = end
    return "\n".join(lines) + "\n"


def youtube(cuts: CutList) -> str:
    """Return chapters of the summary as lines of a description on YouTube; cuts of under ten seconds join the next."""
    lines, at, begun = [], 0.0, 0.0
    total = sum(cut.end - cut.start for cut in cuts.cuts)
    label = ""
    for cut in cuts.cuts:
        label = label or _line(cut.label)
        at += cut.end - cut.start
        if int(at) - int(begun) >= _YOUTUBE_SHORTEST and total - at >= _YOUTUBE_SHORTEST:
            lines.append(f"{_clock(begun)} {label}")
            begun, label = at, ""
    lines.append(f"{_clock(begun)} {label or _line(cuts.cuts[-1].label)}")
    return "\n".join(lines) + "\n"


def ffconcat(cuts: CutList) -> str:
    """Return a script of FFmpeg's concat demuxer, in seconds on the file's own clock.

    Raises:
        ValueError: If the video's name holds a line break, which the script cannot.
    """
    media = cuts.media
    name = os.fspath(media.path)
    if "\n" in name or "\r" in name:
        raise ValueError(f"{shown(media.path)}: an .ffconcat cannot name a file whose name holds a line break")
    quoted = "'" + name.replace("'", "'\\''") + "'"
    lines = ["ffconcat version 1.0"]
    for cut in cuts.cuts:
        # Rounded down, so that neither loses the frame that begins there to the rounding.
        begin, end = (math.floor((media.first + time) * 1e6 + 1e-3) / 1e6 for time in (cut.start, cut.end))
        lines += [f"file {quoted}", f"inpoint {begin:.6f}", f"outpoint {end:.6f}"]
        if cut.score is not None:
            lines.append(f"file_packet_meta score {cut.score:.3f}")
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[CutList], str]] = {
    ".csv": lossless_cut,
    ".edl": edl,
    ".fcpxml": fcpxml,
    ".otio": otio,
    ".v1": auto_editor,
    ".ffmeta": ffmetadata,
    ".txt": youtube,
    ".ffconcat": ffconcat,
}
"""What writes a cut list, by the ending of the file's name."""


def _spans(cuts: CutList) -> list[tuple[int, int]]:
    """Return first frame and one past the last of each cut, at least one frame each and without overlap."""
    spans: list[tuple[int, int]] = []
    for cut in cuts.cuts:
        start = max(cuts.media.frames(cut.start), spans[-1][1] if spans else 0)
        spans.append((start, max(start + 1, cuts.media.frames(cut.end))))
    return spans


def _timecode(frame: int, rate: Fraction, drop: bool) -> str:
    base = round(rate)
    if drop:
        dropped = base // 15
        tens, rest = divmod(frame, 600 * base - 9 * dropped)
        frame += 9 * dropped * tens + dropped * max(0, (rest - dropped) // (60 * base - dropped))
    seconds, frames = divmod(frame, base)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{';' if drop else ':'}{frames:02d}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes.zfill(5)}" if whole >= 3600 else minutes


def _line(text: str) -> str:
    """Return a text as one line that every format can hold: control characters and lone bytes become ``?``."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _require_otio() -> None:
    try:
        import opentimelineio  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'writing .otio needs OpenTimelineIO: pip install "visp[cuts]"', name="opentimelineio"
        ) from error
