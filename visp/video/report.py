"""One HTML page about a summary, whole in itself: the score curve, the chosen shots, and how they came about."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from fractions import Fraction
from html import escape

import numpy as np
import numpy.typing as npt

from visp.video.result import VideoSummary

PICTURE_WIDTH = 320
_POINTS = 1500
"""Most points of the score curve; of more, the best of each stretch is drawn."""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 1000, 200, 34, 22

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff; --soft: #666; --line: #ddd; --edge: #aaa;
  --shot: #f3f3f3; --chosen: #fbd9c0; --curve: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #eee; --paper: #161616; --soft: #aaa; --line: #444; --edge: #777;
  --shot: #232323; --chosen: #5c3413; --curve: #5cb6ec; } }
body { margin: 2rem auto; max-width: 64rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.5rem; margin-bottom: .2rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.lead, figcaption, .soft { color: var(--soft); } svg { width: 100%; height: auto; display: block; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 4px; }
figcaption { font-size: .85rem; font-variant-numeric: tabular-nums; } figcaption b { color: var(--ink); }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
td, th { text-align: left; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
th { font-weight: 600; width: 14rem; } .key { display: inline-block; width: .9em; height: .9em; border-radius: 2px; }
"""


def html_report(summary: VideoSummary) -> str:
    """Return the page; it refers to no other file and runs no script."""
    name = escape(os.fsencode(summary.video.name).decode("utf-8", "replace"))
    kept = summary.summary_duration
    shots = "1 shot" if len(summary.selected) == 1 else f"{len(summary.selected)} shots"
    lead = (
        f"{clock(kept)} of {clock(summary.duration)} ({kept / summary.duration:.1%}), {shots} of {len(summary.shots)}; "
        f"the budget was {clock(summary.budget)}."
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in summary.notes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Summary of {name}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Summary of {name}</h1>
<p class="lead">{lead}</p>
{f"<ul>{notes}</ul>" if notes else ""}
<h2>Scores and shots</h2>
{_curve(summary)}
<p class="soft"><span class="key" style="background: var(--chosen)"></span> chosen shots,
<span class="key" style="background: var(--curve)"></span> score of each sampled frame; vertical lines are shot
boundaries.</p>
<h2>Chosen shots</h2>
<div class="sheet">
{_sheet(summary)}
</div>
<h2>Time spent</h2>
{_table(_times(summary.seconds))}
<h2>How it was made</h2>
{_table((key.replace("_", " "), value) for key, value in summary.settings.items())}
</body>
</html>
"""


def clock(seconds: float) -> str:
    """Return a time as ``m:ss.s``, or ``h:mm:ss.s`` from an hour on."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def jpeg(image: npt.NDArray[np.uint8], width: int = PICTURE_WIDTH) -> bytes:
    """Return an image (H, W, 3) uint8 as a JPEG of at most this width."""
    from av import CodecContext, VideoFrame

    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    width = min(width, frame.width)
    height = max(2, round(frame.height * width / frame.width))
    frame = frame.reformat(width=width, height=height, format="yuvj420p")
    encoder = CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    packets = [*encoder.encode(frame), *encoder.encode(None)]
    return b"".join(map(bytes, packets))


def _curve(summary: VideoSummary) -> str:
    """Draw the scores over time, on the shots."""
    plot_width, plot_height = _WIDTH - _LEFT, _HEIGHT - _BOTTOM

    def x(time: float) -> float:
        return _LEFT + plot_width * time / summary.duration

    low, high = float(summary.scores.min()), float(summary.scores.max())
    spread = high - low or 1.0

    def y(score: float) -> float:
        return 6 + (plot_height - 12) * (1 - (score - low) / spread)

    chosen = set(summary.selected.tolist())
    marks = []
    for number, (start, end) in enumerate(summary.shot_times.tolist()):
        fill = "chosen" if number in chosen else "shot"
        title = f"shot {number + 1}, {clock(start)} to {clock(end)}, mean score {summary.shot_scores[number]:.3f}"
        marks.append(
            f'<rect x="{x(start):.2f}" y="0" width="{x(end) - x(start):.2f}" height="{plot_height}" '
            f'fill="var(--{fill})" stroke="var(--edge)" stroke-width=".5"><title>{title}</title></rect>'
        )
    times, scores = _thinned(summary.times, summary.scores)
    points = " ".join(f"{x(t):.1f},{y(s):.1f}" for t, s in zip(times, scores, strict=True))
    dots = f'<circle cx="{x(times[0]):.1f}" cy="{y(scores[0]):.1f}" r="3" fill="var(--curve)"/>' * (len(times) == 1)
    ticks = "".join(
        f'<text x="{x(t):.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{clock(t)}</text>'
        for t, anchor in ((0, "start"), (summary.duration / 2, "middle"), (summary.duration, "end"))
    )
    levels = "".join(f'<text x="0" y="{y(s) + 4:.1f}">{s:.2f}</text>' for s in dict.fromkeys((low, high)))
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="score of each sampled frame over time">'
        f'{"".join(marks)}<polyline points="{points}" fill="none" stroke="var(--curve)" stroke-width="1.5" '
        f'stroke-linejoin="round"/>{dots}{ticks}{levels}</svg>'
    )


def _thinned(
    times: npt.NDArray[np.float64], scores: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float32]]:
    """Keep the best frame of each of at most ``_POINTS`` stretches."""
    starts = np.unique(np.linspace(0, len(times), min(len(times), _POINTS), endpoint=False).astype(int))
    best = [a + int(scores[a:b].argmax()) for a, b in zip(starts, [*starts[1:], len(times)], strict=True)]
    return times[best], scores[best]


def _sheet(summary: VideoSummary) -> str:
    cells = []
    for shot, frame in zip(summary.selected.tolist(), summary.key_frames.tolist(), strict=True):
        start, end = summary.shot_times[shot].tolist()
        data = base64.b64encode(jpeg(summary.pictures[frame])).decode()
        cells.append(
            f'<figure><img src="data:image/jpeg;base64,{data}" alt="key frame of shot {shot + 1}">'
            f"<figcaption><b>{clock(start)} to {clock(end)}</b><br>shot {shot + 1}, score "
            f"{summary.shot_scores[shot]:.3f}</figcaption></figure>"
        )
    return "\n".join(cells)


def _times(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    total = sum(seconds.values())
    rows = [(stage, f"{spent:.2f} s, {spent / total:.0%}") for stage, spent in seconds.items()]
    return [*rows, ("total", f"{total:.2f} s")]


def _table(rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows)
    return f"<table>{cells}</table>"
