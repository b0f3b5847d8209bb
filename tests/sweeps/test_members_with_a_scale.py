"""Members that scale their cost, together and one by one, are those of a Run."""

from __future__ import annotations

import numpy as np
import pytest

from cnnlab import Run
from cnnlab.config.settings import settings
from cnnlab.sweeps.ensemble import compute

SMALL = {"channels": 2, "hidden": (4, 3), "patch_size": 13, "patches": 8, "input_scaling": "unit", "device": "cpu",
         "precision": "float16", "learning_rate": 0.05}  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("changes", [{"momentum": 0.9}, {"optimizer": "adam", "adam_epsilon": 1e-3}])
@pytest.mark.parametrize("loss_scale", ["dynamic", 4096.0])
def test_members_skip_the_updates_that_a_run_skips(loss_scale, changes):
    wanted = settings("question", **SMALL, **changes, loss_scale=loss_scale)
    members = [wanted.replace(seed=seed) for seed in (0, 1, 2)]
    runs = [Run(member) for member in members]
    for run in runs:
        run.advance(8)
    expected = np.array([run.record.cost for run in runs])
    assert np.array_equal(compute(members, 8, "one by one").cost, expected)
    np.testing.assert_allclose(compute(members, 8, "together").cost, expected, rtol=5e-3)
    skipped = [(run.record.skipped == 1).sum() for run in runs]
    assert min(skipped) > 0 if loss_scale == "dynamic" else max(skipped) < 8
    assert not np.array_equal(expected[:, 0], expected[:, -1])
