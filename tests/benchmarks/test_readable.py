"""What can be told of a question's states: what is in them is learned, what is not is not."""

import pytest
import readable
import torch
from readable import PROPERTIES, States, labelled, taught

from dlr_core.records import Item

CLASSES, HIDDEN = 3, 16


@pytest.fixture(scope="module")
def labels():
    draw = torch.Generator().manual_seed(0)
    return {split: torch.randint(CLASSES, (192,), generator=draw) for split in ("train", "validation", "test")}


def made_up(labels, *, telling):
    """Noise of 2 to 6 positions; where it is telling the last says the class."""
    draw = torch.Generator().manual_seed(1)
    sets = {}
    for split, labels_N in labels.items():
        states = sets[split] = States.__new__(States)
        states.rows = [torch.randn(2 + n % 5, HIDDEN, generator=draw) for n in range(len(labels_N))]
        for row, label in zip(states.rows, labels_N.tolist(), strict=True):
            row[-1, label] += 6.0 * telling
    return sets


def share_told(labels, *, telling):
    sets = made_up(labels, telling=telling)
    told_N, epoch = taught(sets, labels, sets["train"].batch(range(32)), seed=0)
    assert 1 <= epoch <= readable.EPOCHS
    return told_N.mean()


def test_a_class_that_states_say_is_told_of_questions_never_seen(labels):
    assert share_told(labels, telling=True) > 0.9


def test_a_class_that_states_do_not_say_is_told_by_chance(labels):
    assert share_told(labels, telling=False) < 0.5


def test_padding_changes_nothing(labels):
    states = made_up(labels, telling=True)["test"]
    torch.manual_seed(0)
    assistant = readable.SmallGPT(readable.SmallGPT.Options(), HIDDEN, num_latents=1, latent_dim=CLASSES)
    together = readable.logits(assistant, states, range(8))
    alone = torch.cat([readable.logits(assistant, states, [n]) for n in range(8)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_properties_of_a_sum():
    told = PROPERTIES["two-term sums"]
    item = Item(question="38 - 91 = ?", answer="-53", index=0)
    assert [told[name](item) for name in told] == ["-", "True", "5", "3"]


def test_a_class_that_training_has_not_met_is_never_told():
    labels, known = labelled({"train": ["3", "1", "3"], "validation": ["1", "2"], "test": ["4", "3"]})
    assert known == ["1", "3"]
    assert {split: each.tolist() for split, each in labels.items()} == {
        "train": [1, 0, 1],
        "validation": [0, -1],
        "test": [-1, 1],
    }
