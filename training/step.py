"""One optimisation step: a loss, the variables it moves, an optimizer.

The only module that knows which Keras backend runs. A loss is written with `keras.ops` alone:

    def loss(images, labels):
        scores = classifier(images, training=True)
        value = ops.mean(...)
        return value, {"loss": value}

    step = Step(loss, classifier.trainable_variables, optimizer, classifier.non_trainable_variables)
    scalars = step(images, labels)

Noise is never drawn inside a loss: it arrives as an argument, drawn by NumPy from the run's seed, so
that both backends see the same numbers and a resumed run needs nothing but its step count.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from training.problems import TrainingError

Loss = Callable[..., tuple[Any, dict[str, Any]]]

_BACKEND = keras.config.backend()
if _BACKEND == "tensorflow":
    import tensorflow as tf
elif _BACKEND == "jax":
    import jax
else:
    raise ImportError(f"KERAS_BACKEND={_BACKEND} is not supported: set it to tensorflow or jax.")


SINGLE_CHANNELS_ARE_SLOW = _BACKEND == "jax"
"""Whether convolutions of each channel by itself are: on a GPU, XLA's take several times as long as sums of shifted products."""


class Step:
    """Minimises one loss over some variables.

    Args:
        loss: returns the scalar to minimise and the scalars to report, from one batch of arrays.
        variables: the trainable variables that move.
        optimizer: an unbuilt Keras optimizer, owned by this step.
        state: every other variable that the loss reads or updates (the adversary's weights, batch
            statistics). JAX would compile a variable that is missing here into the step as a constant.
    """

    def __init__(
        self,
        loss: Loss,
        variables: Sequence[keras.Variable],
        optimizer: keras.optimizers.Optimizer,
        state: Sequence[keras.Variable] = (),
    ) -> None:
        self.loss = loss
        self.moved = list(variables)
        self.state = list(state)
        self.optimizer = optimizer
        optimizer.build(self.moved)
        compiled = {"tensorflow": self._tensorflow, "jax": self._jax}[_BACKEND]
        self._run = compiled()

    def __call__(self, *batch: np.ndarray) -> dict[str, Any]:
        """Takes one step; the scalars come back as backend tensors, so that nothing waits for them."""
        return self._run(*batch)

    @property
    def variables(self) -> list[keras.Variable]:
        """What a checkpoint has to hold of this step: the optimizer's moments, averages and counter."""
        return list(self.optimizer.variables)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Puts the exponential moving averages in the place of the variables for a while."""
        if not self._has_averages:
            yield
            return
        before = [keras.ops.convert_to_numpy(variable) for variable in self.moved]
        self.optimizer.finalize_variable_values(self.moved)
        try:
            yield
        finally:
            for variable, value in zip(self.moved, before, strict=True):
                variable.assign(value)

    def finish(self) -> None:
        """Leaves the moving averages, where the optimizer keeps any, in the variables for good."""
        if self._has_averages:
            self.optimizer.finalize_variable_values(self.moved)

    @property
    def _has_averages(self) -> bool:
        """Before the first step they are zeros."""
        return bool(self.optimizer.use_ema and int(self.optimizer.iterations) > 0)

    def _tensorflow(self) -> Callable[..., dict[str, Any]]:
        @tf.function
        def run(*batch: Any) -> dict[str, Any]:
            with tf.GradientTape() as tape:
                value, scalars = self.loss(*batch)
            values = [variable.value for variable in self.moved]
            self.optimizer.apply(tape.gradient(value, values), self.moved)
            return scalars

        return lambda *batch: run(*(tf.convert_to_tensor(array) for array in batch))

    def _jax(self) -> Callable[..., dict[str, Any]]:
        @jax.jit
        def run(moved: list[Any], state: list[Any], optimizer: list[Any], batch: tuple[Any, ...]) -> tuple[Any, ...]:
            def scoped(moved: list[Any]) -> tuple[Any, tuple[dict[str, Any], list[Any]]]:
                mapping = [*zip(self.moved, moved, strict=True), *zip(self.state, state, strict=True)]
                with keras.StatelessScope(state_mapping=mapping) as scope:
                    value, scalars = self.loss(*batch)
                return value, (scalars, [scope.get_current_value(variable) for variable in self.state])

            (_, (scalars, state_after)), gradients = jax.value_and_grad(scoped, has_aux=True)(moved)
            moved, optimizer = self.optimizer.stateless_apply(optimizer, gradients, moved)
            return moved, state_after, optimizer, scalars

        held = [self.moved, self.state, self.optimizer.variables]

        def call(*batch: Any) -> dict[str, Any]:
            *values, scalars = run(*([variable.value for variable in group] for group in held), batch)
            for group, after in zip(held, values, strict=True):
                for variable, value in zip(group, after, strict=True):
                    variable.assign(value)
            return scalars

        return call


@contextmanager
def computed_in(precision: str) -> Iterator[None]:
    """What steps that are first taken within multiply in. All that is stored, exported and measured stays float32.

    Args:
        precision: `float32`; or `bfloat16`, in which convolutions and matrix products round their inputs to 8 bits of precision while
            they sum in float32, 1.5 to 2 times as fast on processors that have instructions for it (AVX512_BF16, AMX).

    Raises:
        TrainingError: bfloat16 on another backend than TensorFlow, or on a GPU, which has faster ways of its own.
    """
    if precision == "float32":
        yield
        return
    if _BACKEND != "tensorflow" or tf.config.list_physical_devices("GPU"):
        raise TrainingError("--precision bfloat16 is for TensorFlow on a CPU: leave it out.")
    rewritten = "auto_mixed_precision_onednn_bfloat16"
    tf.config.optimizer.set_experimental_options({rewritten: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({rewritten: False})


def device() -> str:
    """What the steps run on, such as `x86_64 CPU` or `NVIDIA H100 80GB HBM3`."""
    if _BACKEND == "jax":
        first = jax.devices()[0]
        return f"{platform.machine()} CPU" if first.platform == "cpu" else str(first.device_kind)
    gpus = tf.config.list_physical_devices("GPU")
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")) if gpus else f"{platform.machine()} CPU"


def averaging(steps: int, momentum: float = 0.999) -> float:
    """The momentum of a moving average of the weights, lowered in a run so short that it would still hold its start.

    1 - 4 / steps, in runs of under 4,000 steps, averages over the last quarter and leaves under 2 % of the initial weights in it.
    """
    return max(0.0, min(momentum, 1.0 - 4.0 / steps))


def annealed(learning_rate: float, steps: int, rising: int = 0, **options: Any) -> keras.optimizers.Optimizer:
    """Adam whose rate falls to a hundredth along a cosine, and which keeps a moving average of the weights (`averaging`).

    Args:
        rising: the first steps, in which the rate rises from nothing.
    """
    falling = max(1, steps - rising)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if rising else learning_rate, falling, alpha=0.01, warmup_target=learning_rate if rising else None, warmup_steps=rising
    )
    return keras.optimizers.Adam(rate, use_ema=True, ema_momentum=averaging(max(1, steps)), **options)


def balanced(learning_rate: float, steps: int, average: float | None = None) -> keras.optimizers.Optimizer:
    """R3GAN's Adam (Huang et al. 2024) for networks that are trained against each other: no momentum, along a cosine to a twentieth.

    Args:
        average: the momentum of a moving average of the weights (`averaging`), if one is kept.
    """
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.05)
    momentum = 0.99 if average is None else averaging(steps, average)
    return keras.optimizers.Adam(rate, beta_1=0.0, beta_2=0.99, use_ema=average is not None, ema_momentum=momentum)


def compiled(network: keras.Model) -> Callable[[Any], Any]:
    """A network that stays as it is, in inference mode, for many batches of one shape: it is traced once, for the first of them."""

    def run(inputs: Any) -> Any:
        return network(inputs, training=False)

    return tf.function(run) if _BACKEND == "tensorflow" else jax.jit(run)


def input_gradient(scores: Callable[[Any], Any], inputs: Any) -> tuple[Any, Any]:
    """The scores of a network and their gradient by its input, itself differentiable.

    Args:
        scores: maps (batch, ...) to one score an item, (batch,); item i depends on input i alone.
        inputs: (batch, ...) float32.

    Returns:
        The scores (batch,) and the gradient of each item's score by its input, shaped as `inputs`.
    """
    if _BACKEND == "tensorflow":
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs)
            values = scores(inputs)
        return values, tape.gradient(values, inputs)

    def total(inputs: Any) -> tuple[Any, Any]:
        values = scores(inputs)
        return values.sum(), values

    gradient, values = jax.grad(total, has_aux=True)(inputs)
    return values, gradient
