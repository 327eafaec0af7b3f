"""Videos and their annotations: the field's h5 schema, and datasets over it."""

from visp.data import synthetic
from visp.data.dataset import InMemoryDataset, VideoDataset, VideoSource, collate_videos
from visp.data.h5 import H5SchemaError, read_record, validate_h5, write_h5
from visp.data.record import VideoRecord

__all__ = [
    "H5SchemaError",
    "InMemoryDataset",
    "VideoDataset",
    "VideoRecord",
    "VideoSource",
    "collate_videos",
    "read_record",
    "synthetic",
    "validate_h5",
    "write_h5",
]
