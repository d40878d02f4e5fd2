"""The actions of mailed links: confirm, undo."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asgi_auth.accounts import as_of
from asgi_auth.acts import Proof
from asgi_auth.add_ons.confirmation.mails import ConfirmationMails
from asgi_auth.changes import hold
from asgi_auth.claims import address_freed, is_moved
from asgi_auth.errors import AuthenticationFailedError, InvalidTokenError
from asgi_auth.phases import Accepted, SignedIn
from asgi_auth.protocol.fields import read_texts
from asgi_auth.services import Services
from asgi_auth.store import Found, TokenRecord, Work
from asgi_auth.types import Client, Session

if TYPE_CHECKING:
    from asgi_auth.add_ons.confirmation.options import Confirmation


class Proving:
    """The token of a link proves access to the mailbox of its address."""

    def __init__(self, options: "Confirmation", services: Services[Any], mails: ConfirmationMails) -> None:
        self._options, self._services, self._mails = options, services, mails

    async def confirm(
        self, params: Mapping[str, Any], *, session: Session | None = None, client: Client = Client()
    ) -> Accepted | SignedIn:
        """Apply the change of a mailed link.

        The first proof of the mailbox of an account is a claim (AC-1). It ends every session but *session*, every other
        link and every pending change. The password and the extra fields stay, unless another person may have chosen
        them: if the address was registered more than once, with different passwords, they are removed, and the owner
        sets a password by a reset. If an account changed to an address, only a session of that account can prove it.
        Without a session the account returns to the address that it proved last.

        Args:
            params: ``confirmation_token``.
            session: A session of the user of the link. It is kept.
            client: The client of the request.

        Raises:
            InvalidTokenError: the token is not live, or the account has changed since; or the account returned to an
                earlier address, which ``fields`` tells the client.
            IdentityTakenError: another user has this address by now; nothing was changed.
            AuthenticationFailedError: the link requires that its user is signed in.
            ValidationError: the token is missing.
            StoreUnavailableError: nothing was changed; the token stays usable.
        """
        token, began = read_texts(params, required=["confirmation_token"])["confirmation_token"], self._services.clock()
        record = await self.peek(token)
        own = session if session is not None and session.user_id == record.user_id else None
        if record.extra_data.get("bound") and own is None:
            raise AuthenticationFailedError(
                "the link is only for its user, signed in", cause="not_signed_in", user_id=record.user_id
            )

        async def act(work: Work[Any]) -> Found[Any] | None:
            held = await self._hold(work, record)
            await self._services.tokens.consume(work, record.purpose, token)
            effect = self._claim if record.purpose == self._mails.first else self._confirm_change
            return await effect(work, held, record, own, client)

        found = await self._services.commit(act)
        if found is None:
            raise address_freed()
        if self._options.sign_in and own is None:
            return SignedIn(found.user, Proof(account=found.account, factor=self._options.name, at=began), settled=True)
        return Accepted(user=found.user)

    async def peek(self, token: str) -> TokenRecord:
        """The record of the token of a link. Raises InvalidTokenError if it is not live."""
        for purpose in (self._mails.first, *self._mails.changes.values()):
            try:
                return await self._services.tokens.peek(purpose, token)
            except InvalidTokenError:
                continue
        raise InvalidTokenError("no live confirmation token")

    async def _hold(self, work: Work[Any], record: TokenRecord) -> Found[Any]:
        """Lock the user of a token before the token is consumed, so that two tokens of one user cannot deadlock."""
        held = await hold(work, record.user_id or "")
        if held is None:
            raise InvalidTokenError("the user of the token is gone", cause="unknown_user")
        return held

    async def _claim(
        self, work: Work[Any], held: Found[Any], record: TokenRecord, own: Session | None, client: Client
    ) -> Found[Any] | None:
        """Claim the account and return it; None if its address was only freed."""
        if self._services.values(held.user).get("email") != record.extra_data["email"]:
            raise InvalidTokenError("the link was for another address")  # AC-4
        if own is None and is_moved(held.account):
            await self._services.claims.free(
                work, record.extra_data["email"], strategy=self._options.name, client=client
            )
            return None
        claimed = await self._services.claims.claim(
            work,
            Found(held.user, as_of(held.account, record.stamp)),
            acting=own,
        )
        if claimed is None:
            raise InvalidTokenError("the account is confirmed, or has changed in the meantime", cause="account_changed")
        return claimed

    async def _confirm_change(
        self, work: Work[Any], held: Found[Any], record: TokenRecord, own: Session | None, client: Client
    ) -> Found[Any]:
        return await self._services.claims.confirm_change(
            work,
            held.account.user_id,
            record.extra_data["fields"],
            stamp=record.stamp,
            acting=own,
            strategy=self._options.name,
            client=client,
        )

    # --- undo

    async def undo(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Undo a change of the address, by the link in the notice to the earlier address.

        The earlier address is current again, and confirmed. The person who changed it knew the password. Therefore the
        password, every session and every pending change are removed, and the owner sets a new password by a reset.
        Undo links of later changes are revoked. Undo links of earlier changes stay valid for their owners.

        Args:
            params: ``undo_token``.
            client: The client of the request.

        Raises:
            InvalidTokenError: the token is not live.
            IdentityTakenError: another user has proven this address by now; nothing was changed.
            ValidationError: the token is missing.
            StoreUnavailableError: nothing was changed; the token stays usable.
        """
        token, purpose = read_texts(params, required=["undo_token"])["undo_token"], self._mails.undoing
        record = await self._services.tokens.peek(purpose, token)

        async def act(work: Work[Any]) -> Found[Any]:
            held = await self._hold(work, record)
            await self._services.tokens.consume(work, purpose, token)
            await self._drop_later(work, record)
            address: str = record.extra_data["email"]
            return await self._services.claims.revert_change(
                work, held.account.user_id, address, strategy=self._options.name, client=client
            )

        return Accepted(user=(await self._services.commit(act)).user)

    async def _drop_later(self, work: Work[Any], record: TokenRecord) -> None:
        """Consume the undo links of later changes, because the person who made this change may have caused them."""
        now, user_id = self._services.clock(), record.user_id or ""
        while (newest := await work.tokens.latest(record.purpose, user_id, now=now)) is not None:
            if newest.extra_data["depth"] < record.extra_data["depth"]:
                return
            await work.tokens.consume(newest.purpose, newest.token_hash, now=now)
