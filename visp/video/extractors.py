"""Image models that turn frames into features, and how frames are prepared for them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visp.factory import call_factory
from visp.summarizers.cnn import IMAGENET_URL
from visp.summarizers.inception import GoogLeNetTrunk
from visp.utils.modes import evaluation_mode
from visp.video.efficientnet import EfficientNetLite0, packaged_weights
from visp.weights import CheckpointError, load_into, read_googlenet, read_weights, state_hash

EXTRACTORS = ("efficientnet-lite0", "googlenet")
GOOGLENET = "googlenet pool5"
"""GoogLeNet's features in files, which say where they were taken."""
RESIZE, CROP = 256, 224
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CROPPED = f"RGB, shorter side {RESIZE} (bilinear, antialiased), centre crop {CROP}"
PREPROCESSING = f"{_CROPPED}, ImageNet mean and std"

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
        """Return the features (B, 1024), of L2 norm 1, of images (B, 3, 224, 224) normalised as for ImageNet."""
        pooled = self.googlenet(images).mean(dim=(2, 3))
        return F.normalize(pooled, dim=1)

    def load_weights(self, path: str | os.PathLike[str]) -> None:
        """Load torchvision's GoogLeNet weights, in place; classifiers in the file are left out.

        Args:
            path: A file of torchvision's state dict, such as ``googlenet-1378be20.pth``.

        Raises:
            FileNotFoundError: If there is no such file.
            CheckpointError: If the file holds no weights, or others than GoogLeNet's.
        """
        load_into(self.googlenet, read_googlenet(path, self.googlenet), f"the weights of {path} do not fit")


class Extractor:
    """An image model with the preparation that it wants, as :func:`visp.video.extract_features` takes it.

    Args:
        model: Maps a batch of prepared frames to features (B, d), or (B, d, 1, 1). It is put into evaluation mode
            for each call.
        preprocess: Maps a frame (H, W, 3) uint8 RGB to the tensor that the model wants, without the batch axis. A
            uint8 tensor (3, H, W) is then scaled to [0, 1] and normalised with ``mean`` and ``std``; any other goes
            into the model as it is. By default, torchvision's preparation for ImageNet models: shorter side to 256,
            centre crop 224.
        mean: Mean of each channel, of values in [0, 1]; by default ImageNet's.
        std: Standard deviation of each channel; by default ImageNet's.
        name: Name of the model, for the provenance.
        weights: Where its weights came from, for the provenance.
        normalisation: What was done to the features, for the provenance.
        preprocessing: What ``preprocess`` does in words, for the provenance.

    Raises:
        ValueError: When called, if the model does not return one finite vector per frame.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        preprocess: Preprocess | None = None,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        name: str = "",
        weights: str = "as given",
        normalisation: str = "as the model returns them",
        preprocessing: str = "",
    ) -> None:
        self.model = model
        self.preprocess = preprocess or resize_and_crop
        self.mean, self.std = mean, std
        self._feature_dim: int | None = None
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
            ValueError: If the model does not return one finite vector per frame.
        """
        images = images.to(self.device)
        if images.dtype == torch.uint8:
            images = normalised(images, self.mean, self.std)
        with evaluation_mode(self.model):
            features = self.model(images)
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

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        parameter = next(self.model.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def feature_dim(self) -> int:
        """d, dimension of a frame's features, found by extracting those of a black frame.

        Raises:
            ValueError: If the model does not return one finite vector for it.
        """
        if self._feature_dim is None:
            frame = np.zeros((RESIZE, RESIZE, 3), dtype=np.uint8)
            self._feature_dim = int(self(self.preprocess(frame).unsqueeze(0)).shape[1])
        return self._feature_dim


def make_extractor(name: str | None = None, weights: str | os.PathLike[str] | None = None) -> Extractor:
    """Make an extractor as the command line names it.

    Args:
        name: ``"efficientnet-lite0"``, the default where no weights are given; ``"googlenet"``, the default where
            some are; or ``"package.module:factory"``, where ``factory()`` returns an image model or an
            :class:`Extractor`.
        weights: File of weights; ``"imagenet"`` for the published ones, which EfficientNet-Lite0 has with the extra
            ``features`` and uses by default, and which are fetched for GoogLeNet; ``"random"`` to try the pipeline.
            A factory's model has its own weights where none are given.

    Returns:
        The image model with the preparation that it wants.

    Raises:
        FileNotFoundError: If there is no such file of weights.
        ModuleNotFoundError: If the weights of EfficientNet-Lite0 are not installed.
        OSError: If GoogLeNet's weights cannot be fetched.
        CheckpointError: If the weights are damaged or do not fit.
        ValueError: If GoogLeNet is given no weights, or the factory cannot be found.
        TypeError: If the factory takes arguments, or returns something else.
    """
    if name is None:
        name = "efficientnet-lite0" if weights is None else "googlenet"
    if name == "efficientnet-lite0":
        return _efficientnet_lite0("imagenet" if weights is None else weights)
    if name == "googlenet":
        return _googlenet(weights)
    return _from_factory(name, weights)


def _efficientnet_lite0(weights: str | os.PathLike[str]) -> Extractor:
    path = packaged_weights() if weights == "imagenet" else weights
    return Extractor(
        _built_in(EfficientNetLite0, path),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        name="efficientnet-lite0",
        weights=_weights_name(path),
        preprocessing=f"{_CROPPED}, mean and std 0.5",
    )


def _googlenet(weights: str | os.PathLike[str] | None) -> Extractor:
    if weights is None:
        raise ValueError(
            "the extractor googlenet needs weights: 'imagenet' fetches torchvision's, a path names a file of them "
            f"({IMAGENET_URL.rpartition('/')[2]}), 'random' tries the pipeline with features that mean nothing"
        )
    path = fetched_weights(IMAGENET_URL) if weights == "imagenet" else weights
    return Extractor(
        _built_in(GoogLeNetPool5, path),
        name=GOOGLENET,
        weights=_weights_name(path),
        normalisation="L2 norm 1",
    )


def _built_in(
    kind: type[EfficientNetLite0] | type[GoogLeNetPool5], weights: str | os.PathLike[str]
) -> EfficientNetLite0 | GoogLeNetPool5:
    with torch.device("meta"):  # the weights follow; those of a new module would be drawn from the global generator
        model = kind()
    model.to_empty(device="cpu")
    if weights == "random":
        _fill(model)
    else:
        model.load_weights(weights)
    return model


def _fill(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


def cached_weights(url: str) -> Path | None:
    """Return where torch.hub keeps a file of weights, if it is there."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return path if path.is_file() else None


def fetched_weights(url: str) -> Path:
    """Return a file of weights from torch.hub's folder, fetched if it is not there; its hash is checked each time.

    Args:
        url: Where it is; its name ends in the first digits of its SHA-256, as torch.hub's do.

    Raises:
        OSError: If it cannot be fetched.
        CheckpointError: If the file has another hash.
    """
    name = url.rpartition("/")[2]
    digits = Path(name).stem.rpartition("-")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digits)
        except OSError as error:
            raise OSError(f"{url} cannot be fetched ({error}); fetch it elsewhere and put it at {path}") from error
        except RuntimeError as error:  # its word for another hash
            raise CheckpointError(f"{url}: {error}") from error
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(digits):
        raise CheckpointError(f"{path} is damaged: its SHA-256 does not begin with {digits}; remove it")
    return path


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


def normalised(images: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """Scale uint8 images (B, 3, H, W) to [0, 1] and normalise each channel, by default with ImageNet's values."""
    offset, scale = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (mean, std))
    return (images.float() / 255 - offset) / scale


def _from_factory(name: str, weights: str | os.PathLike[str] | None) -> Extractor:
    made = call_factory("extractor", name, EXTRACTORS)
    model = made.model if isinstance(made, Extractor) else made
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} returned a {type(made).__name__}, expected a torch.nn.Module or visp.video.Extractor")
    if weights == "imagenet":
        raise ValueError(f"weights 'imagenet' are those of {' and '.join(EXTRACTORS)}, got the extractor {name}")
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
