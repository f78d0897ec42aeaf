"""What a search finds: a question is solved by any one of its completions."""

from replacement import solved, texts

from dlr_core.records import Sample


def sample(text, correct, keeps=1.0):
    return Sample("q", "a", text, text, correct, keeps, 2, bool(keeps))


def test_a_question_is_solved_by_any_right_completion_that_keeps_the_format():
    right, wrong, long = sample("7", 1.0), sample("8", 0.0), sample("7 and", 1.0, 0.0)
    assert solved([wrong, right, wrong, wrong, long, wrong], 2).tolist() == [1.0, 0.0, 0.0]
    assert solved([wrong, right, wrong, wrong, long, wrong], 3).tolist() == [1.0, 0.0]


def test_texts_are_counted_question_by_question():
    assert texts([sample("7", 0), sample("7", 0), sample("7", 0), sample("8", 0)], 2) == 1.5
