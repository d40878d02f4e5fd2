"""asgi_auth.types: values without behaviour, and without secrets in their repr."""

import json
import operator
import pickle
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from asgi_auth.acts import Draft, Proof
from asgi_auth.phases import Accepted, PhaseRequest, TokenIssued
from asgi_auth.sessions import PendingSignIn
from asgi_auth.store import TokenRecord
from asgi_auth.tokens import IssuedToken
from asgi_auth.types import (
    EMPTY,
    AccessToken,
    Account,
    AnonymousUser,
    AuthState,
    Client,
    FrozenDict,
    Session,
    User,
    UserMixin,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SESSION = Session(
    id="s1", user_id="u1", stamp=b"stamp", created_at=NOW, last_seen_at=NOW, idle_expires_at=NOW, expires_at=NOW
)
ACCOUNT = Account(user_id="u1", stamp=b"hidden-stamp", password_hash="hidden-hash")


def test_empty_is_an_empty_hashable_mapping() -> None:
    """The default of a mapping field is empty, hashable, and cannot be written."""
    assert dict(EMPTY) == {}
    assert len(EMPTY) == 0
    assert list(EMPTY) == []
    assert hash(EMPTY) == hash(EMPTY)
    assert repr(EMPTY) == "{}"
    with pytest.raises(KeyError, match="missing"):
        EMPTY["missing"]


def test_frozen_dict_is_a_read_only_dict() -> None:
    """A FrozenDict compares, works with JSON and pickle and copies like a dict, and refuses every change."""
    frozen = FrozenDict(name="Ada")
    assert frozen == {"name": "Ada"}
    assert json.dumps(frozen) == '{"name": "Ada"}'
    assert pickle.loads(pickle.dumps(frozen)) == frozen  # noqa: S301  # our own
    assert hash(frozen) == hash(FrozenDict(name="Bob"))
    for change in (
        lambda: frozen.update(name="Eve"),
        lambda: frozen.pop("name"),
        lambda: frozen.setdefault("role", "admin"),
        lambda: operator.setitem(frozen, "name", "Eve"),
        lambda: operator.delitem(frozen, "name"),
        lambda: operator.ior(frozen, {"name": "Eve"}),  # type: ignore[no-untyped-call]  # typeshed has no types for it
        frozen.popitem,
        frozen.clear,
    ):
        with pytest.raises(TypeError, match="read-only"):
            change()
    assert dict(frozen) == {"name": "Ada"}


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (User(id="7", email="alice@mail.example.org", username="alice", created_at=NOW), "alice@mail.example.org"),
        (User(id="7", username="alice", created_at=NOW), "alice"),
        (User(id="7", created_at=NOW), "7"),
    ],
)
def test_user_has_the_attributes_of_starlette(user: User, name: str) -> None:
    """A user is authenticated; display_name is the address, the user name or the id; identity is the id."""
    assert user.is_authenticated is True
    assert user.display_name == name
    assert user.identity == "7"


def test_user_mixin_requires_only_an_id() -> None:
    """An application's own class gets these attributes from its id, which may have any type."""

    class Member(UserMixin):
        id = 12

    assert (Member().identity, Member().display_name, Member().is_authenticated) == ("12", "12", True)


def test_anonymous_user_has_empty_attributes() -> None:
    """The anonymous user has the attributes of a user, all of them empty."""
    nobody = AnonymousUser()
    assert nobody.is_authenticated is False
    assert (nobody.display_name, nobody.identity, nobody.id, nobody.email, nobody.username) == (
        "",
        "",
        None,
        None,
        None,
    )
    assert repr(nobody) == "AnonymousUser()"


def test_only_the_anonymous_user_is_false() -> None:
    """``if not request.user`` is true only for the anonymous user; a user with any id is true."""

    class Member(UserMixin):
        id = 0

    assert [bool(user) for user in (AnonymousUser(), Member(), User(id="", created_at=NOW))] == [False, True, True]


def test_access_token_is_text_that_carries_its_session() -> None:
    """The access token is the JWT as text; cookie, session and expiry are attributes."""
    token = AccessToken("a.b.c", cookie="cookie-value", session=SESSION, expires_at=NOW)
    assert token == "a.b.c"
    assert (token.cookie, token.session, token.expires_at) == ("cookie-value", SESSION, NOW)


@pytest.mark.parametrize(
    "value",
    [
        AccessToken("hidden-jwt", cookie="hidden-cookie", session=SESSION, expires_at=NOW),
        ACCOUNT,
        Proof(account=ACCOUNT, factor="password", at=NOW),
        SESSION,
        Client(session_hashes=(b"hidden-hash",)),
        Draft(act="create", strategy=None, fields={"email": "hidden"}, params={"password": "hidden"}),
        PhaseRequest(params={"password": "hidden"}, query_string=b"token=hidden", pending="hidden"),
        TokenIssued(None, "hidden"),
        Accepted(user="hidden"),
        PendingSignIn(
            None,
            Proof(account=ACCOUNT, factor="password", at=NOW),
            ("code",),
            remember=False,
            registered=False,
            replaces=None,
            spend=cast("Any", "hidden"),
        ),
        IssuedToken(
            "hidden",
            TokenRecord(
                token_hash=b"hidden",
                purpose="reset",
                user_id="u1",
                stamp=b"hidden",
                created_at=NOW,
                expires_at=NOW,
                extra_data={"factor": "hidden"},
            ),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_repr_hides_secrets(value: object) -> None:
    """The repr contains no secret and no value that may be one."""
    assert "hidden" not in repr(value)
    assert "stamp" not in repr(value)


def test_proof_has_every_factor_with_its_time() -> None:
    """The factors of a proof are the earlier ones and its own."""
    earlier = datetime(2029, 12, 31, tzinfo=UTC)
    proof = Proof(account=ACCOUNT, factor="code", at=NOW, earlier={"password": earlier})
    assert proof.factors == {"password": earlier, "code": NOW}


def test_state_of_a_request_is_anonymous_by_default() -> None:
    """The default state of a request is anonymous."""
    state = PhaseRequest().state
    assert isinstance(state, AuthState)
    assert state.user.is_authenticated is False
    assert (state.session, state.method, state.error) == (None, None, None)
