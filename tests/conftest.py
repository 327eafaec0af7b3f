"""Settings of the whole suite."""

import os

import torch

# The tests' tensors are tiny: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
