"""What the `?` beside a control says: what it sets, what happens at the ends of its range, and the lab about it."""

from __future__ import annotations

from typing import TypedDict

from cnnlab.config.settings import Knobs, Recipe, field_meanings

MEANINGS = {**field_meanings(Recipe), **field_meanings(Knobs)}
"""Field -> the sentence that documents it."""
START_HERE = "00_start_here"
LABS = {
    START_HERE: "Will this network survive twenty epochs?",
    "01_how_large_a_step": "How large may a step be?",
    "02_how_large_a_start": "Is the initialisation right?",
    "03_where_do_penalties_and_relus_belong": "Where do penalties and ReLUs belong?",
    "04_the_epsilon_in_the_softmax": "Does an epsilon in the softmax mend the NaN?",
    "05_autopsy_of_a_nan": "Where was the first NaN made?",
    "06_rewind_and_fork": "Could it have been saved?",
    "08_why_is_every_run_different": "Why is every run different?",
    "09_your_own_network": "Why does your own network explode?",
    "10_why_do_signals_vanish": "Why do signals vanish?",
    "11_what_does_momentum_buy": "What does momentum buy?",
    "12_does_adam_save_it": "Does Adam save it?",
    "13_sixteen_bits": "Are sixteen bits enough?",
}
"""Name of a lab -> its title."""
ENDS: dict[str, tuple[str, str]] = {
    "learning_rate": (
        "At the left end an update hardly moves the weights; at the right end SGD moves them by ten times the "
        "gradient, and the first step of Adam by ten each.",
        "01_how_large_a_step",
    ),
    "optimizer": (
        "SGD and Nesterov's take steps in proportion to the gradient; RMSprop and Adam divide each part of it by its "
        "usual size.",
        "12_does_adam_save_it",
    ),
    "momentum": (
        "At 0 each step follows the present gradient alone; at 1 no velocity is ever lost.",
        "11_what_does_momentum_buy",
    ),
    "beta2": (
        "At 0 a step is divided by the size of the present gradient alone; near 1 by its usual size over many updates.",
        "12_does_adam_save_it",
    ),
    "adam_epsilon": (
        "At 0 a gradient that is always 0 is divided by 0; a large one makes steps in proportion to the gradient.",
        "12_does_adam_save_it",
    ),
    "loss_scale": (
        "Off loses gradients below 3e-8, which float16 rounds to 0; dynamic halves the scale at an overflow, and "
        "doubles it after 2000 updates without one.",
        "13_sixteen_bits",
    ),
    "clip": (
        "Off leaves every gradient as it is, however long; the others hold it to the clip threshold.",
        "06_rewind_and_fork",
    ),
    "clip_threshold": (
        "A small one makes every step short, a large one clips nothing; while clipping is off it does nothing.",
        "06_rewind_and_fork",
    ),
    "epsilon": (
        "At 0 nothing is added; a large one changes what the cost rewards.",
        "04_the_epsilon_in_the_softmax",
    ),
    "l1": (
        "At 0 there is no penalty; a large one pulls at the weights harder than the data do.",
        "03_where_do_penalties_and_relus_belong",
    ),
    "l2": (
        "At 0 there is no penalty; a large one pulls at the weights harder than the data do.",
        "03_where_do_penalties_and_relus_belong",
    ),
    "penalty_in": (
        "In the cost, clipping and the optimiser act on the penalty too; in the update they do not.",
        "03_where_do_penalties_and_relus_belong",
    ),
    "seed": (
        "Each number gives other weights and another order of batches; the same number gives the same run again.",
        "08_why_is_every_run_different",
    ),
    "init": (
        "The question's two are as its posts gave them; the others come from papers.",
        "02_how_large_a_start",
    ),
    "init_scale": (
        "At 0, the left end, all first weights are 0; at the right end they are a hundred times as large.",
        "02_how_large_a_start",
    ),
    "batch_size": (
        "At 1 every patch makes an update of its own; at the right end (all) an update sees every patch.",
        "08_why_is_every_run_different",
    ),
    "input_scaling": (
        "Raw leaves numbers up to 255, the largest inputs of the three.",
        "02_how_large_a_start",
    ),
    "cost": (
        "The first never takes the logarithm of 0; the second rounds the probability before it takes the logarithm.",
        "04_the_epsilon_in_the_softmax",
    ),
    "reduction": (
        "The sum is as many times as large as there are patches in the batch, and so is its gradient.",
        "01_how_large_a_step",
    ),
    "relu": (
        "With none the network is linear in its input; at the softmax too, no logit is below 0.",
        "03_where_do_penalties_and_relus_belong",
    ),
    "depth": (
        "At 1 there is cv0 alone; valid convolutions end where nothing of the patch is left.",
        "10_why_do_signals_vanish",
    ),
    "padding": (
        "Valid lets the map shrink layer by layer; with same any depth fits, and hid1 sees a map of the patch's size.",
        "02_how_large_a_start",
    ),
    "activation": (
        "ReLU and what resembles it let large values pass; tanh and sigmoid give 1 at most, with little slope there.",
        "10_why_do_signals_vanish",
    ),
    "normalization": (
        "Off leaves them as they are; group takes the largest of 8, 4, 2 and 1 groups that divides the channels.",
        "10_why_do_signals_vanish",
    ),
    "normalization_place": (
        "Before is the place in the paper on batch norm; after, the next layer is given what is normalised.",
        "10_why_do_signals_vanish",
    ),
    "residual": (
        "Off has no shortcuts; with zero each block adds nothing at first: with ReLUs it begins as the identity.",
        "10_why_do_signals_vanish",
    ),
    "dropout": (
        "At 0 every unit takes part; near 1 hardly any does, and each counts for many.",
        "08_why_is_every_run_different",
    ),
    "precision": (
        "Float16 holds magnitudes up to 65504, bfloat16 and float32 up to 3.4e38, float64 up to 1.8e308.",
        "13_sixteen_bits",
    ),
}
"""Field -> what happens at the ends of its range, and the lab about it."""
OTHERS: dict[str, tuple[str, str, str]] = {
    "transport": (
        "Training and steps",
        "Play trains to the planned end, and Step makes one update or as many as the box says; what trains is seen at "
        "once in every plot. With stop at NaN on, Play stops two updates after the first NaN or inf; Reset begins the "
        "same start again, New seed another one, Preset other settings, and Speed is the most updates a second.",
        START_HERE,
    ),
    "look_back": (
        "Look back",
        "The slider shows the run as it was after an earlier update, and trains nothing. Fork here goes on from there "
        "as a new branch and keeps the old one; Rewind to here takes the run itself back.",
        "06_rewind_and_fork",
    ),
    "schedule": (
        "Schedule and stability band",
        "The schedule says how the learning rate goes on from the next update. The band is green up to the critical "
        "learning rate, above which a step is too long for the curvature, amber up to ten times that, and red beyond; "
        "with another optimiser than SGD all beyond the critical rate is amber.",
        "01_how_large_a_step",
    ),
    "image": (
        "Your own image",
        "Patches are cut from a picture of your own, PNG or JPEG, and the run starts again. Labels say what is to be "
        "learnt: the upper or the lower half, or rough or smooth texture.",
        START_HERE,
    ),
    "branches": (
        "Branches",
        "Each fork is a branch with a colour of its own; a click makes it the present one. The cross deletes a branch.",
        "06_rewind_and_fork",
    ),
}
"""What is no field -> its title, its two sentences and the lab about it."""


class Explanation(TypedDict):
    """What a `?` shows; `lab` is the name of a notebook in labs/, without its ending."""

    title: str
    text: str
    lab: str
    lab_title: str


def explain_field(field: str, label: str) -> Explanation:
    """The explanation of a field of Settings that has a control."""
    ends, lab = ENDS[field]
    return {"title": label, "text": f"{MEANINGS[field]} {ends}", "lab": lab, "lab_title": LABS[lab]}


def explain_part(name: str) -> Explanation:
    """The explanation of what is no field, such as "transport"."""
    title, text, lab = OTHERS[name]
    return {"title": title, "text": text, "lab": lab, "lab_title": LABS[lab]}


def list_explanations() -> dict[str, Explanation]:
    """The explanations of what is no field, by name."""
    return {name: explain_part(name) for name in OTHERS}
