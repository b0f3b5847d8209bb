"""The frames a second follow what they cost the training."""

import numpy as np
import pytest

from cnnlab.dashboards.frame_pace import FEWEST, MOST, SHARE, FramePace


def train(pace: FramePace, cost: float, seconds: float, noise: float = 0.0, unwatched: float = 40.0) -> None:
    """Note a training of which each frame takes `cost` seconds, at the rate that the pace wants."""
    draw = np.random.default_rng(0)
    updates, frames, now = 0.0, 0.0, 0.0
    while now < seconds:
        pace.note(now, int(updates), int(frames))
        updates += unwatched * (1 - cost * pace.rate) * (1 + noise * draw.normal()) * 0.05
        frames += pace.rate * 0.05
        now += 0.05
    pace.rest()


@pytest.mark.parametrize(("cost", "wanted"), [(0.0, MOST), (SHARE / 18, 18.0), (SHARE / 12, 12.0), (SHARE / 6, FEWEST)])
def test_the_rate_is_what_the_share_allows_within_its_bounds(cost: float, wanted: float) -> None:
    pace = FramePace()
    train(pace, cost, 80)
    assert pace.chosen == pytest.approx(wanted, rel=0.15)
    assert pace.shown == pytest.approx(pace.chosen, rel=0.15)


@pytest.mark.parametrize("cost", [0.002, SHARE / 12])
def test_the_share_that_is_told_is_the_one_that_is_lost(cost: float) -> None:
    pace = FramePace()
    assert pace.share is None
    train(pace, cost, 120, noise=0.02)
    assert pace.share == pytest.approx(cost * pace.shown, abs=0.02)


def test_a_pace_at_the_least_rises_again_when_frames_cost_less() -> None:
    pace = FramePace()
    train(pace, SHARE / 6, 60)
    assert pace.chosen < FEWEST + 1
    train(pace, 0.0, 120)
    assert pace.chosen > MOST - 2


def test_what_was_begun_before_a_rest_or_a_rewind_does_not_count() -> None:
    pace = FramePace()
    pace.note(0.0, 100, 0)
    pace.rest()
    pace.note(10.0, 110, 1)
    assert pace.previous is None
    pace.note(10.5, 3, 2)  # after a rewind
    pace.note(11.6, 25, 24)
    assert pace.previous == pytest.approx((22 / 1.1, 22 / 1.1))
    pace.note(11.7, 0, 25)
    assert pace.previous is None, "what comes next is not compared with what was before"
    assert pace.share is None


def test_a_slow_change_of_the_training_is_not_taken_for_the_cost_of_frames() -> None:
    pace = FramePace()
    now = updates = frames = 0.0
    while now < 60:
        pace.note(now, int(updates), int(frames))
        updates += 400 * (1 - now / 100) * 0.05
        frames += pace.rate * 0.05
        now += 0.05
    assert pace.chosen > MOST - 2, "frames that cost nothing"
