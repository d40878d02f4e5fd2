"""Resets of a forgotten password: a link by mail, and a notice after the reset."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_auth.acts import Proof
from asgi_auth.limits import Limit
from asgi_auth.mailing import Link
from asgi_auth.phases import Accepted, PhaseRequest, SignedIn
from asgi_auth.protocol.fields import Problems, read_texts
from asgi_auth.runtime.lanes import Notice
from asgi_auth.services import Services
from asgi_auth.store import Work
from asgi_auth.strategies.password.own_tokens import OwnTokens
from asgi_auth.strategies.password.params import check_all, read_new_password
from asgi_auth.types import Client

if TYPE_CHECKING:
    from asgi_auth.strategies.password.options import Password, Resettable

RESET = "reset"
"""Purpose of the tokens of mailed links. The text of the mail is in ``mail_texts``, under this name."""

MAILS = 5
"""The most links that one address gets within the lifetime of a link, unless the options have a limit."""


class Resetting:
    """Sends the links, and sets the new passwords."""

    def __init__(self, options: "Password", resettable: "Resettable", services: Services[Any]) -> None:
        self._options, self._resettable, self._services = options, resettable, services
        self._sender = services.mailing.sender(resettable.sender, parameter="resettable.sender")
        self._link = Link(strategy=options.name, phase="reset", parameter="reset_token", url=resettable.url)
        self._limit = resettable.mails or Limit(MAILS, resettable.token_lifetime)
        self._tokens = OwnTokens(options.name, services)

    async def request(self, params: Mapping[str, Any]) -> Accepted:
        """Mail a link to the user with this address or user name, after the response. No user: nothing is sent.

        Raises:
            ValidationError: the field is missing or invalid.
        """
        field = self._options.identity_field
        text = read_texts(params, required=[field])[field]
        self._services.accounts.normalise(field, text)
        return Accepted(then=partial(self._send_link, field, text))

    async def _send_link(self, field: str, text: str) -> None:
        services, name = self._services, self._options.name
        found = await services.accounts.find(field, text)
        if found is None or found.account.disabled_at is not None:
            return
        address = services.values(found.user).get("email")
        # Counted only for a user with an address. Otherwise every address that a stranger types would leave a row.
        if address is not None:
            lifetime, data = self._resettable.token_lifetime, {"factor": name}
            await services.mailing.send(
                self._sender,
                found.user,
                purpose=RESET,
                address=address,
                token=partial(services.tokens.issue, RESET, account=found.account, lifetime=lifetime, extra_data=data),
                link=self._link,
                quotas=[services.mailing.quota(f"{name}.mail", address, self._limit)],
            )

    async def user(self, request: PhaseRequest) -> Any:
        """The user of the link that was opened or whose form was sent. Raises InvalidTokenError if it is not live."""
        sent = request.params if request.method == "POST" else request.query
        token = sent.get("reset_token")
        found, _ = await self._tokens.owner(RESET, token if isinstance(token, str) else "")
        return found.user

    async def reset(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted | SignedIn:
        """Set a new password with the token of a mailed link. Every session of the user ends.

        Raises:
            InvalidTokenError: the token is not live.
            ValidationError: the new password is rejected; the token stays usable.
            OverloadedError, StoreUnavailableError: nothing was changed; the token stays usable.
        """
        token = read_texts(params, required=["reset_token"])["reset_token"]
        problems, password = Problems(), ""
        with problems.noted():
            password = read_new_password(params, repeated=self._options.repeat_password)
        await check_all(problems, params, self._services.passwords, client=client)
        found, _ = await self._tokens.owner(RESET, token)
        began = self._services.clock()

        async def spend(work: Work[Any]) -> None:
            await self._services.tokens.consume(work, RESET, token)
            # The notice is sent even if the client hangs up, since a thief may have used the link.
            work.after_commit(Notice(partial(self._send_notice, found.user), found.account.user_id))

        changed = await self._services.accounts.set_password(
            found, password, client=client, strategy=self._options.name, spend=spend, proves_mailbox=True
        )
        if self._resettable.sign_in:
            proof = Proof(account=changed.account, factor=self._options.name, at=began)
            return SignedIn(changed.user, proof, settled=True)
        return Accepted(user=changed.user)

    async def _send_notice(self, user: Any) -> None:
        address = self._services.values(user).get("email")
        if address is not None:  # no quota: a thief must not be able to use it up
            await self._services.mailing.send(self._sender, user, purpose="password_changed", address=address)
