"""Rows that go on from the same prompt, put side by side."""

from collections import Counter
from collections.abc import Sequence


def arrange(prompts_N: Sequence[int], far: int, own: int, kept: Sequence[int] = ()) -> tuple[list[int], int, list[int]]:
    """Groups of equal size, one prompt each, and every row's slot; groups that are not full have empty slots.

    Of all sizes the one with which fewest positions are held: a slot takes its own, empty or not, and a group its
    prompt's; among equals the largest.

    Args:
        prompts_N: which prompt each row goes on from.
        far: positions of a prompt.
        own: positions of a row.
        kept: prompts that have a group even without rows.

    Returns:
        Each group's prompt, the slots of a group, and each row's slot (group · size + place).
    """
    rows = Counter(prompts_N)
    counts = {prompt: max(1, rows[prompt]) for prompt in sorted({*prompts_N, *kept})}
    groups_of = {size: [-(-count // size) for count in counts.values()] for size in {1, *counts.values()}}
    size = min(groups_of, key=lambda size: (sum(groups_of[size]) * (far + size * own), -size))
    groups = [prompt for prompt, count in counts.items() for _ in range(-(-count // size))]
    first = {prompt: groups.index(prompt) for prompt in counts}
    seen: Counter[int] = Counter()
    slots = []
    for prompt in prompts_N:
        slots.append(first[prompt] * size + seen[prompt])  # a prompt's groups follow one another
        seen[prompt] += 1
    return groups, size, slots
