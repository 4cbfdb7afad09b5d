"""One optimisation step, on both backends: the same numbers."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

PROGRAM = """
import json, numpy as np, keras
from keras import ops
from training.losses import zero_centred_penalty
from training.step import Step, computed_in

keras.utils.set_random_seed(0)
values = np.random.RandomState(0).standard_normal((9, 2, 2, 1)).astype("float32")
first, last = keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)
norm = keras.layers.BatchNormalization()
flat = lambda x: ops.reshape(x, (-1, 4))
for layer, shape in ((first, (None, 4)), (norm, (None, 3)), (last, (None, 3))):
    layer.build(shape)
random = np.random.RandomState(1)
for variable in [*first.trainable_variables, *last.trainable_variables]:
    variable.assign(random.standard_normal(variable.shape) * 0.5)
scores = lambda x: ops.squeeze(last(first(flat(x))), -1)

def loss(pictures):
    penalty = zero_centred_penalty(scores, pictures)
    value = ops.mean(ops.square(norm(first(flat(pictures)), training=True))) + ops.mean(scores(pictures)) + penalty
    return value, {"penalty": penalty, "value": value}

moved = [*first.trainable_variables, *last.trainable_variables]
step = Step(loss, moved, keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5), norm.variables)
with computed_in(PRECISION):
    reported = [{name: float(v) for name, v in step(values).items()} for _ in range(5)]
raw = [np.array(v).tolist() for v in moved]
with step.averaged():
    averaged = [np.array(v).tolist() for v in moved]
assert raw == [np.array(v).tolist() for v in moved]
print(json.dumps([reported, raw, averaged, [np.array(v).tolist() for v in norm.variables]]))
"""


@functools.cache
def outcome(backend: str, precision: str = "float32", program: str = PROGRAM) -> list[Any]:
    environment = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-c", program.replace("PRECISION", repr(precision))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert isinstance(found, list)
    return found


def flatten(values: object) -> list[float]:
    if isinstance(values, dict):
        return [number for key in sorted(values) for number in flatten(values[key])]
    if isinstance(values, list):
        return [number for value in values for number in flatten(value)]
    assert isinstance(values, float)
    return [values]


def test_a_step_moves_its_variables_and_their_averages_alike_on_both_backends() -> None:
    found = outcome("tensorflow")
    reported, raw, averaged, statistics = found
    assert reported[-1]["value"] < reported[0]["value"]
    assert reported[0]["penalty"] > 0
    assert flatten(raw) != pytest.approx(flatten(averaged), abs=1e-3)
    assert any(abs(value) > 1e-3 for value in flatten(statistics[2]))
    assert flatten(outcome("jax")) == pytest.approx(flatten(found), abs=1e-4)


def test_half_the_bits_give_nearly_the_same_and_all_that_is_kept_stays_float32() -> None:
    reported, raw, *_ = outcome("tensorflow", "bfloat16")
    whole, unrounded, *_ = outcome("tensorflow")
    assert flatten(reported) == pytest.approx(flatten(whole), abs=0.05)
    assert flatten(raw) == pytest.approx(flatten(unrounded), abs=0.05)
    if "avx512_bf16" in Path("/proc/cpuinfo").read_text():
        assert flatten(reported) != pytest.approx(flatten(whole), abs=1e-6)


def test_a_backend_that_is_neither_is_refused() -> None:
    program = "import sys, types; sys.modules['keras'] = keras = types.ModuleType('keras'); "
    program += "keras.config = types.SimpleNamespace(backend=lambda: 'torch'); import training.step"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "KERAS_BACKEND=torch is not supported: set it to tensorflow or jax." in result.stderr


CHANNELS = """
import json, numpy as np
from training.layers import DepthwiseConv2D

found = []
for size, step, padding in ((3, 1, "same"), (5, 2, "same"), (3, 2, "valid"), (5, 1, "valid")):
    layer = DepthwiseConv2D(size, strides=step, padding=padding)
    layer.build((None, 11, 8, 3))
    random = np.random.RandomState(0)
    layer.set_weights([random.standard_normal(weight.shape) for weight in layer.get_weights()])
    found.append(np.asarray(layer(random.standard_normal((2, 11, 8, 3)).astype("float32"))).tolist())
print(json.dumps(found))
"""


def test_channels_are_convolved_alike_on_both_backends() -> None:
    found = outcome("tensorflow", program=CHANNELS)
    assert [len(pictures[0]) for pictures in found] == [11, 6, 5, 7]
    assert flatten(outcome("jax", program=CHANNELS)) == pytest.approx(flatten(found), abs=1e-5)
