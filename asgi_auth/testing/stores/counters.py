"""The contract of a store with counters."""
# ruff: noqa: S101  # the asserts of tests

from typing import Any

import pytest

from asgi_auth.errors import ValidationError
from asgi_auth.store import Counted, Store
from asgi_auth.testing.stores.records import HOUR, NOW, SECOND, UNSTORABLE, together

KEY, END = b"k" * 32, NOW + HOUR


@pytest.mark.anyio
class CounterSuite:
    """Tests of the contract of ``CounterStore``, with the fixtures of ``StoreSuite``, for stores with ``counters``."""

    async def test_counter_counts_by_name_and_key(self, store: Store[Any]) -> None:
        """Each pair of name and key has its own count. Any bytes are a key. The first count sets the end."""
        counters = store.scope("user").counters
        assert await counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(1, END)
        assert await counters.count("mail", KEY, now=NOW + SECOND, expires_at=END + HOUR) == Counted(2, END)
        for name, key in (("mail", b""), ("mail", b"\0"), ("mail", b"\xff" * 64), ("Mail", KEY), ("🙂", KEY)):
            assert await counters.count(name, key, now=NOW, expires_at=END) == Counted(1, END)
        assert await counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(3, END)

    @pytest.mark.parametrize(
        ("offset", "counted"),
        [(-SECOND, Counted(2, END)), (0 * SECOND, Counted(1, END + HOUR)), (SECOND, Counted(1, END + HOUR))],
        ids=["before", "at", "after"],
    )
    async def test_counter_begins_anew_at_its_end(self, store: Store[Any], offset: Any, counted: Counted) -> None:
        """A counter keeps its count until its last second, and starts again with 1 at its end."""
        counters = store.scope("user").counters
        await counters.count("mail", KEY, now=NOW, expires_at=END)
        assert await counters.count("mail", KEY, now=END + offset, expires_at=END + HOUR) == counted

    async def test_counter_loses_nothing_of_many(self, store: Store[Any], second: Store[Any]) -> None:
        """A hundred calls at once, over separate connections, return different numbers; also after the end."""
        counters = [store.scope("user").counters, second.scope("user").counters]
        for now, calls in ((NOW, 100), (END, 20)):
            answers = await together(
                counters[number % 2].count("mail", KEY, now=now, expires_at=now + HOUR) for number in range(calls)
            )
            counted = {answer for answer in answers if not isinstance(answer, Exception)}
            assert counted == {Counted(number, now + HOUR) for number in range(1, calls + 1)}

    async def test_counter_is_looked_at(self, store: Store[Any]) -> None:
        """``get`` returns the count until the last second and does not count, in a transaction and outside."""
        scoped = store.scope("user")
        assert await scoped.counters.get("mail", KEY, now=NOW) is None
        for _ in range(3):
            await scoped.counters.count("mail", KEY, now=NOW, expires_at=END)
        assert await scoped.counters.get("mail", KEY, now=NOW) == Counted(3, END)
        assert await scoped.counters.get("mail", KEY, now=END - SECOND) == Counted(3, END)
        assert await scoped.counters.get("mail", KEY, now=END) is None
        assert await scoped.counters.get("mail", KEY + b"k", now=NOW) is None
        assert await scoped.counters.get("Mail", KEY, now=NOW) is None
        async with scoped.transaction() as work:
            await work.counters.uncount("mail", KEY, now=NOW)
            assert await work.counters.get("mail", KEY, now=NOW) == Counted(2, END)
        assert await scoped.counters.get("mail", KEY, now=NOW) == Counted(2, END)

    async def test_counter_takes_one_back(self, store: Store[Any]) -> None:
        """``uncount`` lowers the count by one, never below 0. It does nothing if there is no counter."""
        counters = store.scope("user").counters
        await counters.uncount("mail", KEY, now=NOW)
        for _ in range(3):
            await counters.count("mail", KEY, now=NOW, expires_at=END)
        await counters.uncount("mail", KEY, now=NOW)
        assert await counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(3, END)
        for _ in range(5):
            await counters.uncount("mail", KEY, now=NOW)
        assert await counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(1, END)

    async def test_counter_takes_nothing_back_from_what_ran_out(self, store: Store[Any]) -> None:
        """``uncount`` does not change a counter that ended at this second."""
        counters = store.scope("user").counters
        for _ in range(3):
            await counters.count("mail", KEY, now=NOW, expires_at=END)
        for offset in (0 * SECOND, SECOND):
            await counters.uncount("mail", KEY, now=END + offset)
        assert await counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(4, END)
        await counters.uncount("mail", KEY, now=END - SECOND)
        assert await counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(4, END)

    async def test_counter_counts_and_takes_back_at_once(self, store: Store[Any], second: Store[Any]) -> None:
        """In any order, the count is the number of counts minus the number of uncounts."""
        counters = [store.scope("user").counters, second.scope("user").counters]
        for _ in range(10):
            await counters[0].count("mail", KEY, now=NOW, expires_at=END)
        calls = [counters[number % 2].uncount("mail", KEY, now=NOW) for number in range(10)]
        more = [counters[number % 2].count("mail", KEY, now=NOW, expires_at=END) for number in range(10)]
        answers = await together([*calls, *more])
        assert not any(isinstance(answer, Exception) for answer in answers)
        assert await counters[1].count("mail", KEY, now=NOW, expires_at=END) == Counted(11, END)

    async def test_counter_is_undone_with_its_transaction(self, store: Store[Any]) -> None:
        """FT-2: a block that raises undoes its counts."""
        scoped = store.scope("user")
        await scoped.counters.count("mail", KEY, now=NOW, expires_at=END)

        async def fail() -> None:
            async with scoped.transaction() as work:
                assert await work.counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(2, END)
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert await scoped.counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(2, END)

    async def test_counter_refuses_unstorable_names(self, store: Store[Any]) -> None:
        """RP-8: a name that some database cannot store is not written, and ``uncount`` of it does nothing."""
        counters = store.scope("user").counters
        for text in UNSTORABLE:
            with pytest.raises(ValidationError):
                await counters.count(text, KEY, now=NOW, expires_at=END)
            await counters.uncount(text, KEY, now=NOW)
            assert await counters.get(text, KEY, now=NOW) is None

    async def test_counter_prune_takes_what_ran_out(self, store: Store[Any]) -> None:
        """Ended counters are deleted in batches. Running ones stay."""
        counters = store.scope("user").counters
        await counters.count("mail", KEY, now=NOW, expires_at=NOW + SECOND)
        for offset in range(3):
            await counters.count("mail", bytes([offset]), now=NOW - HOUR, expires_at=NOW - offset * SECOND)
        assert [await counters.prune(now=NOW, limit=2) for _ in range(3)] == [2, 1, 0]
        assert await counters.count("mail", KEY, now=NOW, expires_at=END) == Counted(2, NOW + SECOND)

    async def test_counter_of_another_subject_is_none(self, store: Store[Any]) -> None:
        """TK-23: each subject has its own counter of a name and key. Other subjects neither change nor prune it."""
        users, admins = store.scope("user").counters, store.scope("admin").counters
        await users.count("mail", KEY, now=NOW, expires_at=END)
        await admins.uncount("mail", KEY, now=NOW)
        assert await admins.get("mail", KEY, now=NOW) is None
        assert await admins.prune(now=END + HOUR, limit=9) == 0
        assert await admins.count("mail", KEY, now=NOW, expires_at=END) == Counted(1, END)
        assert await users.count("mail", KEY, now=NOW, expires_at=END) == Counted(2, END)
        await admins.count("later", KEY, now=NOW, expires_at=END + HOUR)
        assert [await admins.prune(now=END + HOUR, limit=1) for _ in range(3)] == [1, 1, 0]
