"""The hook of confirmation: it asks for proofs, holds back changes, and admits users with a proven address."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from asgi_auth.acts import Attempt, Draft, FactorRequired
from asgi_auth.add_ons.confirmation.mails import ConfirmationMails
from asgi_auth.errors import AuthenticationFailedError, OverloadedError, ValidationError
from asgi_auth.events import Event, UserChangeAsked, UserChanged, UserConfirmed, UserCreated
from asgi_auth.messages import NOT_TEXT
from asgi_auth.runtime.lanes import Notice
from asgi_auth.services import Services
from asgi_auth.store import Found, Work
from asgi_auth.types import Account

if TYPE_CHECKING:
    from asgi_auth.add_ons.confirmation.options import Confirmation

RIVALS_REMEMBERED = timedelta(days=365)
"""How long the store remembers that an unproven address was registered more than once."""


class Watching:
    """The hook methods of a ``Confirmation``."""

    def __init__(self, options: "Confirmation", services: Services[Any], mails: ConfirmationMails) -> None:
        self._options, self._services, self._mails = options, services, mails

    # --- before an act

    async def prepare(self, draft: Draft) -> Draft:
        """Hold back values that must be proven first. An address that a strategy vouches for is proven."""
        options = self._options
        if draft.strategy in options.auto_confirm:
            unproven = draft.confirmed_at is None and "email" not in draft.pending  # a hook may want a proof of it
            trusted = options.confirms_email and unproven
            return replace(draft, confirmed_at=self._services.clock()) if trusted else draft
        if draft.act == "create":
            return self._keep_back_new(draft) if options.confirm_on_create else draft
        vouched = draft.confirmed_at is not None
        return self._keep_back_changed(draft) if options.confirm_on_update and not vouched else draft

    def _keep_back_new(self, draft: Draft) -> Draft:
        if draft.strategy is None and draft.confirmed_at is not None:  # the application vouches
            return draft
        # The address is written at once, because the account is found by it. It grants nothing until it is proven.
        fields = [field for field in self._options.monitor_fields if field != "email"]
        return self._keep_back(draft, {field: draft.fields[field] for field in fields if draft.fields.get(field)})

    def _keep_back_changed(self, draft: Draft) -> Draft:
        given = {
            field: self._normal(field, draft.fields[field])
            for field in self._options.monitor_fields
            if draft.fields.get(field) is not None
        }
        return self._keep_back(draft, given)

    def _keep_back(self, draft: Draft, given: Mapping[str, Any]) -> Draft:
        """*draft* without the *given* fields. Changed values wait for their proof."""
        now = {} if draft.user is None else self._services.values(draft.user)
        pending = {field: value for field, value in given.items() if value != now.get(field)}
        for field, value in pending.items():
            if not isinstance(value, str):
                raise ValidationError("a value that is not text", fields={field: NOT_TEXT})
        return replace(
            draft,
            fields={field: value for field, value in draft.fields.items() if field not in given},
            pending={**draft.pending, **pending},
            notes={**draft.notes, self._options.name: tuple(pending)},
        )

    def _normal(self, field: str, value: Any) -> Any:
        is_address = field == "email" and isinstance(value, str)
        return self._services.accounts.normalise(field, value)[0] if is_address else value

    # --- a registration with an address that is taken

    async def taken(self, draft: Draft, account: Account) -> bool:
        """Hide it from the client. The owner of the address gets a notice, or another link to prove it (EN-4)."""
        if not self._options.confirms_email:
            return False
        found = await self._services.accounts.find("email", draft.fields["email"])
        if found is not None:
            # Counted before the answer, because the user may open the link of an earlier registration at once.
            store, now = self._services.store, self._services.clock()
            rivals = self._rivals(found.account, draft.fields["email"])
            await store.counters.count(*rivals, now=now, expires_at=now + RIVALS_REMEMBERED)
            await self._services.commit.schedule(partial(self._answer_rival, draft, found.account.user_id))
        return self._options.required

    async def _answer_rival(self, draft: Draft, user_id: str) -> None:
        found = await self._services.accounts.get(user_id)
        if found is None or found.account.disabled_at is not None:
            return
        proven = found.account.confirmed_at is not None
        if proven or await self._is_same_password(draft, found.account):
            rivals = self._rivals(found.account, draft.fields["email"])
            await self._services.store.counters.uncount(*rivals, now=self._services.clock())
        if not self._options.required:
            return  # the client that registered was told
        if proven:
            await self._mails.tell_registered(found)
        else:
            await self._mails.ask(found.user, found.account)

    async def _is_same_password(self, draft: Draft, account: Account) -> bool:
        """Whether the registration has the password of the account. Then it is the same person, not a rival."""
        with suppress(OverloadedError):
            return draft.is_password_of is not None and await draft.is_password_of(account)
        return False

    def _rivals(self, account: Account, address: str) -> tuple[str, bytes]:
        # A plain hash, so that a new secret keeps the count. The id is random, and the store has the address anyway.
        key = f"{account.user_id} {self._services.mailing.address_key(address)}"
        return f"{self._options.name}.rivals", sha256(key.encode("utf-8", "surrogatepass")).digest()

    async def is_contested(self, found: Found[Any], work: Work[Any]) -> bool:
        """Whether the address was registered more than once, with different passwords."""
        address = self._services.values(found.user).get("email")
        if address is None or not self._options.confirms_email:
            return False
        rivals, now = self._rivals(found.account, address), self._services.clock()
        counted = await work.counters.count(*rivals, now=now, expires_at=now + RIVALS_REMEMBERED)
        await work.counters.uncount(*rivals, now=now)  # this check is not a registration
        return counted.count > 1

    # --- signing in

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        """Admit only a user with a proof. ``confirmed_at`` must be a datetime; any other value is no proof."""
        proven = isinstance(attempt.proof.account.confirmed_at, datetime)
        if self._options.required and not proven and not await self._is_completing(attempt):
            raise AuthenticationFailedError(
                "the address is not confirmed", cause="unproven_address", user_id=attempt.proof.account.user_id
            )
        return None

    async def _is_completing(self, attempt: Attempt) -> bool:
        """Whether the user has no address, and has a link that works only after a sign-in."""
        if self._services.values(attempt.user).get("email") is not None:
            return False
        account, tokens = attempt.proof.account, self._services.store.tokens
        record = await tokens.latest(self._mails.changes["email"], account.user_id, now=self._services.clock())
        return record is not None and record.stamp == account.stamp and record.extra_data.get("bound") is True

    # --- within an act

    async def within(self, event: Event, work: Work[Any]) -> None:
        """Make tokens for the values that wait for a proof. They are mailed after the commit."""
        if isinstance(event, UserCreated):
            await self._keep_pending(event, work)
            if self._options.confirm_on_create:
                self._ask_if_unproven(event, work)
        elif isinstance(event, UserChangeAsked):
            await self._keep_pending(event, work)
        elif isinstance(event, UserChanged):
            if self._options.confirms_email and "email" in event.before and not event.reverted:
                await self._offer_undo(event, work)
                self._ask_if_unproven(event, work)
        elif isinstance(event, UserConfirmed) and event.claimed:
            # A person who had the account before the owner of the mailbox must not undo the claim.
            await work.tokens.retire(self._mails.undoing, event.user_id or "")

    def _ask_if_unproven(self, event: UserCreated | UserChanged, work: Work[Any]) -> None:
        if self._options.confirms_email and event.account.confirmed_at is None:
            work.after_commit(partial(self._mails.ask, event.user, event.account))

    async def _keep_pending(self, event: UserCreated | UserChangeAsked, work: Work[Any]) -> None:
        kept_back = event.draft.notes.get(self._options.name, ())
        for field in self._options.monitor_fields:
            if field not in event.draft.pending:
                continue
            data: dict[str, Any] = {"fields": {field: event.draft.pending[field]}}
            if field not in kept_back:  # held back by another hook: only a session of the user may complete it
                data["bound"] = True
            issued = self._services.tokens.make(
                self._mails.changes[field],
                account=event.account,
                lifetime=self._options.lifetime,
                extra_data=data,
            )
            await work.tokens.insert(issued.record)
            work.after_commit(partial(self._mails.ask_about_change, event.user, issued))
            if field == "email" and event.draft.act == "change" and event.account.confirmed_at is not None:
                told = partial(self._mails.tell_asked, Found(event.user, event.account))
                work.after_commit(Notice(told, event.account.user_id))

    async def _offer_undo(self, event: UserChanged, work: Work[Any]) -> None:
        """Offer an undo link to the owner of the earlier, confirmed address, unless the application vouches."""
        earlier, vouched = event.before["email"], event.draft.strategy is None and event.draft.confirmed_at is not None
        if earlier is None or not event.was_confirmed or vouched:
            return
        purpose, now = self._mails.undoing, self._services.clock()
        newest = await work.tokens.latest(purpose, event.account.user_id, now=now)
        issued = self._services.tokens.make(
            purpose,
            account=event.account,
            lifetime=self._options.undo_lifetime,
            extra_data={"email": earlier, "depth": 0 if newest is None else newest.extra_data["depth"] + 1},
            outlives_changes=True,
        )
        await work.tokens.insert(issued.record)
        work.after_commit(Notice(partial(self._mails.offer_undo, event.user, issued), event.account.user_id))
