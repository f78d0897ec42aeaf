"""The memory plan's arithmetic, against counts made by hand."""

from dataclasses import replace

import pytest

from dlr_core.memory import ModelSize, RunSize, assistant_bytes, largest, of_rank, pass_bytes, plan, prompt_bytes

MODEL = ModelSize(
    weights=1000, packed=600, layers=2, cache_width=16, hidden=8, heads=2, head_width=4, inner=30, vocabulary=50,
    number=4, pass_positions=256,
)  # fmt: skip
RUN = RunSize(
    questions=2, samples=4, decodes=3, completions=1, prompt=10, latents=5, latent_dim=7, pending=1, tokens=6,
    trained=100, replayed=4, searched=3, tries=2, stored=9, beginning=4, store_limit=10**6,
)  # fmt: skip


def test_a_prompt_is_its_keys_values_and_states():
    assert prompt_bytes(MODEL, 10) == 10 * (16 + 8) * 4


def test_what_is_held_is_the_model_its_copies_what_learns_four_times_and_the_full_stores():
    assert plan(MODEL, RUN).held == {
        "main model": 1000,
        "packed copies": 600,
        "learned, gradients, Adam": 1600,
        "replay and frontier": (9 * (15 - 4) + 4) * 24 * 4,
    }
    assert plan(MODEL, replace(RUN, store_limit=5000)).held["replay and frontier"] == 5000
    assert plan(MODEL, replace(RUN, stored=0)).held["replay and frontier"] == 0


def test_a_pass_keeps_feed_forward_query_and_two_norms_of_a_position_its_row_s_cache_and_its_attention():
    rows, new, far, own = 3, 6, 10, 5 + 6
    layer = rows * new * (30 + 8 + 2 * 8) + rows * new * 2 * (far + 2 * own)
    cached = (rows * own + 2 * far) * 16
    assert pass_bytes(MODEL, RUN, rows, groups=2) == 4 * (2 * layer + cached)


def test_of_rows_that_need_several_passes_one_is_held():
    small = replace(MODEL, pass_positions=18)
    assert pass_bytes(small, RUN, 12, groups=4) == pass_bytes(small, RUN, 3, groups=4)
    assert pass_bytes(MODEL, RUN, 12, groups=4) > 3 * pass_bytes(small, RUN, 3, groups=4)


def test_in_half_precision_norms_and_attention_still_keep_single_precision():
    half = replace(MODEL, number=2)
    layer = 18 * (30 + 8) * 2 + 18 * 2 * 8 * 4 + 18 * 2 * ((10 + 11) * 6 + 11 * 2)
    assert pass_bytes(half, RUN, 3, groups=2) == 2 * layer + (3 * 11 + 2 * 10) * 16 * 2


def test_a_chain_that_shares_no_prompt_has_it_among_its_own():
    fed = replace(RUN, residual=False)
    chains = plan(MODEL, fed).phases["update"]["chains"] - plan(MODEL, RUN).phases["update"]["chains"]
    assert chains == (6 + 6 - 2) * 10 * 16 * 4
    written = plan(MODEL, fed).phases["update"]["activations"] - pass_bytes(MODEL, fed, 6, 2)
    assert written == 2 * 6 * 5 * (30 + 8 + 2 * 8) * 4
    layer = 18 * (30 + 8 + 2 * 8) + 18 * 2 * 2 * (10 + 11)
    assert pass_bytes(MODEL, fed, 3, groups=1) == 4 * (2 * layer + 3 * 21 * 16)


def test_an_assistant_keeps_every_block_of_every_latent_on_the_way_back_and_two_latents_otherwise():
    run = replace(RUN, width=6, blocks=3)
    block = 17 * 20 + 2 * 8 * 10 * 6 + 40 * 22
    assert assistant_bytes(MODEL, run, 2, 8) == 4 * (3 * 6 * block + 2 * 20 * 8)
    assert assistant_bytes(MODEL, run, 2, 8, back=False) == 4 * (3 * 6 * 4 * 8 * 15 + 2 * 20 * 8)
    assert assistant_bytes(MODEL, RUN, 2, 8) == 0


def test_a_rollout_holds_two_steps_prompts_and_room_for_what_its_chains_write():
    rows, row = 6, 16 * 4
    rollout = plan(MODEL, RUN).phases["rollout"]
    assert rollout["prompts"] == 2 * 2 * 15 * 24 * 4
    assert rollout["chains"] == rows * row * max(4 * 5, 2 * 5 + 1 + 6)
    assert rollout["logits"] == rows * 50 * 4
    assert plan(MODEL, replace(RUN, tokens=99)).phases["rollout"]["chains"] == rows * row * (2 * 5 + 1 + 99)
    assert plan(MODEL, replace(RUN, sampled=True)).phases["rollout"]["logits"] == 4 * rollout["logits"]
    copied = plan(replace(MODEL, copies_prompts=True), RUN).phases["rollout"]["chains"]
    assert copied == rollout["chains"] + rows * row * 10


def test_a_search_copies_a_question_s_chain_for_each_of_its_completions():
    row, search = 16 * 4, plan(MODEL, RUN).phases["search"]
    assert search["chains"] == (3 * 2 * 5 + 6 * (5 + 1 + 6)) * row
    assert search["logits"] == 6 * 50 * 4
    assert plan(MODEL, replace(RUN, residual=False)).phases["search"]["chains"] == (3 * (10 + 5) + 6 * (1 + 6)) * row
    copied = plan(replace(MODEL, copies_prompts=True), RUN).phases["search"]["chains"]
    assert copied == search["chains"] + 6 * 10 * row
    one = plan(MODEL, replace(RUN, tries=1)).phases["search"]
    assert (one["chains"], one["logits"]) == (3 * max(4 * 5, 2 * 5 + 1 + 6) * row, 4 * 3 * 50 * 4)


def test_learning_holds_of_every_latent_four_tensors_and_what_one_pass_reads():
    made = plan(MODEL, RUN).phases
    assert made["update"]["chains"] == (4 * 6 * 5 + 2 * 6 * 5 + 2 * 10) * 16 * 4
    assert made["replay"]["chains"] == (4 * 4 * 5 + 2 * 4 * 5 + 4 * 10) * 16 * 4
    passes = plan(replace(MODEL, pass_positions=18), RUN).phases
    assert passes["update"]["chains"] == (4 * 6 * 5 + 2 * 3 * 5 + 2 * 10) * 16 * 4
    assert made["update"]["activations"] == pass_bytes(MODEL, RUN, 6, 2)
    assert made["replay"]["activations"] == pass_bytes(MODEL, RUN, 4, 4)
    assert made["update"]["logits"] == 128 * 50 * 4


def test_what_many_prompts_begin_with_is_there_once():
    many, once, latents = replace(RUN, replayed=6, searched=7), 4 * 16 * 4, 5 * 16 * 4
    made, alone = plan(MODEL, many).phases, plan(MODEL, replace(many, beginning=0)).phases
    assert alone["replay"]["prompts"] - made["replay"]["prompts"] == 5 * once
    assert alone["search"]["prompts"] - made["search"]["prompts"] == 6 * once
    assert alone["replay"]["chains"] - made["replay"]["chains"] == 6 * once
    assert alone["replay"]["activations"] - made["replay"]["activations"] == 6 * once
    assert made["replay"]["chains"] == 6 * 6 * latents + 6 * (10 - 4) * 16 * 4
    assert made["update"] == alone["update"]  # of few prompts each has it to itself
    for copying in (replace(MODEL, copies_prompts=True), MODEL):
        fed = replace(many, residual=copying.copies_prompts)
        assert plan(copying, fed).phases["replay"] == plan(copying, replace(fed, beginning=0)).phases["replay"]


def test_an_assistant_is_computed_again_once_replay_s_passes_are_over():
    small, large = (replace(RUN, width=width, blocks=2) for width in (2, 2000))
    found = plan(MODEL, small).phases["replay"]
    assert found["assistant"] == assistant_bytes(MODEL, small, 4, 4, back=False)
    found = plan(MODEL, large).phases["replay"]
    whole = assistant_bytes(MODEL, large, 4, 4)
    assert found["assistant"] + found["activations"] + found["logits"] == whole


def test_successes_and_searched_questions_taken_some_at_a_time_need_the_room_of_so_many():
    whole = plan(MODEL, replace(RUN, replayed=5, searched=5)).phases
    for at_once, rows in (
        (1, 1),
        (2, 2),
        (3, 3),
        (4, 3),
        (5, 5),
        (9, 5),
        (0, 5),
    ):  # of 4: three and two, not four and one
        parts = plan(MODEL, replace(RUN, replayed=5, searched=5, at_once=at_once)).phases
        few = plan(MODEL, replace(RUN, replayed=rows, searched=rows)).phases
        assert (parts["replay"], parts["search"]) == (few["replay"], few["search"])
        assert parts["update"] == whole["update"]


def test_phases_that_a_run_does_not_have_need_nothing():
    assert set(plan(MODEL, RUN).phases) == {"start", "rollout", "update", "search", "replay"}
    assert set(plan(MODEL, replace(RUN, replayed=0)).phases) == {"start", "rollout", "update"}
    assert set(plan(MODEL, replace(RUN, needs_gradient=False, searched=0)).phases) == {"start", "rollout", "replay"}


def test_the_total_is_the_fullest_phase_over_what_is_held_and_at_the_start_nothing_is_remembered():
    made = plan(MODEL, RUN)
    held = sum(made.held.values())
    assert made.during("start") == held - made.held["replay and frontier"] + sum(made.phases["start"].values())
    assert made.during("update") == held + sum(made.phases["update"].values())
    assert made.total == max(made.during(phase) for phase in made.phases) == made.during(made.fullest)


@pytest.mark.parametrize(("which", "field"), [("K", "decodes"), ("B", "questions"), ("T", "latents")])
def test_the_largest_that_fits_does_and_one_more_does_not(which, field):
    room = plan(MODEL, RUN).total * 20
    found = largest(MODEL, RUN, which, room, 10**6)
    samples = {"samples": max(found, RUN.samples)} if which == "K" else {}
    more = {"samples": max(found + 1, RUN.samples)} if which == "K" else {}
    assert plan(MODEL, replace(RUN, **{field: found}, **samples)).total <= room
    assert plan(MODEL, replace(RUN, **{field: found + 1}, **more)).total > room
    assert largest(MODEL, RUN, which, room, 2) == 2
    assert largest(MODEL, RUN, which, 0, 100) == 0


def test_a_rank_has_its_share_of_a_step_and_all_that_is_remembered():
    share = of_rank(replace(RUN, questions=4, replayed=5, searched=4), 2)
    assert (share.questions, share.replayed, share.searched) == (2, 3, 2)
    assert plan(MODEL, share).held == plan(MODEL, RUN).held
