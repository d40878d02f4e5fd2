"""The mails of a confirmation, links and notices, and their quotas. The methods are meant to be jobs.

The purposes in ``opts``: the add-on's name (prove this address), ``<field>_change`` (prove the new one),
``email_change_asked``, ``email_changed`` (to the earlier address, with an undo link), ``already_registered``,
``email_in_use`` (to the owner of an address that another user asked for).
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_auth.accounts import as_of
from asgi_auth.claims import is_moved
from asgi_auth.limits import Limit
from asgi_auth.mailing import Link, Token
from asgi_auth.services import Services
from asgi_auth.store import Found, TokenRecord
from asgi_auth.tokens import IssuedToken
from asgi_auth.types import Account

if TYPE_CHECKING:
    from asgi_auth.add_ons.confirmation.options import Confirmation


class ConfirmationMails:
    """The mails of one ``Confirmation``, and the purposes of its tokens."""

    def __init__(self, options: "Confirmation", services: Services[Any]) -> None:
        self._options, self._services = options, services
        self._sender = services.mailing.sender(options.sender, parameter=f"{options.name}.sender")
        part = options.name
        self._link = Link(strategy=part, phase="confirm", parameter="confirmation_token", url=options.url)
        self._undo_link = Link(strategy=part, phase="undo", parameter="undo_token", url=options.undo_url)
        # Names of strategies and add-ons have no dot, so other tokens cannot have these purposes.
        self.first, self.undoing = f"{options.name}.first", f"{options.name}.undo"
        self.changes = {field: f"{options.name}.change.{field}" for field in options.monitor_fields}

    # --- links

    async def ask(self, user: Any, account: Account) -> None:
        """Mail the user a link to prove the address. *account* is as it was when the mail became necessary."""
        address = self._services.values(user).get("email")
        if address is not None:
            token = self._issuing(self.first, account, {"email": address})
            await self._send_link(user, token, self.first, purpose=self._options.name, address=address)

    async def ask_about_change(self, user: Any, issued: IssuedToken) -> None:
        """Mail a link to the new value to prove it."""
        [(field, value)] = issued.record.extra_data["fields"].items()
        owner = await self._owner(issued.record, field, value)
        if owner is not None:
            # The change still waits like any other, so that the client cannot tell. Its link is not sent.
            await self._services.tokens.retire_older(issued.record)
            await self._notify(owner, purpose="email_in_use")
        else:
            await self._send_link(user, issued, issued.record.purpose, purpose=f"{field}_change", address=value)

    async def ask_again(self, found: Found[Any], record: TokenRecord) -> None:
        """Mail a new link in place of that of *record*. A change that invalidates the old link invalidates it too."""
        [(field, value)] = record.extra_data["fields"].items()
        owner = await self._owner(record, field, value)
        if owner is not None:
            await self._notify(owner, purpose="email_in_use")
        else:
            token = self._issuing(record.purpose, as_of(found.account, record.stamp), record.extra_data)
            await self._send_link(found.user, token, record.purpose, purpose=f"{field}_change", address=value)

    def _issuing(self, token_purpose: str, account: Account, data: Mapping[str, Any]) -> Token:
        lifetime, issue = self._options.lifetime, self._services.tokens.issue
        return partial(issue, token_purpose, account=account, lifetime=lifetime, extra_data=data)

    async def _owner(self, record: TokenRecord, field: str, value: str) -> Found[Any] | None:
        """Another account that has the new address. An account that only changed to it loses it to the first proof."""
        owner = await self._services.accounts.find("email", value) if field == "email" else None
        if owner is None or owner.account.user_id == record.user_id or is_moved(owner.account):
            return None
        return owner

    async def _send_link(self, user: Any, token: Token, token_purpose: str, *, purpose: str, address: str) -> None:
        # By purpose: links that other users cause, by changing to this address, must not use up the quota of its owner.
        quota = self._services.mailing.quota
        await self._services.mailing.send(
            self._sender,
            user,
            purpose=purpose,
            address=address,
            token=token,
            link=self._link,
            quotas=[
                quota(f"{token_purpose}.link", address, Limit(1, self._options.resend_after)),
                quota(f"{token_purpose}.mail", address, self._options.mails),
            ],
        )

    async def offer_undo(self, user: Any, issued: IssuedToken) -> None:
        """Tell the earlier address about the change, with an undo link. No quota, because a thief could use it up."""
        await self._services.mailing.send(
            self._sender,
            user,
            purpose="email_changed",
            address=issued.record.extra_data["email"],
            token=issued,
            link=self._undo_link,
            retires=False,
        )

    # --- notices

    async def tell_asked(self, found: Found[Any]) -> None:
        """Tell a user, at the current address, that a change of it was asked for.

        The quota is counted by account. Only its user can use it up, and has caused as many warnings by then.
        """
        await self._notify(found, purpose="email_change_asked", key=found.account.user_id)

    async def tell_registered(self, found: Found[Any]) -> None:
        """Tell the owner of an address that a client tried to register with it."""
        await self._notify(found, purpose="already_registered")

    async def _notify(self, found: Found[Any], *, purpose: str, key: str | None = None) -> None:
        """Send a notice, unless the quota of this purpose for *key* is used up (None: for the address)."""
        address, mailing = self._services.values(found.user).get("email"), self._services.mailing
        if address is not None:
            quota = mailing.quota(f"{self._options.name}.{purpose}", address, self._options.mails)
            quotas = [quota if key is None else quota._replace(key=key)]
            await mailing.send(self._sender, found.user, purpose=purpose, address=address, quotas=quotas)
