"""What a confirmation mails: links and notices, and how many of them. Meant to be jobs.

The purposes in ``opts``: the add-on's name (prove this address), ``<field>_change`` (prove the new one),
``email_change_asked``, ``email_changed`` (to the earlier address, with a way back), ``already_registered``,
``email_in_use`` (to the owner of an address that somebody else asked for).
"""

from typing import TYPE_CHECKING, Any

from asgi_auth.accounts import as_of
from asgi_auth.claims import is_moved
from asgi_auth.limits import Limit
from asgi_auth.services import Services
from asgi_auth.store import Found, TokenRecord
from asgi_auth.tokens import IssuedToken
from asgi_auth.types import Account

if TYPE_CHECKING:
    from asgi_auth.add_ons.confirmation.options import Confirmation


class Letters:
    """The mails of one ``Confirmation``, and the purposes of its tokens."""

    def __init__(self, options: "Confirmation", services: Services[Any]) -> None:
        self._options, self._services = options, services
        self._sender = services.sender(options.sender, parameter=f"{options.name}.sender")
        # A dot is in no name of a strategy or add-on: no other token has such a purpose.
        self.first, self.undoing = f"{options.name}.first", f"{options.name}.undo"
        self.changes = {field: f"{options.name}.change.{field}" for field in options.monitor_fields}

    # --- links

    async def ask(self, user: Any, account: Account) -> None:
        """Ask whoever reads the mail of a user to prove the address; *account* as it was when there was cause to."""
        address = self._services.values(user).get("email")
        if address is None or not await self._may_link(self.first, address):
            return
        lifetime = self._options.lifetime
        issued = await self._services.tokens.issue(
            self.first, account=account, lifetime=lifetime, extra_data={"email": address}
        )
        await self._send_link(user, issued, purpose=self._options.name, address=address)

    async def ask_about_change(self, user: Any, issued: IssuedToken) -> None:
        """Ask whoever can be reached by the new value to prove it."""
        [(field, value)] = issued.record.extra_data["fields"].items()
        owner = await self._owner(issued.record, field, value)
        if owner is not None:
            # Nobody is told, so the change waits like any other; but its link is in nobody's hands.
            await self._services.tokens.retire_older(issued.record)
            await self._notify(owner, purpose="email_in_use")
        elif await self._may_link(issued.record.purpose, value):
            await self._send_link(user, issued, purpose=f"{field}_change", address=value)

    async def ask_again(self, found: Found[Any], record: TokenRecord) -> None:
        """The same once more, with a new link in place of that of *record*; it dies with whatever ends the old one."""
        [(field, value)] = record.extra_data["fields"].items()
        owner = await self._owner(record, field, value)
        if owner is not None:
            await self._notify(owner, purpose="email_in_use")
        elif await self._may_link(record.purpose, value):
            issued = await self._services.tokens.issue(
                record.purpose,
                account=as_of(found.account, record.stamp),
                lifetime=self._options.lifetime,
                extra_data=record.extra_data,
            )
            await self._send_link(found.user, issued, purpose=f"{field}_change", address=value)

    async def _owner(self, record: TokenRecord, field: str, value: str) -> Found[Any] | None:
        """Another account that has the new address; one that only changed to it loses it to who confirms it."""
        owner = await self._services.accounts.find("email", value) if field == "email" else None
        if owner is None or owner.account.user_id == record.user_id or is_moved(owner.account):
            return None
        return owner

    async def _send_link(self, user: Any, issued: IssuedToken, *, purpose: str, address: str) -> None:
        options = self._options
        url = self._services.link(options.url, options.name, "confirm", confirmation_token=issued.token)
        sent = await self._services.deliver(
            self._sender, user, purpose=purpose, address=address, issued=issued, url=url
        )
        if not sent:
            for name, _ in self._limits(issued.record.purpose):
                await self._services.limiter.give_back(name, self._services.address_key(address))

    async def offer_undo(self, user: Any, issued: IssuedToken) -> None:
        """Tell the earlier address that it counts no more, with a way back. No quota: nobody may use that up."""
        address = issued.record.extra_data["email"]
        url = self._services.link(self._options.undo_url, self._options.name, "undo", undo_token=issued.token)
        await self._services.deliver(
            self._sender, user, purpose="email_changed", address=address, issued=issued, url=url, retires=False
        )

    # --- notices

    async def tell_asked(self, found: Found[Any]) -> None:
        """Tell a user, at the address in force, that a change of it was asked for.

        Counted by account: only who acts in it can use that up, and has caused as many warnings by then.
        """
        await self._notify(found, purpose="email_change_asked", key=found.account.user_id)

    async def tell_registered(self, found: Found[Any]) -> None:
        """Tell the owner of an address that somebody wanted to register with it."""
        await self._notify(found, purpose="already_registered")

    async def _notify(self, found: Found[Any], *, purpose: str, key: str | None = None) -> None:
        """Send a notice, unless there were too many of this purpose for *key* (None: for the address)."""
        address, counter = self._services.values(found.user).get("email"), f"{self._options.name}.{purpose}"
        key = key or self._services.address_key(address or "")
        if address is None or not await self._services.limiter.allows(counter, key, self._options.mails):
            return
        if not await self._services.deliver(self._sender, found.user, purpose=purpose, address=address):
            await self._services.limiter.give_back(counter, key)

    # --- how many

    def _limits(self, purpose: str) -> tuple[tuple[str, Limit], ...]:
        # By purpose: the links that others have sent to an address, by changing to it, must not use up its own.
        return (f"{purpose}.link", Limit(1, self._options.resend_after)), (f"{purpose}.mail", self._options.mails)

    async def _may_link(self, purpose: str, address: str) -> bool:
        for name, limit in self._limits(purpose):
            if not await self._services.limiter.allows(name, self._services.address_key(address), limit):
                return False
        return True
