"""Videos and their annotations: the field's h5 schema, and datasets over it; annotations and splits."""

from visp.data import synthetic
from visp.data.annotations import read_tvsum_mat, read_tvsum_tsv
from visp.data.dataset import VideoDataset, as_dataset, collate_videos
from visp.data.h5 import H5SchemaError, read_record, validate_h5, write_h5
from visp.data.isolated import check_isolated
from visp.data.layouts import read_layout, read_qvhighlights
from visp.data.memory import InMemoryDataset
from visp.data.record import VideoRecord
from visp.data.source import VideoSource
from visp.data.splits import Split, hold_out, make_splits, read_splits, write_splits
from visp.side_inputs import Video

__all__ = [
    "H5SchemaError",
    "InMemoryDataset",
    "Split",
    "Video",
    "VideoDataset",
    "VideoRecord",
    "VideoSource",
    "as_dataset",
    "check_isolated",
    "collate_videos",
    "hold_out",
    "make_splits",
    "read_layout",
    "read_qvhighlights",
    "read_record",
    "read_splits",
    "read_tvsum_mat",
    "read_tvsum_tsv",
    "synthetic",
    "validate_h5",
    "write_h5",
    "write_splits",
]
