"""What can be told of a question's states: what is in them is learned, what is not is not."""

import pytest
import readable
import torch
from readable import PROPERTIES, States, taught

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


def test_a_class_that_states_say_is_told_of_questions_never_seen(labels):
    assert taught(made_up(labels, telling=True), labels, 192, CLASSES, seed=0).mean() > 0.9


def test_a_class_that_states_do_not_say_is_told_by_chance(labels):
    assert taught(made_up(labels, telling=False), labels, 192, CLASSES, seed=0).mean() < 0.5


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
