"""asgi_auth.runtime.turns: lines that are served in turn, and who has to leave when there is no room."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from asgi_auth.runtime.turns import Turns


def drained(turns: Turns[str | None, str]) -> list[str | None]:
    """Who waits, in the order of their turns."""
    return [turns.take() for _ in range(len(turns))]


def test_lines_are_served_in_turn() -> None:
    """However many wait behind one key, the next key is served after one of them; None is a key like any other."""
    turns = Turns[str | None, str](10)
    for key, item in [("a", "a1"), ("a", "a2"), ("a", "a3"), (None, "n1"), ("b", "b1"), (None, "n2")]:
        assert turns.put(key, item) is None
    assert drained(turns) == ["a1", "n1", "b1", "a2", "n2", "a3"]
    assert len(turns) == 0


def test_nobody_to_take() -> None:
    """There is no turn where nobody waits, or nobody who is ready: who is not is passed over, and keeps the place."""
    turns = Turns[str | None, str](10)
    assert turns.take() is None
    for item in ("a1", "a2", "b1"):
        turns.put(item[0], item)
    assert turns.take(lambda item: item.endswith("3")) is None
    assert turns.take(lambda item: item.endswith("2")) == "a2"
    assert drained(turns) == ["b1", "a1"]


def test_everybody_leaves() -> None:
    """Who waits is told, and there is room again."""
    turns = Turns[str | None, str](2)
    turns.put("a", "a1")
    turns.put(None, "n1")
    assert list(turns) == turns.clear() == ["a1", "n1"]
    assert (len(turns), turns.put("b", "b1"), drained(turns)) == (0, None, ["b1"])


def test_longest_line_makes_room() -> None:
    """The newest item of the longest line leaves for one of a shorter line; its own next one is refused."""
    turns = Turns[str | None, str](3)
    for item in ("a1", "a2", "a3"):
        assert turns.put("a", item) is None
    assert turns.put("a", "a4") == "a4"
    assert turns.put("b", "b1") == "a3"
    assert turns.put("b", "b2") == "b2"  # it would have as many then
    assert drained(turns) == ["a1", "b1", "a2"]


def test_of_several_longest_lines_the_last_one_makes_room() -> None:
    """Who is served next has waited longest."""
    turns = Turns[str | None, str](4)
    for item in ("a1", "a2", "b1", "b2"):
        assert turns.put(item[0], item) is None
    assert turns.put("c", "c1") == "b2"
    assert drained(turns) == ["a1", "b1", "c1", "a2"]


def test_no_room_at_all() -> None:
    """Where nobody may wait, nobody does."""
    assert Turns[str | None, str](0).put("a", "a1") == "a1"


def test_key_has_its_share() -> None:
    """Beyond its share an item of a key is refused, although there is room."""
    turns = Turns[str | None, str](10, share=2)
    assert [turns.put("a", item) for item in ("a1", "a2", "a3")] == [None, None, "a3"]
    assert turns.put("b", "b1") is None


def test_item_may_be_removed() -> None:
    """An item that left is not served, and its place is free; removing another changes nothing."""
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
    """Whoever was put in waits, was served, removed or told to leave; within the bounds, and each line in its order."""
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
