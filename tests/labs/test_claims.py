"""The claims over many seeds are in their files, and two seeds of each are measured anew."""

import numpy as np
import pytest
from claims import RESULTS, Claim, list_claims, read_values

every_claim = pytest.mark.parametrize("claim", list_claims(), ids=lambda claim: claim.name)
pytestmark = pytest.mark.timeout(600)


@every_claim
def test_a_claim_is_kept_for_each_of_its_seeds(claim: Claim):
    assert tuple(read_values(claim.name)) == claim.seeds


@every_claim
def test_two_seeds_measured_anew_are_as_they_are_kept(claim: Claim):
    for seed in claim.again:
        anew, kept = claim.measure(seed), read_values(claim.name)[seed]
        assert list(anew) == list(kept)
        np.testing.assert_allclose(list(map(float, anew.values())), list(kept.values()), rtol=claim.tolerance)


def test_no_file_of_a_claim_is_left_over():
    assert {path.stem for path in RESULTS.glob("*.json")} == {claim.name for claim in list_claims()}
