"""A second factor made of nothing but the published contracts, for tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asgi_auth.accounts import as_of
from asgi_auth.acts import Attempt, FactorRequired, Proof
from asgi_auth.errors import AuthenticationFailedError
from asgi_auth.hooks import Hook
from asgi_auth.phases import Outcome, Phase, PhaseRequest, SignedIn
from asgi_auth.protocol.fields import read_texts
from asgi_auth.services import Services
from asgi_auth.sessions import PENDING_FACTOR
from asgi_auth.store import Found, Work
from asgi_auth.types import Client


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A second factor for whoever has one: the code is ``code-`` and the user's address."""

    name: str = "code"
    enrolled: frozenset[str] = frozenset()

    def bind(self, services: Services[Any]) -> "CodeActions":
        return CodeActions(self, services)


class CodeActions(Hook):
    """Asks for the code after any other factor, and finishes the sign-in that waits for it."""

    def __init__(self, options: Code, services: Services[Any]) -> None:
        self.name, self._options, self._services = options.name, options, services
        self.phases: Sequence[Phase] = (Phase(name="verify", method="POST", handle=self._verify_phase),)

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        owed = attempt.user.email in self._options.enrolled and self.name not in attempt.proof.factors
        return FactorRequired((self.name,)) if owed else None

    async def verify(
        self, params: Mapping[str, Any], *, pending: str | None = None, client: Client = Client()
    ) -> SignedIn:
        """Whoever the pending sign-in is about, once the code is right. A wrong one leaves it pending."""
        code = read_texts(params, required=["code"])["code"]
        record = await self._services.tokens.peek(PENDING_FACTOR, pending or "")
        found: Found[Any] | None = await self._services.accounts.get(record.user_id or "")
        if found is None or code != f"code-{found.user.email}":
            raise AuthenticationFailedError("wrong code")
        earlier = {name: datetime.fromisoformat(at) for name, at in record.extra_data["factors"].items()}
        account = as_of(found.account, record.stamp)
        proof = Proof(account=account, factor=self.name, at=self._services.clock(), earlier=earlier)

        async def spend(work: Work[Any]) -> None:
            await self._services.tokens.consume(work, PENDING_FACTOR, pending or "")

        return SignedIn(found.user, proof, remember=record.extra_data["remember"], spend=spend)

    async def _verify_phase(self, request: PhaseRequest) -> Outcome:
        return await self.verify(request.params, pending=request.pending, client=request.client)
