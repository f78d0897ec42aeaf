"""Accuracy as the generator draws questions: half of one digit, whatever the distinct questions are."""

import digits
import dlr_envs  # noqa: F401
import gymnasium
import numpy as np

from dlr_core.questions import distinct_items


def test_one_digit_counts_as_much_as_two_however_few_questions_there_are():
    few, many = np.array([1.0, 1.0, 1.0, 0.0]), np.zeros(600)
    one, two, drawn = digits.shown([few, many])
    assert one.startswith("75.0 [")
    assert two == "0.0 [0.0, 0.0]"
    assert drawn.startswith("37.5 [")
    low, high = (float(part) for part in drawn.partition("[")[2].rstrip("]").split(", "))
    assert low < 37.5 < high <= 50


def test_every_question_is_of_its_kind_and_all_easy_ones_are_asked(tiny_model):
    task = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=1, decoder=str(tiny_model)).unwrapped.engine.task
    one, two = digits.by_digits(distinct_items(task, "test", task.size("test")), 50)
    assert {item.metadata["metadata"]["num_digits"] for item in one} == {1}
    assert [item.metadata["metadata"]["num_digits"] for item in two] == [2] * 50
    assert 20 < len(one) == len({item.question for item in one})


def test_the_generator_draws_half_its_questions_of_one_digit_but_few_different_ones(tiny_model):
    task = gymnasium.make_vec("dlr/ChainSum-v0", num_envs=1, decoder=str(tiny_model)).unwrapped.engine.task
    drawn = [task._dataset[number] for number in range(2000)]
    easy = [entry["question"] for entry in drawn if entry["metadata"]["num_digits"] == 1]
    assert 0.45 < len(easy) / len(drawn) < 0.55
    assert len(set(easy)) <= 200
