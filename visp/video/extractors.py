"""Image models that turn frames into features, and how frames are prepared for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visp.factory import find_factory
from visp.summarizers.cnn import IMAGENET_URL
from visp.summarizers.inception import GoogLeNetTrunk
from visp.weights import load_into, read_googlenet, read_weights, state_hash

RESIZE, CROP = 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = f"RGB, shorter side {RESIZE} (bilinear, antialiased), centre crop {CROP}, ImageNet mean and std"

Preprocess = Callable[[npt.NDArray[np.uint8]], Tensor]


class GoogLeNetPool5(nn.Module):
    """GoogLeNet up to its global average pool, divided by the L2 norm: the field's 1024 features of a frame.

    The published extractors take torchvision's layers one after the other, which leaves out its
    ``transform_input`` step; so does this one. Names are torchvision's, so that its weights load.
    """

    def __init__(self) -> None:
        super().__init__()
        self.googlenet = GoogLeNetTrunk()

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images (B, 3, 224, 224) to features (B, 1024) of norm 1."""
        pooled = self.googlenet(images).mean(dim=(2, 3))
        return F.normalize(pooled, dim=1)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Load torchvision's GoogLeNet weights, in place; classifiers in the file are left out.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds no weights, or others than GoogLeNet's.
        """
        load_into(self.googlenet, read_googlenet(path, self.googlenet), f"the weights of {path} do not fit")


class Extractor:
    """An image model with the preparation that it wants, as :func:`visp.video.extract_features` takes it.

    Args:
        model: Maps a batch of prepared frames to features (B, d), or (B, d, 1, 1). It is put into evaluation mode
            for each call.
        preprocess: Maps a frame (H, W, 3) uint8 RGB to the tensor that the model wants, without the batch axis. A
            uint8 tensor (3, H, W) is then scaled to [0, 1] and normalised with ImageNet's mean and standard
            deviation; any other goes into the model as it is. By default, torchvision's preparation for ImageNet
            models: shorter side to 256, centre crop 224.
        name: Name of the model, for the provenance.
        weights: Where its weights came from, for the provenance.
        normalisation: What was done to the features, for the provenance.
        preprocessing: What ``preprocess`` does in words, for the provenance.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        preprocess: Preprocess | None = None,
        name: str = "",
        weights: str = "as given",
        normalisation: str = "as the model returns them",
        preprocessing: str = "",
    ) -> None:
        self.model = model
        self.preprocess = preprocess or resize_and_crop
        self.provenance = {
            "extractor": name or type(model).__name__,
            "extractor_weights": weights,
            "extractor_sha256": state_hash(model.state_dict()),
            "preprocessing": preprocessing or (PREPROCESSING if preprocess is None else "the caller's"),
            "normalisation": normalisation,
        }

    @torch.no_grad()
    def __call__(self, images: Tensor) -> npt.NDArray[np.float32]:
        """Map prepared frames (B, ...) to features (B, d) in float32.

        Raises:
            ValueError: If the model does not return one finite vector a frame.
        """
        parameter = next(self.model.parameters(), None)
        if parameter is not None:
            images = images.to(parameter.device)
        if images.dtype == torch.uint8:
            images = normalised(images)
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            features = self.model(images)
        finally:
            for module, training in modes:
                module.training = training
        if (
            not isinstance(features, Tensor)
            or len(features) != len(images)
            or features[0].numel() != max(features.shape[1:], default=0)
        ):
            came = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ValueError(
                f"the extractor {self.provenance['extractor']} returned {came} for {len(images)} frames, "
                f"expected ({len(images)}, d)"
            )
        rows: npt.NDArray[np.float32] = features.flatten(1).float().cpu().numpy()
        if not np.isfinite(rows).all():
            raise ValueError(f"the extractor {self.provenance['extractor']} returned values that are not finite")
        return rows

    @cached_property
    def feature_dim(self) -> int:
        """d, dimension of a frame's features."""
        frame = np.zeros((RESIZE, RESIZE, 3), dtype=np.uint8)
        return int(self(self.preprocess(frame).unsqueeze(0)).shape[1])


def make_extractor(name: str = "googlenet", weights: str | os.PathLike[str] | None = None) -> Extractor:
    """Make an extractor as the command line names it.

    Args:
        name: ``"googlenet"``, or ``"package.module:factory"``, where ``factory()`` returns an image model or an
            :class:`Extractor`.
        weights: File of weights; ``"random"`` for GoogLeNet with random ones, to try the pipeline. A factory's
            model has its own weights where none are given.

    Raises:
        FileNotFoundError: If there is no such file of weights.
        ValueError: If GoogLeNet is given no weights, the weights do not fit, or the factory cannot be found.
        TypeError: If the factory returns something else.
    """
    if name != "googlenet":
        return _from_factory(name, weights)
    if weights is None:
        raise ValueError(
            "the GoogLeNet extractor needs weights: pass --extractor-weights FILE, torchvision's "
            f"{IMAGENET_URL.rpartition('/')[2]} (docs/video.md says how to fetch it), or --extractor-weights random "
            "to try the pipeline with features that mean nothing"
        )
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = GoogLeNetPool5()
    else:
        model = GoogLeNetPool5()
        model.load_weights(weights)
    return Extractor(model, name="googlenet pool5", weights=_weights_name(weights), normalisation="L2 norm 1")


def resize_and_crop(image: npt.NDArray[np.uint8]) -> Tensor:
    """Bring a frame's shorter side to 256 and cut out the central 224 x 224, as torchvision does.

    Args:
        image: (H, W, 3) uint8.

    Returns:
        (3, 224, 224) uint8.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    size = (RESIZE * height // short, RESIZE * width // short)
    pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)
    resized = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)[0]
    top, left = round((size[0] - CROP) / 2), round((size[1] - CROP) / 2)
    return resized[:, top : top + CROP, left : left + CROP].contiguous()


def normalised(images: Tensor) -> Tensor:
    """Scale uint8 images (B, 3, H, W) to [0, 1] and apply ImageNet's mean and standard deviation."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (MEAN, STD))
    return (images.float() / 255 - mean) / std


def _from_factory(name: str, weights: str | os.PathLike[str] | None) -> Extractor:
    made = find_factory("extractor", name, ("googlenet",))()
    model = made.model if isinstance(made, Extractor) else made
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} returned a {type(made).__name__}, expected a torch.nn.Module or visp.video.Extractor")
    if weights not in (None, "random"):
        load_into(model, read_weights(weights, model), f"the weights of {weights} do not fit")
    source = "as the factory made them" if weights is None else _weights_name(weights)
    if isinstance(made, Extractor):
        made.provenance |= {
            "extractor": name,
            "extractor_weights": source,
            "extractor_sha256": state_hash(model.state_dict()),
        }
        return made
    return Extractor(model, name=name, weights=source)


def _weights_name(weights: str | os.PathLike[str]) -> str:
    return "random" if weights == "random" else Path(weights).name
