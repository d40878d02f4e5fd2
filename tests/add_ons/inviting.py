"""Helpers for the tests of invitations: an application that invites, and a strategy with an outside provider."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgi_auth.acts import Attempt, Draft, Proof
from asgi_auth.add_ons import Invitation
from asgi_auth.errors import AuthenticationFailedError, AuthError
from asgi_auth.hooks import Hook
from asgi_auth.phases import Accepted, Outcome, Phase, PhaseRequest, SignedIn
from asgi_auth.protocol.fields import read_texts
from asgi_auth.senders import MemorySender
from asgi_auth.services import Services
from asgi_auth.store import InvitationRecord, Work
from asgi_auth.strategies.password import Password, Resettable
from asgi_auth.types import EMPTY, Client, FrozenDict, User
from tests.support import EMAIL, PASSWORD, LocalAuthentication, mailed_token, make_auth

ADMIN = "admin@mail.example.org"
ROLE = FrozenDict({"role": "editor"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """Sign in with an account of an outside provider; the first sign-in creates the user here."""

    name: str = "provider"

    def bind(self, services: Services[Any]) -> "ProviderActions":
        return ProviderActions(self.name, services)


class ProviderActions:
    """``subject`` identifies the user, ``address`` is the user's mailbox; a real provider would send both."""

    def __init__(self, name: str, services: Services[Any]) -> None:
        self._name, self._services = name, services
        self.phases: Sequence[Phase] = (Phase(name="callback", handle=self._callback_phase),)

    async def callback(self, params: Mapping[str, Any], *, client: Client = Client()) -> SignedIn | Accepted:
        """Return the user that the provider names; create the user if there is none."""
        texts = read_texts(params, required=["subject"], optional=["address"])
        accounts, began = self._services.accounts, self._services.clock()
        found = await accounts.find("username", texts["subject"])
        registered = found is None
        if found is None:
            fields = {"username": texts["subject"], **({"email": texts["address"]} if "address" in texts else {})}
            draft = Draft(
                act="create",
                strategy=self._name,
                fields=fields,
                params=params,
                provided=True,
                confirmed_at=began if "address" in texts else None,  # the provider vouches for it
                client=client,
            )
            found = await self._services.registrations.register(draft, password=None)
        if found is None:
            return Accepted()
        proof = Proof(account=found.account, factor=self._name, at=began)
        return SignedIn(found.user, proof, registered=registered, settled=registered)

    async def _callback_phase(self, request: PhaseRequest) -> Outcome:
        return await self.callback(request.params, client=request.client)


class Proving(Hook):
    """Reject users whose address is unconfirmed; keep the pending fields of each draft."""

    name = "proving"
    proves_addresses = True

    def __init__(self) -> None:
        self.pending: list[Mapping[str, Any]] = []

    async def admit(self, attempt: Attempt) -> None:
        if attempt.user.email is not None and attempt.proof.account.confirmed_at is None:
            raise AuthenticationFailedError("unproven")

    async def within(self, event: Any, work: Work[Any]) -> None:
        draft = getattr(event, "draft", None)
        if draft is not None and draft.pending:
            self.pending.append(draft.pending)


class Roles:
    """A ``grant`` that records its calls; it raises ``refusal`` instead if that is set."""

    def __init__(self) -> None:
        self.granted: list[tuple[str, dict[str, Any]]] = []
        self.refusal: Exception | None = None

    async def __call__(self, user: Any, data: Mapping[str, Any], work: Work[Any]) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.granted.append((user.id, dict(data)))


def by_staff(inviter: Any, address: str, grant: Mapping[str, Any]) -> bool:
    """A policy: the admin may invite, but may not grant the role of an owner."""
    return inviter.email == ADMIN and grant.get("role") != "owner"


def make_inviting(
    directory: Path,
    *,
    roles: Roles | None = None,
    invitation: Mapping[str, Any] = EMPTY,
    hooks: Sequence[Any] = (),
    sender: Any = None,
    **options: Any,
) -> LocalAuthentication:
    """An ``Authentication`` with ``Invitation``, the password strategy and ``Provider``.

    Args:
        directory: The directory of ``app.db``.
        roles: Records what the invitations grant.
        invitation: Options of ``Invitation``.
        hooks: Add-ons that precede ``Invitation``.
        sender: Sends every mail.
        options: Options of ``Authentication``.
    """
    sender = sender or MemorySender()
    chosen = {"sender": sender, "may_invite": by_staff, "grant": roles or Roles(), **invitation}
    strategies = [Password(resettable=Resettable(sender=sender)), Provider()]
    return make_auth(
        directory, **{"sender": sender, "add_ons": [*hooks, Invitation(**chosen)], "strategies": strategies, **options}
    )


async def admin_of(auth: LocalAuthentication) -> User:
    """Return the admin; create the account if there is none."""
    found = await auth.accounts.find("email", ADMIN)
    return found.user if found else await auth.accounts.create({"email": ADMIN}, password=PASSWORD, confirmed=True)


async def member_of(auth: LocalAuthentication, email: str = EMAIL, *, confirmed: bool = True) -> User:
    """Create a user with a password."""
    return await auth.accounts.create({"email": email}, password=PASSWORD, confirmed=confirmed)


async def invite(auth: LocalAuthentication, email: str = EMAIL, **options: Any) -> str:
    """Let the admin invite *email* and return the token of the mail."""
    await auth.add_on("invitation").invite(await admin_of(auth), email, **options)
    return newest_token(auth)


def newest_token(auth: LocalAuthentication) -> str:
    """Return the token of the newest invitation's mail."""
    return mailed_token(auth, parameter="invitation_token")


async def invitations(auth: LocalAuthentication) -> Sequence[InvitationRecord]:
    """Return every stored invitation, newest first."""
    return await auth.services.store.invitations.list()


async def states(auth: LocalAuthentication) -> list[str]:
    """Return the state of every invitation, newest first."""
    return [each.status for each in await invitations(auth)]


def joining(token: str, password: str = PASSWORD, **more: str) -> dict[str, str]:
    """Return the parameters of a registration with an invitation."""
    return {"invitation_token": token, "password": password, "password_confirmation": password, **more}


async def refused(act: Awaitable[Any]) -> AuthError | None:
    """Return the error that *act* raises; None if it succeeds."""
    try:
        await act
    except AuthError as error:
        return error
    return None
