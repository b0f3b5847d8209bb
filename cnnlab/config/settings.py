"""What a run starts from (`Recipe`), what may change at any update (`Knobs`), and both (`Settings`).

Every range lives once, in `LIMITS`; validation, sliders and the command line are built from it. Standard library only.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import json
import numbers
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from cnnlab.config.architecture import check_shapes
from cnnlab.config.stability import BETAS


@dataclass(frozen=True)
class Number:
    """The range of a number, and the ends of the slider that sets it."""

    label: str
    """What the user reads beside the control."""
    low: float
    high: float
    slider: tuple[float, float]
    """Ends of the slider; it is logarithmic where `logarithmic` says so, with 0 at its left end if 0 is in range."""
    open_low: bool = False
    """True where `low` itself is not allowed."""
    open_high: bool = False
    """True where `high` itself is not allowed."""
    whole: bool = False
    optional: bool = False
    """True where None is allowed."""
    logarithmic: bool = True

    def __str__(self) -> str:
        return f"be {'None (all) or ' if self.optional else ''}{self.described}"

    @property
    def described(self) -> str:
        """What it is and its range, such as "a whole number in [1, 64]"."""
        return f"{'a whole number' if self.whole else 'a number'} in {self.interval}"

    @property
    def interval(self) -> str:
        """The range as mathematics writes it, such as (0, 1e6]."""
        return f"{'(' if self.open_low else '['}{short(self.low)}, {short(self.high)}{')' if self.open_high else ']'}"

    def check(self, name: str, value: Any) -> float | int | None:
        """The value as a plain float or int; ValueError or TypeError in one sentence if it does not fit."""
        if value is None and self.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, numbers.Integral if self.whole else numbers.Real):
            raise TypeError(f"{name} must {self}, got {quote(value)}")
        number: Any = value
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        if not (above and below):
            raise ValueError(f"{name} must lie in {self.interval}, got {quote(number)}")
        return int(number) if self.whole else float(number)


@dataclass(frozen=True)
class Choice:
    """The names that a field may take."""

    label: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        return f"be one of {', '.join(map(repr, self.options))}"

    def check(self, name: str, value: Any) -> str:
        """The value itself; ValueError if it is none of the options."""
        if not isinstance(value, str) or value not in self.options:
            raise ValueError(f"{name} must {self}, got {quote(value)}{nearest(value, self.options)}")
        return value


@dataclass(frozen=True)
class ImageName(Choice):
    """The name of an image that is shipped, or one that `cnnlab.own_image` gave."""

    def __str__(self) -> str:
        return f"{super().__str__()} or a name given by cnnlab.own_image"

    def check(self, name: str, value: Any) -> str:
        """The name itself; ValueError if it is none such."""
        is_own = isinstance(value, str) and re.fullmatch("own_[0-9a-f]{16}", value)
        return str(value) if is_own else super().check(name, value)


@dataclass(frozen=True)
class Pair:
    """Two whole numbers, each within the same range."""

    label: str
    each: Number

    def __str__(self) -> str:
        return f"be two whole numbers in {self.each.interval}"

    def check(self, name: str, value: Any) -> tuple[int, int]:
        """The value as a tuple of two ints; ValueError or TypeError if it does not fit."""
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise TypeError(f"{name} must {self}, got {quote(value)}")
        first, second = (self.each.check(f"{name}[{index}]", part) for index, part in enumerate(value))
        return first, second  # type: ignore[return-value]


@dataclass(frozen=True)
class NumberOrName:
    """A number, or one of the names that a field may take in its place."""

    label: str
    options: tuple[str, ...]
    number: Number
    suggested: tuple[float, ...]
    """Numbers that a control offers beside the names."""
    whole: bool = False

    def __str__(self) -> str:
        return f"be {', '.join(map(repr, self.options))} or {self.number.described}"

    def check(self, name: str, value: Any) -> str | float:
        """The name, or the number as a float; ValueError or TypeError in one sentence if it is neither."""
        if isinstance(value, str):
            if value not in self.options:
                raise ValueError(f"{name} must {self}, got {quote(value)}{nearest(value, self.options)}")
            return value
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise TypeError(f"{name} must {self}, got {quote(value)}")
        return float(self.number.check(name, value))  # type: ignore[arg-type]


Limit = Number | Choice | Pair | NumberOrName
LIMITS: dict[str, Limit] = {
    "learning_rate": Number("Learning rate", 0, 1e6, (1e-6, 10), open_low=True),
    "optimizer": Choice("Optimiser", ("sgd", "nesterov", "rmsprop", "adam", "adamw")),
    "momentum": Number("Momentum", 0, 1, (0, 1), logarithmic=False),
    "beta2": Number("Beta 2", 0, 1, (0, 0.999), open_high=True, logarithmic=False),
    "adam_epsilon": Number("Epsilon in root", 0, 1, (1e-10, 1e-2)),
    "loss_scale": NumberOrName(
        "Loss scale",
        ("off", "dynamic"),
        Number("Loss scale", 0, 1e6, (1, 65536), open_low=True),
        (128, 1024, 8192, 32768),
    ),
    "clip": Choice("Clipping", ("off", "value", "norm", "adaptive")),
    "clip_threshold": Number("Clip threshold", 0, 1e12, (1e-4, 1e4), open_low=True),
    "epsilon": Number("Epsilon in log", 0, 1, (1e-16, 0.1)),
    "l1": Number("L1 factor", 0, 1e6, (1e-8, 1e3)),
    "l2": Number("L2 factor", 0, 1e6, (1e-8, 1e3)),
    "penalty_in": Choice("Penalty in the", ("cost", "update")),
    "seed": Number("Seed", 0, 2**32 - 1, (0, 100), whole=True, logarithmic=False),
    "init": Choice(
        "Initialisation",
        ("question_2", "question_6", "glorot_uniform", "he_normal", "lecun_normal", "orthogonal", "lsuv"),
    ),
    "init_scale": Number("Initial scale", 0, 1e6, (1e-2, 1e2)),
    "input_scaling": Choice("Input scaling", ("raw", "unit", "standardised")),
    "cost": Choice("Cost", ("log_softmax", "softmax_log")),
    "reduction": Choice("Cost over batch", ("mean", "sum")),
    "batch_size": Number("Batch size", 1, 1_000_000, (1, 66), whole=True, optional=True, logarithmic=False),
    "relu": Choice("ReLU placed", ("question", "every_layer", "none", "softmax_too")),
    "precision": Choice("Precision", ("float16", "bfloat16", "float32", "float64")),
    "depth": Number("Depth", 1, 64, (1, 7), whole=True, logarithmic=False),
    "padding": Choice("Padding", ("valid", "same")),
    "activation": Choice("Activation", ("relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid")),
    "normalization": Choice("Normalisation", ("off", "batch", "layer", "group")),
    "normalization_place": Choice("Normalised", ("before", "after")),
    "residual": Choice("Residual", ("off", "on", "zero")),
    "dropout": Number("Dropout", 0, 1, (0, 0.9), open_high=True, logarithmic=False),
    "channels": Number("Channels", 1, 256, (1, 64), whole=True),
    "hidden": Pair("Hidden units", Number("Hidden units", 1, 4096, (1, 512), whole=True)),
    "patch_size": Number("Patch size", 3, 40, (3, 40), whole=True, logarithmic=False),
    "patches": Number("Patches", 2, 1000, (2, 200), whole=True),
    "image": ImageName("Image", ("mosaic",)),
    "device": Choice("Device", ("auto", "cpu", "cuda", "mps")),
    "epochs": Number("Epochs", 1, 1_000_000, (1, 1000), whole=True),
}
"""Field -> what it may hold. `epochs` is how long Play and `cnnlab run` go on."""


AnyKnobs = TypeVar("AnyKnobs", bound="Knobs")


class Checked:
    """A frozen dataclass whose fields are checked against LIMITS when it is made."""

    def __post_init__(self) -> None:
        """Check every field that LIMITS names, and store it as a plain Python number, text or tuple."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if field.name in LIMITS:
                checked = LIMITS[field.name].check(field.name, getattr(self, field.name))
                object.__setattr__(self, field.name, checked)


@dataclass(frozen=True)
class Knobs(Checked):
    """What may change at any update without starting again."""

    learning_rate: float = 1e-2
    """Step size of gradient descent."""
    optimizer: str = "sgd"
    """How a gradient becomes a step: as `torch.optim` has it; "adamw" is "adam" with penalty_in="update"."""
    momentum: float = 0.0
    """Share of the last velocity that the next one keeps (in Adam: beta 1); 0 makes SGD plain gradient descent."""
    beta2: float = 0.999
    """Share of the running mean of squared gradients that the next one keeps in Adam; RMSprop's alpha."""
    adam_epsilon: float = 1e-8
    """Added to the root of the running mean of squared gradients, which Adam and RMSprop divide by."""
    loss_scale: str | float = "off"
    """What the cost is multiplied by before the backward pass of float16, and its gradient divided by after it."""
    clip: str = "off"
    """How gradients are clipped: by value, by global norm, or adaptively per unit (Brock et al. 2021)."""
    clip_threshold: float = 1.0
    """By kind: largest magnitude, largest norm, or largest ratio of a unit's gradient norm to its weight norm."""
    epsilon: float = 0.0
    """Added to the probability inside the log of the cost `softmax_log`; `log_softmax` needs none."""
    l1: float = 0.0
    """Factor of the sum of magnitudes of all weights (not biases)."""
    l2: float = 0.0
    """Factor of half the sum of squares of all weights (not biases): plain SGD takes learning_rate * l2 of each off."""
    penalty_in: str = "cost"
    """Whether L1 and L2 are part of the cost (so clipping and the optimiser see them) or of the update."""

    def __post_init__(self) -> None:
        """Check each field, and what the optimiser asks of the others."""
        super().__post_init__()
        check_optimizer(self)


@dataclass(frozen=True)
class Recipe(Checked):
    """What a run starts from; changing any of it starts again from update 0."""

    seed: int = 0
    """Seed of the initial weights and of the order of mini-batches."""
    init: str = "question_6"
    """Distribution of the initial weights; see `cnnlab.training.initializers`."""
    init_scale: float = 0.9
    """Factor on the initial weights."""
    input_scaling: str = "raw"
    """Pixels as 0..255, divided by 255, or shifted and scaled to mean 0 and deviation 1."""
    cost: str = "log_softmax"
    """Cross-entropy by a log-softmax of the logits, or as -log(softmax + epsilon) in two operations."""
    reduction: str = "mean"
    """Mean or sum of the cost over the batch."""
    batch_size: int | None = None
    """Patches per update; None: all of them, so that one update is one epoch."""
    relu: str = "question"
    """Where activations stand: after cv0..cv4, hid1 and hid2, after all layers but the last, nowhere, or at softmax."""
    precision: str = "float32"
    """Floating-point type of weights, activations and gradients."""
    depth: int = 6
    """How many 3x3 convolutions there are: cv0, cv1 and so on."""
    padding: str = "valid"
    """Whether each convolution makes the map two pixels smaller (valid), or zeros around it keep its size (same)."""
    activation: str = "relu"
    """The activation function that stands where `relu` says."""
    normalization: str = "off"
    """How outputs of convolutions, hid1 and hid2 are normalised: over the batch, an example, or 8 groups of it."""
    normalization_place: str = "before"
    """Whether the normalisation stands before the activation or after it."""
    residual: str = "off"
    """Whether the input of each two convolutions from cv1 on is added to their output; zero: to 0 times it at first."""
    dropout: float = 0.0
    """Share of the units of hid1 and hid2 that an update leaves out, by chance; the rest are scaled up for it."""
    channels: int = 32
    """Output channels of each of the convolutions."""
    hidden: tuple[int, int] = (128, 128)
    """Units of hid1 and of hid2."""
    patch_size: int = 16
    """Side of the square patches in pixels; six valid 3x3 convolutions take 12 away, and hid1 sees all that is left."""
    patches: int = 66
    """Training patches cut from the left half of the image; 132 held-out ones come from its right half.

    For data of one's own how many examples there are, where 1000 stands for more, too.
    """
    image: str = "mosaic"
    """Name of the image shipped with the package, or of one's own as `cnnlab.own_image` gives it."""
    device: str = "auto"
    """Where the run computes; auto: cuda, else mps, else cpu."""


@dataclass(frozen=True)
class Settings(Recipe, Knobs):
    """All that determines a run: the fields of `Recipe` and of `Knobs`, and how long Play goes on."""

    epochs: int = 20
    """How many epochs Play and `cnnlab run` train before they pause."""
    preset: str = "question"
    """Name of the preset that these settings started from."""

    def __post_init__(self) -> None:
        """Check each field, batch_size against patches, and the network's shapes against one another."""
        super().__post_init__()
        check_preset(self.preset)
        check_loss_scale(self, self.precision)
        there_may_be_more = self.patches == LIMITS["patches"].high  # type: ignore[union-attr]
        if self.batch_size is not None and self.batch_size > self.patches and not there_may_be_more:
            raise ValueError(
                f"batch_size must lie in [1, {self.patches}], the number of patches, got {self.batch_size}"
            )
        check_shapes(self)

    @property
    def knobs(self) -> Knobs:
        """The part that may change at any update."""
        return Knobs(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Knobs)})

    @property
    def changes(self) -> dict[str, Any]:
        """The fields that differ from the preset, by name."""
        return find_changes(settings(self.preset), self)

    def replace(self, **changes: Any) -> Settings:
        """These settings with some fields changed; an unknown name is a TypeError that suggests the nearest."""
        check_names(changes)
        return change_knobs(self, changes)

    def to_json(self) -> str:
        """All fields as JSON text; `from_json` reads it back to equal settings."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Settings from JSON text, what it leaves out as in its preset; ValueError or TypeError if it is no such."""
        if isinstance(text, (str, bytes, bytearray)) and len(text) > LONGEST_TEXT:
            raise ValueError(f"settings must be JSON text of at most {LONGEST_TEXT} characters, got {len(text)}")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise ValueError(f"settings must be JSON text, got {quote(text)}") from None
        if not isinstance(values, dict):
            raise TypeError(f"settings must be a JSON object, got {type(values).__name__}")
        return settings(**values)

    def __repr__(self) -> str:
        changed = "".join(f", {name}={value!r}" for name, value in self.changes.items())
        return f"settings({self.preset!r}{changed})"


LONGEST_TEXT = 100_000
"""Most characters of the JSON text of settings; theirs have less than a thousand."""
KNOB_FIELDS = tuple(field.name for field in dataclasses.fields(Knobs))
KNOB_NUMBERS = tuple(name for name in KNOB_FIELDS if isinstance(LIMITS[name], Number))
"""The knobs that are numbers: a step takes them as tensors, and members that are computed together have their own."""

OPTIMIZER_DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0, "beta2": 0.999, "penalty_in": "cost"},
    "nesterov": {"momentum": 0.9, "beta2": 0.999, "penalty_in": "cost"},
    "rmsprop": {"momentum": 0.0, "beta2": 0.99, "penalty_in": "cost"},
    "adam": {"momentum": 0.9, "beta2": 0.999, "penalty_in": "cost"},
    "adamw": {"momentum": 0.9, "beta2": 0.999, "penalty_in": "update"},
}
"""Optimiser -> what the other knobs are with it unless they are given: the defaults of `torch.optim`."""
HALF = "float16"
"""The precision that a loss scale is for: its least number is 6e-8, that of the others 1e-40 or less."""
ADAPTIVE = ("rmsprop", "adam", "adamw")
"""Optimisers that divide each gradient by the root of the running mean of its squares."""

DEEP: dict[str, Any] = {
    "learning_rate": 1e-2,
    "momentum": 0.9,
    "init": "he_normal",
    "init_scale": 1.0,
    "input_scaling": "standardised",
    "batch_size": 20,
    "depth": 20,
    "padding": "same",
    "channels": 8,
    "hidden": (32, 32),
    "patches": 400,
    "epochs": 8,
}
"""Twenty convolutions that keep the size of their maps."""
PRESETS: dict[str, dict[str, Any]] = {
    # The cost explodes to NaN at update 4, as the question's does; at a tenth of the learning rate some seeds do.
    "question": {},
    # The same nine layers learn: standardised pixels, He's initialisation, momentum, more and larger patches, batches.
    "converges": {
        "learning_rate": 2e-3,
        "momentum": 0.9,
        "init": "he_normal",
        "init_scale": 1.0,
        "input_scaling": "standardised",
        "batch_size": 10,
        "channels": 8,
        "hidden": (128, 64),
        "patch_size": 40,
        "patches": 1000,
        "epochs": 3,
    },
    # The cost is small until the probability of one patch's label underflows: log(0) is inf, and clipping cannot help.
    # (A little sooner, from a logit gap of 89 on, the cost is still finite but 1/p is not, and the next cost is NaN.)
    "sudden_nan": {
        "learning_rate": 3e-2,
        "momentum": 0.9,
        "clip": "norm",
        "clip_threshold": 40.0,
        "init": "he_normal",
        "init_scale": 1.0,
        "input_scaling": "standardised",
        "cost": "softmax_log",
        "batch_size": 2,
        "epochs": 2,
    },
    # One long (clipped) step takes activations past 65504, where float16 ends; float32 and bfloat16 stay finite.
    "overflow": {
        "learning_rate": 1.0,
        "clip": "value",
        "precision": "float16",
        "channels": 8,
        "hidden": (64, 32),
        "patch_size": 14,
    },
    # Clipped but far too long steps push units below zero for every patch: no gradient passes, the cost stays at ln 2.
    "dead": {"learning_rate": 0.1, "clip": "value", "epochs": 60},
    # Weights a ninth of the question's: hardly a gradient reaches cv0; only softmax's bias, behind no weight, moves.
    "vanishing": {"init_scale": 0.1, "batch_size": 11, "epochs": 9},
    # The question with Adam: no cost is NaN, but the first steps throw it to some thousand, and the median run ends at
    # ln 2, no better than guessing. At a tenth of the learning rate every seed learns.
    "adam": {"optimizer": "adam", "epochs": 60},
    # The question with normalised layers, at the very rate at which it explodes.
    "batch_norm": {"normalization": "batch"},
    # Twenty convolutions: with half of the seeds the cost is still ln 2 at the end.
    "deep_plain": DEEP,
    # The same with shortcuts whose blocks begin as the identity: it learns.
    "deep_residual": {**DEEP, "residual": "zero"},
    # In float16 the gradient of cv0 is lost on its way down, and with a loss scale it is that of float32. The upper
    # layers keep theirs either way: a run that stalls without a scale and learns with one was not found.
    "loss_scaling": {
        "learning_rate": 10.0,
        "momentum": 0.9,
        "clip": "norm",
        "clip_threshold": 3e-3,
        "loss_scale": "dynamic",
        "init": "he_normal",
        "init_scale": 0.25,
        "precision": "float16",
        "activation": "gelu",
        "channels": 8,
        "hidden": (32, 32),
        "patch_size": 14,
        "patches": 100,
        "epochs": 80,
    },
}
"""Preset -> the fields that differ from the defaults above; tests/benchmarks/presets.py measures what each shows."""


def add_defaults(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of some fields, with the defaults of a new optimiser in place of those that the old one brought.

    A field that was given another value keeps it. Another precision than float16 takes the loss scale off.
    """
    if changes.get("precision", HALF) != HALF:
        changes = {"loss_scale": "off", **changes}
    if "optimizer" not in changes:
        return dict(changes)
    new = OPTIMIZER_DEFAULTS[LIMITS["optimizer"].check("optimizer", changes["optimizer"])]  # type: ignore[index]
    old = OPTIMIZER_DEFAULTS[before["optimizer"]]
    return {**{name: value for name, value in new.items() if before[name] == old[name]}, **changes}


def change_knobs(before: AnyKnobs, changes: Mapping[str, Any]) -> AnyKnobs:
    """Knobs or settings with some fields changed, and with the defaults of a new optimiser."""
    return dataclasses.replace(before, **add_defaults(vars(before), changes))


def find_changes(before: Knobs, after: Knobs) -> dict[str, Any]:
    """The fields to change for `change_knobs` to make the second of the first, by name, with their values after.

    They are those that differ, and those that a new optimiser would have changed.
    """
    old, new = vars(before), vars(after)
    switch = {"optimizer": after.optimizer} if after.optimizer != before.optimizer else {}
    followed = {**old, **add_defaults(old, switch)}
    return {name: value for name, value in new.items() if value != old[name] or value != followed[name]}


def check_optimizer(knobs: Knobs) -> None:
    """ValueError in a sentence unless the other knobs are ones that the optimiser can work with."""
    name = knobs.optimizer
    if name in BETAS and knobs.momentum == 1:
        raise ValueError(f"momentum must lie in [0, 1) with the optimizer {name!r}, got 1")
    if name == "adamw" and knobs.penalty_in != "update":
        raise ValueError(f"penalty_in must be 'update' with the optimizer 'adamw', got {knobs.penalty_in!r}")
    if knobs.learning_rate > (highest := find_highest_rate(knobs)):
        raise ValueError(
            f"learning_rate must lie in (0, {highest:g}], which is 1/l2, with the optimizer {name!r} and penalty_in "
            f"'update', got {short(knobs.learning_rate)}: a decay of more than 1 turns the sign of every weight"
        )


def check_loss_scale(knobs: Knobs, precision: str) -> None:
    """ValueError in a sentence for a loss scale with a precision whose gradients do not need one."""
    if knobs.loss_scale != "off" and precision != HALF:
        raise ValueError(f"loss_scale must be 'off' with precision {precision!r}, got {knobs.loss_scale!r}")


def find_highest_rate(knobs: Knobs) -> float:
    """The highest learning rate: 1/l2 where a decay apart from the gradient would turn the sign of every weight.

    Plain gradient descent may do so: that it explodes is what a penalty in the update shows.
    """
    decays = knobs.optimizer != "sgd" and knobs.penalty_in == "update" and knobs.l2 > 0
    return 1 / knobs.l2 if decays else LIMITS["learning_rate"].high  # type: ignore[union-attr]


def list_changes(start: Knobs, schedule: Iterable[tuple[int, Knobs]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(first update, the knobs that change there) of a schedule (first update, knobs in force from it on)."""
    for first, knobs in schedule:
        yield first, find_changes(start, knobs)
        start = knobs


def presets() -> tuple[str, ...]:
    """The names of the presets, the question's own first."""
    return tuple(PRESETS)


def settings(preset: str | Settings = "question", **changes: Any) -> Settings:
    """Settings of a preset, with any fields changed by keyword."""
    if isinstance(preset, Settings):
        return preset.replace(**changes)
    return make_settings(preset, changes)


def make_settings(preset: str, *layers: Mapping[str, Any]) -> Settings:
    """Settings of a preset, with some fields changed, one layer of changes after the other."""
    check_preset(preset)
    values: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Settings)}
    for changes in (PRESETS[preset], *layers):
        check_names(changes)
        values |= add_defaults(values, changes)
    return Settings(**{**values, "preset": preset})


def check_preset(name: Any) -> None:
    """ValueError that lists the presets and suggests the nearest, unless it is one of them."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {quote(name)}{nearest(name, PRESETS)}")


TORCH_NAMES = {
    "lr": "learning_rate",
    "weight_decay": "l2",
    "eps": "adam_epsilon",
    "alpha": "beta2",
    "dtype": "precision",
}
"""What torch calls a setting -> its name here, to suggest."""


def check_names(changes: Any) -> None:
    """TypeError that names the first unknown field and suggests the nearest."""
    known = [field.name for field in dataclasses.fields(Settings)]
    for name in changes:
        if name not in known:
            found = f"; did you mean {TORCH_NAMES[name]!r}?" if name in TORCH_NAMES else nearest(name, known)
            raise TypeError(f"there is no setting named {quote(name)}{found}")


def nearest(name: Any, known: Any) -> str:
    """The end of an error message that suggests the nearest known name, or nothing."""
    if not isinstance(name, str) or len(name) > 100:
        return ""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def quote(value: Any) -> str:
    """A value as a message names it, in one line: numbers as they are, texts in quotes, what is long cut short."""
    try:
        text = " ".join((str(value) if isinstance(value, numbers.Real) else repr(value)).split())
    except Exception:  # more digits than Python writes, nested too deeply, or an object that cannot be written
        return "a number of thousands of digits" if isinstance(value, int) else f"a {type(value).__name__}"
    if isinstance(value, int) and len(text) > 21:
        return f"a number of {len(text)} digits"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def short(number: float | int) -> str:
    """A number in few characters but exactly, as in 0.01, 1e-05, 1e6, 4294967295."""
    text = f"{number:g}".replace("e+0", "e").replace("e+", "e")
    return text if float(text) == number else str(number)


def field_meanings(owner: type) -> dict[str, str]:
    """Field -> the sentence that follows it in a class of this module."""
    body: list[Any] = ast.parse(inspect.getsource(owner)).body[0].body  # type: ignore[attr-defined]
    return {
        field.target.id: " ".join(text.value.value.split())  # type: ignore[union-attr,attr-defined]
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
