"""A second factor for tests, built only on the published contracts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asgi_auth.acts import Attempt, FactorRequired
from asgi_auth.errors import AuthenticationFailedError
from asgi_auth.hooks import Hook
from asgi_auth.phases import Form, FormField, Outcome, Phase, PhaseRequest, SignedIn
from asgi_auth.protocol.fields import read_texts
from asgi_auth.services import Services
from asgi_auth.types import Client

FORM = Form(title="Enter your code", fields=(FormField(name="code", label="Code", inputmode="numeric"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A second factor for enrolled users: the code is ``code-`` and the user's address."""

    name: str = "code"
    enrolled: frozenset[str] = frozenset()

    def bind(self, services: Services[Any]) -> "CodeActions":
        return CodeActions(self, services)


class CodeActions(Hook):
    """Requires the code after any other factor and completes the pending sign-in."""

    def __init__(self, options: Code, services: Services[Any]) -> None:
        self.name, self._options, self._services = options.name, options, services
        secrets = frozenset({"code", "pending_token"})
        verify = Phase("verify", self._verify_phase, who="pending", form=FORM, page=True, secrets=secrets)
        self.phases: Sequence[Phase] = (verify,)

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        owed = attempt.user.email in self._options.enrolled and self.name not in attempt.proof.factors
        return FactorRequired((self.name,)) if owed else None

    async def verify(
        self, params: Mapping[str, Any], *, pending: str | None = None, client: Client = Client()
    ) -> SignedIn:
        """Complete the pending sign-in if the code is right. A wrong code leaves it pending."""
        code = read_texts(params, required=["code"])["code"]
        waiting = await self._services.sessions.pending(pending)
        if code != f"code-{waiting.user.email}":
            raise AuthenticationFailedError("wrong code")
        return waiting.complete(self.name, self._services.clock())

    async def _verify_phase(self, request: PhaseRequest) -> Outcome:
        return await self.verify(request.params, pending=request.pending, client=request.client)
