"""asgi_auth.runtime.turns: queues that are served in turn, and the items that leave when the queues are full."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.runtime.turns import Turns


def drained(turns: Turns[str | None, str]) -> list[str | None]:
    """Take every waiting item, in order."""
    return [turns.take() for _ in range(len(turns))]


def test_lines_are_served_in_turn() -> None:
    """The keys are served in turn, one item each; None is a key like any other."""
    turns = Turns[str | None, str](10)
    for key, item in [("a", "a1"), ("a", "a2"), ("a", "a3"), (None, "n1"), ("b", "b1"), (None, "n2")]:
        assert turns.put(key, item) is None
    assert drained(turns) == ["a1", "n1", "b1", "a2", "n2", "a3"]
    assert len(turns) == 0


def test_take_skips_items_that_are_not_ready() -> None:
    """take returns None if no item waits or is ready; an item that is not ready keeps its place."""
    turns = Turns[str | None, str](10)
    assert turns.take() is None
    for item in ("a1", "a2", "b1"):
        turns.put(item[0], item)
    assert turns.take(lambda item: item.endswith("3")) is None
    assert turns.take(lambda item: item.endswith("2")) == "a2"
    assert drained(turns) == ["b1", "a1"]


def test_clear_returns_every_item() -> None:
    """clear returns the waiting items and makes room."""
    turns = Turns[str | None, str](2)
    turns.put("a", "a1")
    turns.put(None, "n1")
    assert list(turns) == turns.clear() == ["a1", "n1"]
    assert (len(turns), turns.put("b", "b1"), drained(turns)) == (0, None, ["b1"])


def test_longest_line_makes_room() -> None:
    """The newest item of the longest line leaves for an item of a shorter line; a new item of its own is refused."""
    turns = Turns[str | None, str](3)
    for item in ("a1", "a2", "a3"):
        assert turns.put("a", item) is None
    assert turns.put("a", "a4") == "a4"
    assert turns.put("b", "b1") == "a3"
    assert turns.put("b", "b2") == "b2"  # its line would be as long as the longest
    assert drained(turns) == ["a1", "b1", "a2"]


def test_last_of_several_longest_lines_makes_room() -> None:
    """The line whose turn is last loses its newest item: the others have waited longer."""
    turns = Turns[str | None, str](4)
    for item in ("a1", "a2", "b1", "b2"):
        assert turns.put(item[0], item) is None
    assert turns.put("c", "c1") == "b2"
    assert drained(turns) == ["a1", "b1", "c1", "a2"]


def test_without_room_every_item_is_refused() -> None:
    """With a size of 0, put refuses every item."""
    assert Turns[str | None, str](0).put("a", "a1") == "a1"


def test_share_limits_the_items_of_a_key() -> None:
    """An item over the share of its key is refused, although there is room."""
    turns = Turns[str | None, str](10, share=2)
    assert [turns.put("a", item) for item in ("a1", "a2", "a3")] == [None, None, "a3"]
    assert turns.put("b", "b1") is None


def test_item_can_be_removed() -> None:
    """A removed item is not served, and its place is free; removing an unknown item changes nothing."""
    turns = Turns[str | None, str](2)
    turns.put("a", "a1")
    turns.put("a", "a2")
    turns.remove("a", "a1")
    turns.remove("a", "a1")
    turns.remove("b", "a2")
    assert turns.put("b", "b1") is None
    turns.remove("b", "b1")
    assert drained(turns) == ["a2"]


@given(st.lists(st.tuples(st.sampled_from(["put", "take", "remove"]), st.sampled_from("abc")), max_size=60))
def test_turns_never_lose_an_item(acts: list[tuple[str, str]]) -> None:
    """Each item waits, was served, was removed or was returned; sizes stay in bounds, and lines keep their order."""
    turns, waiting, number = Turns[str, tuple[str, int]](4, share=3), dict[str, deque[tuple[str, int]]](), 0
    for act, key in acts:
        line = waiting.setdefault(key, deque())
        if act == "put":
            number += 1
            left = turns.put(key, (key, number))
            line.append((key, number))
            if left is not None:
                assert waiting[left[0]].pop() == left
        elif act == "remove" and line:
            turns.remove(key, line.pop())
        elif act == "take" and (item := turns.take()) is not None:
            assert waiting[item[0]].popleft() == item
        assert len(turns) == sum(map(len, waiting.values())) <= 4
        assert all(len(each) <= 3 for each in waiting.values())
