"""A video in, its features or its summary out (needs PyAV, ``pip install "visp[video]"``)."""

from visp.video.corpus import Corpus, extract_corpus, features_of
from visp.video.decode import SampledFrame, VideoError, iter_sampled_frames
from visp.video.extract import VideoFeatures, extract_features
from visp.video.extractors import Extractor, GoogLeNetPool5, make_extractor
from visp.video.render import WrittenSummary, write_summary
from visp.video.report import html_report
from visp.video.result import VideoSummary
from visp.video.summarize import summarize_video

__all__ = [
    "Corpus",
    "Extractor",
    "GoogLeNetPool5",
    "SampledFrame",
    "VideoError",
    "VideoFeatures",
    "VideoSummary",
    "WrittenSummary",
    "extract_corpus",
    "extract_features",
    "features_of",
    "html_report",
    "iter_sampled_frames",
    "make_extractor",
    "summarize_video",
    "write_summary",
]
