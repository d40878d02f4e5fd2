"""Resets of a forgotten password: a link by mail, and a notice once it was used."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_auth.accounts import as_of
from asgi_auth.acts import Proof
from asgi_auth.errors import ConfigurationError, InvalidTokenError, ValidationError
from asgi_auth.limits import Limit
from asgi_auth.phases import Accepted, SignedIn
from asgi_auth.protocol.fields import read_texts
from asgi_auth.runtime.lanes import Notice
from asgi_auth.sender import Sender
from asgi_auth.services import Services
from asgi_auth.store import Found, Work
from asgi_auth.types import Client

if TYPE_CHECKING:
    from asgi_auth.strategies.password.options import Password, Resettable

RESET = "reset"
"""Purpose of the tokens of mailed links."""


class Resetting:
    """The half of the actions that replaces a forgotten password, and what both halves are made of."""

    def __init__(self, options: "Password", services: Services[Any]) -> None:
        self._options, self._services = options, services
        self._counter = f"{options.name}.mail"
        self._sender: Sender | None = None
        if options.resettable is not None:
            self._sender = services.sender(options.resettable.sender, parameter="resettable.sender")

    async def reset_request(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Send a link to whom the identity names, after the response; do nothing, silently, if it names nobody.

        Raises:
            ValidationError: the identity is missing or cannot be one.
        """
        field = self._options.identity_field
        text = read_texts(params, required=[field])[field]
        self._services.accounts.normalise(field, text)
        return Accepted(then=partial(self._send_reset, field, text))

    async def _send_reset(self, field: str, text: str) -> None:
        resettable, sender = self._reset_options()
        found = await self._services.accounts.find(field, text)
        if found is None or found.account.disabled_at is not None:
            return
        address = self._services.values(found.user).get("email")
        # Counted once it is known that somebody is mailed to: else whatever address a stranger types would leave a row.
        if address is not None and await self._may_mail(resettable, address):
            await self._send_link(resettable, sender, found, address)

    async def _may_mail(self, resettable: "Resettable", address: str) -> bool:
        limit = Limit(resettable.mails, resettable.token_lifetime)
        return await self._services.limiter.allows(self._counter, self._services.address_key(address), limit)

    async def _send_link(self, resettable: "Resettable", sender: Sender, found: Found[Any], address: str) -> None:
        name, services, sent = self._options.name, self._services, False
        try:
            issued = await services.tokens.issue(
                RESET, account=found.account, lifetime=resettable.token_lifetime, extra_data={"factor": name}
            )
            url = services.link(resettable.url, name, "reset", reset_token=issued.token)
            sent = await services.deliver(sender, found.user, purpose=RESET, address=address, issued=issued, url=url)
        finally:
            if not sent:  # else a mail server that is down would use up what the address may get
                await services.limiter.give_back(self._counter, services.address_key(address))

    async def reset(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted | SignedIn:
        """Set a new password with the token of a mailed link; whatever was signed in is not any more.

        Raises:
            InvalidTokenError: the token is not live.
            ValidationError: the new password does not do; the token stays usable.
            OverloadedError, StoreUnavailableError: nothing was changed; the token stays usable.
        """
        resettable, _ = self._reset_options()
        token = read_texts(params, required=["reset_token"])["reset_token"]
        password = self._new_password(params)
        found, _ = await self._owner(RESET, token)
        began = self._services.clock()

        async def spend(work: Work[Any]) -> None:
            await self._spend(RESET, token, work)
            # Told even if the thief of a link hangs up.
            work.after_commit(Notice(partial(self._send_notice, found.user), found.account.user_id))

        changed = await self._services.accounts.set_password(
            found, password, client=client, strategy=self._options.name, spend=spend, proves_mailbox=True
        )
        if resettable.sign_in:
            return SignedIn(changed.user, self._proof(changed, began), settled=True)
        return Accepted(user=changed.user)

    async def _send_notice(self, user: Any) -> None:
        _, sender = self._reset_options()
        address = self._services.values(user).get("email")
        if address is not None:  # no quota: a thief must not be able to use it up
            await self._services.deliver(sender, user, purpose="password_changed", address=address)

    def _reset_options(self) -> tuple["Resettable", Sender]:
        if self._options.resettable is None or self._sender is None:
            raise ConfigurationError("resettable: this strategy cannot reset passwords")
        return self._options.resettable, self._sender

    # --- parts

    def _proof(self, found: Found[Any], began: datetime) -> Proof:
        return Proof(account=found.account, factor=self._options.name, at=began)

    async def _owner(self, purpose: str, token: str) -> tuple[Found[Any], Mapping[str, Any]]:
        """The user of a live token, with the stamp that it copied: a change since then is a change too late."""
        record = await self._services.tokens.peek(purpose, token)
        if record.extra_data.get("factor") != self._options.name:
            raise InvalidTokenError("the token belongs to another strategy")
        found = None if record.user_id is None else await self._services.accounts.get(record.user_id)
        if found is None:
            raise InvalidTokenError("the user of the token is gone")
        return Found(found.user, as_of(found.account, record.stamp)), record.extra_data

    async def _spend(self, purpose: str, token: str, work: Work[Any]) -> None:
        await self._services.tokens.consume(work, purpose, token)

    def _new_password(self, params: Mapping[str, Any]) -> str:
        confirmation = ["password_confirmation"] if self._options.confirmation_required else []
        texts = read_texts(params, required=["password", *confirmation])
        if confirmation and texts["password"] != texts["password_confirmation"]:
            fields = {"password_confirmation": "The two passwords are not the same."}
            raise ValidationError("passwords differ", fields=fields)
        return texts["password"]
