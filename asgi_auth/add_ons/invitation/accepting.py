"""The actions of the invited person: view, accept, decline, and register with the invitation."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_auth.acts import Draft
from asgi_auth.add_ons.invitation.mail import TOKEN, is_owned, proves_addresses
from asgi_auth.add_ons.invitation.states import States
from asgi_auth.changes import hold
from asgi_auth.errors import ForbiddenError, IdentityTakenError, InvalidTokenError, ValidationError
from asgi_auth.messages import Message
from asgi_auth.phases import Accepted, Form, View
from asgi_auth.protocol.fields import read_texts
from asgi_auth.services import Services
from asgi_auth.store import Found, InvitationRecord, Work
from asgi_auth.types import Activity, Client

if TYPE_CHECKING:
    from asgi_auth.add_ons.invitation.options import Invitation

_TEXTS = {
    "register": Message("invitation.register", "{inviter} has invited {address} to {scope}."),
    "accept": Message("invitation.register", "{inviter} has invited {address} to {scope}."),
    "sign_in": Message(
        "invitation.sign_in",
        "{inviter} has invited {address} to {scope}. There is an account with this address. Sign in with it to accept.",
    ),
    "confirm": Message(
        "invitation.confirm",
        "{inviter} has invited {address} to {scope}. Confirm the address of your account first. Then open the link of"
        " the invitation again.",
    ),
    "switch_account": Message(
        "invitation.switch_account",
        "{inviter} has invited {address} to {scope}. You are signed in with another account. Sign out to continue as"
        " {address}.",
    ),
    "closed": Message(
        "invitation.closed", "{inviter} has invited {address} to {scope}. Nobody can register at the moment."
    ),
}
_OTHER_ACCOUNT = Message(
    "invitation.other_account", "Sign in with the account whose address was invited and has been confirmed."
)
_TAKEN = Message(
    "invitation.taken", "There is already an account with this address. Sign in, then open the link of the mail again."
)
_OTHER_ADDRESS = Message("invitation.other_address", "This is not the address that was invited.")


class Accepting:
    """The actions with the token of an invitation. The token proves access to the mailbox, nothing else."""

    def __init__(self, options: "Invitation", services: Services[Any], states: States) -> None:
        self._options, self._services, self._states = options, services, states
        form = partial(Form, token=TOKEN)
        self.accept_form = form(
            title=Message("accept.title", "Accept the invitation"),
            button=Message("accept.button", "Accept"),
            done_title=Message("accept.done_title", "Welcome"),
            done=Message("accept.done", "You have accepted the invitation."),
            action=Activity(options.name, "accept"),
        )
        self.decline_form = form(
            title=Message("decline.title", "Decline the invitation"),
            button=Message("decline.button", "Decline"),
            done=Message("decline.done", "You have declined the invitation. Nothing else will happen."),
            action=Activity(options.name, "decline"),
        )

    async def accept(self, user: Any, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Join with the account of the signed-in user. A second call changes nothing, and creates no session.

        Args:
            user: The signed-in user. Their account must have the invited address, confirmed.
            params: ``invitation_token``.
            client: The client of the request.

        Raises:
            ValidationError: the token is missing.
            InvalidTokenError: the token is not live.
            ForbiddenError: the invitation is for another person (IN-4), or the address of the account is unproven.
            AuthError: ``grant`` refused with this error; the invitation stays usable.
            StoreUnavailableError: the database does not answer; nothing was changed.
        """
        token, user_id = read_token(params), self._services.accounts.user_id(user)
        invitation, version = await self._states.read(token)
        if not _was_accepted(invitation, version, user_id):
            self._states.check_live(invitation, version)
            await self._states.check_inviter(invitation)
            try:
                await self._services.commit(partial(self._join, invitation, user_id, client))
            except InvalidTokenError:
                invitation, _ = await self._states.read(token)
                if not _was_accepted(invitation, version, user_id):  # a parallel request of the same user
                    raise
        return Accepted(user=user)

    async def _join(self, invitation: InvitationRecord, user_id: str, client: Client, work: Work[Any]) -> None:
        await self._states.accept(work, invitation, accepted_by=user_id)
        found = await hold(work, user_id)  # the address must not change between the check and the commit
        if found is None or not self._fits(found, invitation) or found.account.confirmed_at is None:
            raise ForbiddenError("not the account that was invited", fields={"account": _OTHER_ACCOUNT})
        await self._states.grant(work, found, invitation, client)

    def _fits(self, found: Found[Any], invitation: InvitationRecord) -> bool:
        """Whether an account has the invited address. A pending change to that address does not count."""
        email = self._services.values(found.user).get("email")
        return found.account.disabled_at is None and email is not None and self._is_mailbox(email, invitation)

    def _is_mailbox(self, address: object, invitation: InvitationRecord) -> bool:
        if not isinstance(address, str):
            return False
        try:
            return self._services.accounts.normalise("email", address)[1] == invitation.email_key
        except ValidationError:
            return False

    async def decline(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Decline the invitation. The token is enough. Raises as ``accept``, except ForbiddenError."""
        invitation = await self._states.live(read_token(params))
        if not await self._states.end(invitation, "declined", client=client):
            raise InvalidTokenError("the invitation ended, or was sent again, at this moment")
        return Accepted()

    async def view(self, params: Mapping[str, Any], *, user: Any = None, client: Client = Client()) -> View:
        """Show the invitation and the possible next step; changes nothing.

        Args:
            params: ``invitation_token``.
            user: The signed-in user; None if no user is signed in.
            client: The client of the request.

        Returns:
            In ``data``: ``scope``, ``inviter``, ``email``, ``expires_at``, and ``to_do``: ``register``, ``sign_in``,
            ``accept``, ``confirm``, ``switch_account`` or ``closed``.

        Raises:
            ValidationError, InvalidTokenError, StoreUnavailableError: as ``accept``.
        """
        token = read_token(params)
        invitation = await self._states.live(token)
        inviter, to_do = await self._states.inviter_name(invitation), await self._to_do(invitation, user)
        app_name = self._services.app_name
        text = _TEXTS[to_do].given(
            inviter=inviter or app_name, address=invitation.email, scope=invitation.scope or app_name
        )
        return View(
            {
                "scope": invitation.scope,
                "inviter": inviter,
                "email": invitation.email,
                "expires_at": invitation.expires_at.isoformat(),
                "to_do": to_do,
            },
            title=Message("invitation.title", "Invitation to {app_name}", app_name=app_name),
            text=text,
            forms=(*self._forms(to_do), replace(self.decline_form, title="")),
            token=token,
            registers=to_do == "register",
            signs_in=to_do == "sign_in",
            strategies=invitation.strategies,
            links=self._links(to_do),
        )

    def _forms(self, to_do: str) -> tuple[Form, ...]:
        if to_do == "accept":
            return (replace(self.accept_form, title=""),)
        if to_do == "switch_account":
            button = Message("button.switch_account", "Sign out and continue")
            return (Form(title="", token=TOKEN, button=button, action=Activity(None, "sign_out")),)
        return ()

    def _links(self, to_do: str) -> Mapping[str, str]:
        url = self._options.sign_in_url
        return {url: Message("sign_in.title", "Sign in")} if to_do == "sign_in" and url is not None else {}

    async def _to_do(self, invitation: InvitationRecord, user: Any) -> str:
        services = self._services
        if user is not None:
            found = await services.accounts.get(services.accounts.user_id(user))
            if found is None or not self._fits(found, invitation):
                return "switch_account"
            return "accept" if found.account.confirmed_at is not None else "confirm"
        found = await services.store.users.find("email", invitation.email_key)
        if found is not None and is_owned(self._services, found.account):
            return "sign_in"
        return "closed" if services.registrations.mode == "closed" else "register"

    # --- registering

    async def prepare(self, draft: Draft) -> Draft:
        """Allow a registration with a live token. The token proves the invited address."""
        if draft.act != "create" or draft.strategy is None or draft.params.get(TOKEN) in (None, ""):
            return draft
        invitation = await self._states.live(read_token(draft.params))
        if invitation.strategies and draft.strategy not in invitation.strategies:
            raise ForbiddenError("invited to register by another strategy")
        await self._states.check_inviter(invitation)
        addressed = self._addressed(draft, invitation)
        return replace(
            addressed,
            invited=True,
            spend=partial(self._spend, invitation, draft.strategy, "email" in addressed.fields),
            follow_up=partial(self._follow_up, invitation, draft.strategy, draft.client),
        )

    def _addressed(self, draft: Draft, invitation: InvitationRecord) -> Draft:
        address = draft.fields.get("email")
        if address is None or self._is_mailbox(address, invitation):
            fields = {**draft.fields, "email": invitation.email}
            return replace(draft, fields=fields, confirmed_at=self._services.clock())
        if not draft.provided or not proves_addresses(self._services):
            raise ValidationError("another address", fields={"email": _OTHER_ADDRESS})
        # A provider gave another address. The invited address is accepted after a confirmation by a second mail.
        fields = {name: value for name, value in draft.fields.items() if name != "email"}
        return replace(draft, fields=fields, confirmed_at=None, pending={**draft.pending, "email": invitation.email})

    async def _spend(self, invitation: InvitationRecord, strategy: str, claims: bool, work: Work[Any]) -> None:
        await self._states.accept(work, invitation, accepted_via=strategy)
        await self._services.claims.free(work, invitation.email, strategy=strategy)
        found = await work.users.find("email", invitation.email_key)
        # The owner of an account signs in with its factors. An unowned account gives up its address only to a user who
        # gets the address at once: a second mail is never sent to an address of another account.
        if found is not None and (not claims or is_owned(self._services, found.account)):
            raise IdentityTakenError("the invited address is taken", fields={"email": _TAKEN})

    async def _follow_up(
        self, invitation: InvitationRecord, strategy: str, client: Client, work: Work[Any], found: Found[Any]
    ) -> None:
        await work.invitations.attribute(invitation.id, found.account.user_id)
        await self._states.grant(work, found, replace(invitation, accepted_via=strategy), client)


def read_token(params: Mapping[str, Any]) -> str:
    """The token of an invitation. Raises ValidationError if it is missing."""
    return read_texts(params, required=[TOKEN])[TOKEN]


def _was_accepted(invitation: InvitationRecord, version: int, user_id: str) -> bool:
    return (invitation.status, invitation.version, invitation.accepted_by) == ("accepted", version, user_id)
