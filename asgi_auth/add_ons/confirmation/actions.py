"""The actions of confirmation: confirm, resend, change_email, cancel, undo, pending."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_auth.acts import Attempt, Draft, FactorRequired
from asgi_auth.add_ons.confirmation.forms import (
    ADDRESS,
    CANCEL,
    CHANGE_EMAIL,
    CONFIRM,
    RESEND,
    RESEND_ALL,
    UNDO,
    address_text,
    confirm_form,
)
from asgi_auth.add_ons.confirmation.mails import ConfirmationMails
from asgi_auth.add_ons.confirmation.proving import Proving
from asgi_auth.add_ons.confirmation.watching import Watching
from asgi_auth.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    InvalidTokenError,
    NotFreshError,
    ValidationError,
)
from asgi_auth.events import Event, UserChangeCancelled
from asgi_auth.hooks import Hook
from asgi_auth.messages import REQUIRED, Message, said
from asgi_auth.phases import Accepted, Form, Outcome, Phase, PhaseRequest, SignedIn, View
from asgi_auth.protocol.fields import read_texts
from asgi_auth.services import Services
from asgi_auth.store import Found, TokenRecord, Work
from asgi_auth.types import Account, Activity, Client, Session

if TYPE_CHECKING:
    from asgi_auth.add_ons.confirmation.options import Confirmation

_WRONG_PASSWORD = Message("password.wrong", "The password is wrong.")


class ConfirmationActions(Hook):
    """The actions of the add-on, with or without HTTP."""

    def __init__(self, options: "Confirmation", services: Services[Any]) -> None:
        self.name, self.needs = options.name, options.needs
        self.proves_addresses = options.confirms_email and options.required and options.confirm_on_create
        self._options, self._services = options, services
        self._check()
        self._mails = ConfirmationMails(options, services)
        self._watching = Watching(options, services, self._mails)
        self._proving = Proving(options, services, self._mails)
        self.phases = self._make_phases()

    def _check(self) -> None:
        options = self._options
        if options.confirms_email and "email" not in self._services.store.users.identity_fields:
            raise ConfigurationError("confirmation.monitor_fields: the store cannot find users by email")
        for hook in self._services.hooks:
            if isinstance(hook, ConfirmationActions):
                for field in set(hook._options.monitor_fields) & set(options.monitor_fields):
                    raise ConfigurationError(f"confirmation.monitor_fields: {hook.name!r} has {field!r} already")

    secrets = frozenset({"confirmation_token", "undo_token", "current_password"})
    """Parameters that hooks never see, even if a phase is disabled."""

    def _make_phases(self) -> list[Phase]:
        phases = [
            Phase(
                name="confirm",
                handle=self._confirm_phase,
                form=CONFIRM,
                form_for=self._confirm_form,
                page=True,
                secrets=frozenset({"confirmation_token"}),
                who="known",
            ),
            Phase(
                name="resend",
                handle=self._resend_phase,
                form=RESEND if self._options.confirms_email else RESEND_ALL,
                page=self._options.confirms_email,
                who="known",
            ),
            Phase(name="cancel", handle=self._cancel_phase, form=CANCEL, who="session"),
        ]
        if self._options.confirms_email:
            secrets = frozenset({"undo_token"})
            phases.append(Phase(name="undo", handle=self._undo_phase, form=UNDO, page=True, secrets=secrets))
        if self._options.confirms_email and self._options.confirm_on_update:
            phases.append(
                Phase(
                    name="change_email",
                    handle=self._change_email_phase,
                    form=CHANGE_EMAIL,
                    form_for=self._change_email_form,
                    page=True,
                    secrets=frozenset({"current_password"}),
                    who="session",
                    fresh=self._options.change_fresh,
                )
            )
        return phases

    # --- as a hook

    async def prepare(self, draft: Draft) -> Draft:
        """Hold back values that must be proven first."""
        return await self._watching.prepare(draft)

    async def taken(self, draft: Draft, account: Account) -> bool:
        """Tell the owner of the address about the registration, but not the client that registers."""
        return await self._watching.taken(draft, account)

    async def is_contested(self, found: Found[Any], work: Work[Any]) -> bool:
        """Whether the address was registered more than once, with different passwords."""
        return await self._watching.is_contested(found, work)

    async def admit(self, attempt: Attempt) -> FactorRequired | None:
        """Refuse users who have not proven their address, if that is required."""
        return await self._watching.admit(attempt)

    async def within(self, event: Event, work: Work[Any]) -> None:
        """Make tokens for the values that wait for a proof. They are mailed after the commit."""
        await self._watching.within(event, work)

    # --- proofs

    async def confirm(
        self, params: Mapping[str, Any], *, session: Session | None = None, client: Client = Client()
    ) -> Accepted | SignedIn:
        """Apply the change of a mailed link, as ``Proving.confirm`` says."""
        return await self._proving.confirm(params, session=session, client=client)

    async def undo(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Undo a change of the address, as ``Proving.undo`` says."""
        return await self._proving.undo(params, client=client)

    # --- resend

    async def resend(self, params: Mapping[str, Any], *, user: Any = None, client: Client = Client()) -> Accepted:
        """Mail the link again, after the response. If nothing waits for a proof, no mail is sent and no error raised.

        Args:
            params: ``email``, the address of an account that waits for its first proof.
            user: Without ``email``: the user whose links to mail, also those of pending changes.
            client: The client of the request.

        Raises:
            ValidationError: both are missing, or the address is invalid.
        """
        texts = read_texts(params, optional=["email"]) if self._options.confirms_email else {}
        if "email" in texts:
            self._services.accounts.normalise("email", texts["email"])
            return Accepted(then=partial(self._resend_to, texts["email"]))
        if user is None:
            raise ValidationError("no address and no user to mail to", fields={"email": REQUIRED})
        return Accepted(then=partial(self._resend_all, self._services.accounts.user_id(user)))

    async def _resend_to(self, address: str) -> None:
        found = await self._services.accounts.find("email", address)
        if found is not None:
            await self._ask_again(found)

    async def _ask_again(self, found: Found[Any]) -> None:
        if found.account.confirmed_at is None and found.account.disabled_at is None:
            await self._mails.ask(found.user, found.account)

    async def _resend_all(self, user_id: str) -> None:
        found = await self._services.accounts.get(user_id)
        if found is None:
            return
        if self._options.confirms_email:
            await self._ask_again(found)
        for record in await self._waiting(user_id):
            await self._mails.ask_again(found, record)

    # --- a pending change

    async def pending(self, user: Any) -> dict[str, Any] | None:
        """The fields of a user that wait for a proof; None if there are none. Show them only to this user."""
        records = await self._waiting(self._services.accounts.user_id(user))
        return {field: value for record in records for field, value in record.extra_data["fields"].items()} or None

    async def _waiting(self, user_id: str) -> list[TokenRecord]:
        tokens, now = self._services.store.tokens, self._services.clock()
        records = [await tokens.latest(purpose, user_id, now=now) for purpose in self._mails.changes.values()]
        return [record for record in records if record is not None]

    async def cancel(self, user: Any, *, client: Client = Client()) -> Accepted:
        """Drop the values that wait for a proof and revoke their links.

        Raises StoreUnavailableError if the database does not answer; nothing was changed.
        """
        user_id = self._services.accounts.user_id(user)

        async def act(work: Work[Any]) -> None:
            for purpose in self._mails.changes.values():
                await work.tokens.retire(purpose, user_id)
            work.emit(UserChangeCancelled(at=self._services.clock(), user_id=user_id))

        await self._services.commit(act)
        return Accepted(user=user)

    # --- change the address

    async def change_email(
        self, user: Any, params: Mapping[str, Any], *, session: Session | None, client: Client = Client()
    ) -> Accepted:
        """Ask to change the address. The new address gets a link, the current one a notice.

        The current address stays until the new one is confirmed. The answer is the same if another user has the new
        address; that user gets a notice.

        Args:
            user: The user whose address changes.
            params: ``email``, and ``current_password`` if the user has one.
            session: The session of the user; it must be fresh. None: the application itself has checked that.
            client: The client of the request.

        Raises:
            NotFreshError: the last proof in *session* is too old: sign in again, or reauthenticate.
            ValidationError: the address is invalid, or the current password is wrong.
            RateLimitedError: too many wrong passwords.
            InvalidTokenError: *session* has ended in the meantime.
            OverloadedError, StoreUnavailableError: nothing was changed.
        """
        if session is not None and not self._services.sessions.is_fresh(session, self._options.change_fresh):
            raise NotFreshError("the last proof is too old")
        address = read_texts(params, required=["email"])["email"]
        self._services.accounts.normalise("email", address)
        found = await self._services.accounts.get(self._services.accounts.user_id(user))
        if found is None or (session is not None and session.stamp != found.account.stamp):
            raise InvalidTokenError("the acting session ended in the meantime", cause="session_ended")
        if found.account.password_hash is not None:
            await self._check_password(found.account, params, client)
        await self._services.accounts.change(
            found.user, {"email": address}, acting=session, client=client, strategy=self.name
        )
        return Accepted(user=found.user)

    async def _check_password(self, account: Account, params: Mapping[str, Any], client: Client) -> None:
        password, user_id = read_texts(params, required=["current_password"])["current_password"], account.user_id
        try:
            async with self._services.tries.attempt("current_password", [user_id]):
                await self._verify(account, password, client)
        except ValueError as exc:
            raise ValidationError("current password refused", fields={"current_password": said(exc)}) from exc
        except AuthenticationFailedError as exc:  # a signed-in user is told which field is wrong
            fields = {"current_password": _WRONG_PASSWORD}
            raise ValidationError(exc.reason, fields=fields, cause=exc.cause, user_id=user_id) from exc

    async def _verify(self, account: Account, password: str, client: Client) -> None:
        verified = await self._services.passwords.verify(password, account.password_hash, client=client.address)
        if not verified.valid:
            user_id = account.user_id
            raise AuthenticationFailedError("wrong current password", cause="wrong_password", user_id=user_id)

    # --- pages

    async def account(self, user: Any) -> View | None:
        """The address, whether it is confirmed, and its pending change."""
        found = await self._services.accounts.get(self._services.accounts.user_id(user))
        if found is None or not self._options.confirms_email:
            return None
        address = self._services.values(found.user).get("email")
        waiting = (await self.pending(user) or {}).get("email")
        if address is None and waiting is None:
            return None
        unproven = address is not None and found.account.confirmed_at is None
        forms = [replace(RESEND_ALL, action=Activity(self.name, "resend"))] if waiting or unproven else []
        forms += [replace(CANCEL, action=Activity(self.name, "cancel"))] if waiting else []
        return View({}, title=ADDRESS, text=address_text(address, waiting, unproven=unproven), forms=tuple(forms))

    async def _confirm_form(self, request: PhaseRequest) -> Form:
        sent = request.params if request.method == "POST" else request.query
        token = sent.get("confirmation_token")
        record = await self._proving.peek(token if isinstance(token, str) else "")
        return confirm_form(record, first=record.purpose == self._mails.first)

    async def _change_email_form(self, request: PhaseRequest) -> Form:
        """The form, without the current password for a user who has none."""
        found = await self._services.accounts.get(self._services.accounts.user_id(request.state.user))
        has_password = found is None or found.account.password_hash is not None
        return CHANGE_EMAIL if has_password else replace(CHANGE_EMAIL, fields=CHANGE_EMAIL.fields[:1])

    # --- phases

    async def _confirm_phase(self, request: PhaseRequest) -> Outcome:
        return await self.confirm(request.params, session=request.state.session, client=request.client)

    async def _resend_phase(self, request: PhaseRequest) -> Outcome:
        user = None if request.state.session is None else request.state.user
        return await self.resend(request.params, user=user, client=request.client)

    async def _cancel_phase(self, request: PhaseRequest) -> Outcome:
        return await self.cancel(request.state.user, client=request.client)

    async def _change_email_phase(self, request: PhaseRequest) -> Outcome:
        session = request.state.session
        return await self.change_email(request.state.user, request.params, session=session, client=request.client)

    async def _undo_phase(self, request: PhaseRequest) -> Outcome:
        return await self.undo(request.params, client=request.client)
