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
    assert pace.means == {}
    pace.note(10.5, 3, 2)  # after a rewind
    pace.note(11.6, 25, 24)
    assert pace.means[False] == pytest.approx((22 / 1.1, 22 / 1.1))
