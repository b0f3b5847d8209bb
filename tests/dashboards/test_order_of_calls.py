"""Calls of a lab take effect in the order in which they are made, restarts included."""

import pytest

import cnnlab


@pytest.fixture
def lab():
    lab = cnnlab.Lab("question", channels=2, hidden=(8, 4), patches=8)
    lab.choose_pace("full")
    lab.step(7)
    yield lab
    lab.close()


def test_steps_asked_for_after_a_reset_count_from_the_new_start(lab):
    lab.reset()
    lab.step(5)
    assert len(lab.record) == 5


def test_steps_asked_for_after_a_change_of_recipe_count_from_the_new_start(lab):
    lab.set(seed=3)
    lab.step(2)
    assert (len(lab.record), lab.record.settings.seed) == (2, 3)


def test_play_after_a_reset_trains_to_the_planned_end_and_no_further(lab):
    lab.reset()
    lab.play()
    lab.wait(60)
    assert len(lab.record) == lab.settings.epochs


def test_a_reset_while_training_goes_on_from_the_new_start(lab):
    lab.choose_pace("20")
    lab.play()
    lab.reset()
    lab.wait(60)
    assert len(lab.record) == lab.settings.epochs


def test_pause_after_a_restart_holds_the_new_run_at_its_start(lab):
    lab.play()
    lab.worker.restart(lab.settings)
    lab.pause()
    lab.wait(60)
    assert len(lab.record) == 0


def test_several_restarts_at_once_leave_the_last_one(lab):
    lab.new_seed()
    lab.new_seed()
    lab.step(1)
    assert (len(lab.record), lab.record.settings.seed) == (1, 2)


def test_closing_in_the_midst_of_a_restart_ends_the_thread(lab):
    lab.play()
    lab.reset()
    lab.close()
    assert not lab.worker.thread.alive
