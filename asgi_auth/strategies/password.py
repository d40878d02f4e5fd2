"""Sign in with an address or a user name and a password.

Actions: register, sign_in, sign_in_with_token, reauthenticate, reset_request, reset.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from inspect import isawaitable
from typing import Any, Literal
from urllib.parse import urlsplit

from asgi_auth.accounts import as_of
from asgi_auth.errors import AuthenticationFailedError, ConfigurationError, InvalidTokenError, ValidationError
from asgi_auth.passwords import normalise_password
from asgi_auth.protocol.fields import read_flag, read_texts
from asgi_auth.sender import Sender, SenderFunction
from asgi_auth.services import Services
from asgi_auth.store import Found, Work
from asgi_auth.types import (
    Accepted,
    Client,
    Draft,
    Form,
    FormField,
    Outcome,
    Phase,
    PhaseRequest,
    Proof,
    Session,
    SessionsRevoked,
    SignedIn,
    TokenIssued,
)

RegisterField = Callable[[str | None], Any]
"""Turns what was sent (None: nothing) into what is stored; ValueError(message) refuses it. Plain or async."""

RESET, SIGN_IN = "reset", "sign_in"
"""Purposes of the tokens of this strategy."""

EXTRA_FIELD_LIMIT = 254
"""Characters of an extra field at registration: it may be an address (RFC 5321 section 4.5.3.1.3, erratum 1690)."""

_RESERVED = frozenset(
    {"id", "data", "email", "username", "password", "password_confirmation", "remember_me", "return_to"}
    | {"confirmed_at", "created_at", "disabled_at", "stamp", "password_hash", "invitation_token"}
)
_PASSWORDS = frozenset({"password", "password_confirmation"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Resettable:
    """A forgotten password is replaced by a link that a sender delivers.

    Args:
        sender: Delivers the link, and a notice once the password was changed.
        token_lifetime: How long a link lives; at most a day.
        url: The application's own page in place of the library's; ``reset_token`` is added to its query.
        sign_in: Sign the user in after the reset, if every gate admits them. Off: a reset signs nobody in.
    """

    sender: Sender | SenderFunction
    token_lifetime: timedelta = timedelta(hours=1)
    url: str | None = None
    sign_in: bool = False

    def __post_init__(self) -> None:
        _check_lifetime("resettable.token_lifetime", self.token_lifetime, timedelta(days=1))
        if self.url is not None and not urlsplit(self.url).netloc:
            raise ConfigurationError("resettable.url must be an absolute URL: it goes into a mail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Password:
    """Sign in with a password.

    Args:
        name: The path segment and the factor's name.
        identity_field: What a user is known by, ``email`` or ``username``; also the name of the parameter.
        confirmation_required: Ask for the new password twice (``password_confirmation``).
        registration_enabled: Off: there is no register phase, the application creates the users.
        sign_in_enabled: Off: no sign_in phase and no sign-in tokens.
        register_fields: Extra fields that a registration may bring, by name; nothing else that a client sends
            reaches the row. As a mapping, with a function that turns the text (None: nothing was sent) into what is
            stored and refuses with ``ValueError(message)``. ``email`` may be one where ``username`` is the identity.
        sign_in_token_lifetime: How long the token of ``sign_in(…, token_type="sign_in")`` lives; at most two minutes.
        resettable: None: there is no way to reset a password.

    Raises:
        ConfigurationError: an option does not do; names it.
    """

    name: str = "password"
    identity_field: Literal["email", "username"] = "email"
    confirmation_required: bool = True
    registration_enabled: bool = True
    sign_in_enabled: bool = True
    register_fields: Sequence[str] | Mapping[str, RegisterField] = field(default=())
    sign_in_token_lifetime: timedelta = timedelta(seconds=60)
    resettable: Resettable | None = None

    def __post_init__(self) -> None:
        if self.identity_field not in ("email", "username"):
            raise ConfigurationError("identity_field must be 'email' or 'username'")
        if not isinstance(self.resettable, Resettable | None):
            raise ConfigurationError("resettable must be a Resettable(sender=…)")
        if isinstance(self.register_fields, str):
            raise ConfigurationError("register_fields must be a sequence of names")
        reserved = _RESERVED - {"email"} if self.identity_field == "username" else _RESERVED
        for name in self.register_fields:
            if name in reserved:
                raise ConfigurationError(f"register_fields: {name!r} is a name of the library's")
        mailless = self.identity_field == "username" and "email" not in self.register_fields
        if self.resettable is not None and mailless and self.registration_enabled:
            raise ConfigurationError("register_fields must have 'email' for resettable to mail to")
        _check_lifetime("sign_in_token_lifetime", self.sign_in_token_lifetime, timedelta(minutes=2))

    def bind(self, services: Services[Any]) -> "PasswordActions":
        """Called once at start by ``Authentication``."""
        return PasswordActions(self, services)


class PasswordActions:
    """What the strategy does, with or without HTTP."""

    def __init__(self, options: Password, services: Services[Any]) -> None:
        self._options, self._services = options, services
        if options.identity_field not in services.store.users.identity_fields:
            raise ConfigurationError(f"identity_field: the store cannot find users by {options.identity_field}")
        self._sender: Sender | None = None
        if options.resettable is not None:
            self._sender = services.sender(options.resettable.sender, parameter="resettable.sender")
        self.phases = self._make_phases()

    def _make_phases(self) -> list[Phase]:
        options, phases = self._options, list[Phase]()
        if options.registration_enabled:
            phases.append(
                Phase(
                    name="register",
                    method="POST",
                    handle=self._register_phase,
                    registers=self._registration_form(),
                    secrets=_PASSWORDS | {"invitation_token"},
                )
            )
        if options.sign_in_enabled:
            phases += [
                Phase(name="sign_in", method="POST", handle=self._sign_in_phase, secrets=_PASSWORDS),
                Phase(
                    name="sign_in_with_token",
                    method="POST",  # a GET changes nothing (RFC 9110 section 9.2.1), and its URL would be logged
                    handle=self._sign_in_with_token_phase,
                    secrets=frozenset({"token"}),
                ),
                Phase(
                    name="reauthenticate",
                    method="POST",
                    handle=self._reauthenticate_phase,
                    secrets=_PASSWORDS,
                    signed_in=True,
                ),
            ]
        if options.resettable is not None:
            phases += [
                Phase(name="reset_request", method="POST", handle=self._reset_request_phase),
                Phase(
                    name="reset",
                    method="POST",
                    handle=self._reset_phase,
                    form=self._reset_form(),
                    secrets=_PASSWORDS | {"reset_token"},
                ),
            ]
        return phases

    def _reset_form(self) -> Form:
        fields = self._password_fields("New password")
        return Form(title="Choose a new password", token="reset_token", fields=fields, button="Set the new password")

    def _registration_form(self) -> Form:
        """For somebody who was invited: the address is that of the invitation."""
        options = self._options
        names = [*([] if options.identity_field == "email" else ["username"]), *options.register_fields]
        fields = [
            FormField(name=name, label=name.replace("_", " ").capitalize(), autocomplete="on")
            for name in names
            if name != "email"
        ]
        return Form(
            title="Create an account",
            token="invitation_token",
            fields=(*fields, *self._password_fields("Password")),
            button="Create the account",
        )

    def _password_fields(self, label: str) -> tuple[FormField, ...]:
        new_password = partial(FormField, type="password", autocomplete="new-password")
        fields = [new_password(name="password", label=label)]
        if self._options.confirmation_required:
            fields.append(new_password(name="password_confirmation", label=f"{label}, again"))
        return tuple(fields)

    # --- register

    async def register(self, params: Mapping[str, Any], *, client: Client = Client()) -> SignedIn | Accepted:
        """Create a user with a password; they are signed in if every gate admits them.

        Args:
            params: The identity field, ``password``, ``password_confirmation`` and the declared extra fields.
            client: Who asks.

        Raises:
            ValidationError: a field or the password does not do.
            IdentityTakenError: there is such a user already; told only after the work of a registration was done, and
                not at all where an address has to be confirmed: then it is ``Accepted``, like any other.
            InvalidTokenError: there is an ``invitation_token`` that is not live.
            ForbiddenError: registration is not open.
            OverloadedError, StoreUnavailableError: nothing was created.
        """
        password = self._new_password(params)
        identity = self._options.identity_field
        fields = read_texts(params, optional=[identity]) | await self._extra_fields(params)
        draft = Draft(act="create", strategy=self._options.name, fields=fields, params=params, client=client)
        began = self._services.clock()
        found = await self._services.accounts.register(draft, password=password, identity=identity)
        if found is None:
            return Accepted()
        return SignedIn(found.user, self._proof(found, began), registered=True, settled=True)

    def _new_password(self, params: Mapping[str, Any]) -> str:
        confirmation = ["password_confirmation"] if self._options.confirmation_required else []
        texts = read_texts(params, required=["password", *confirmation])
        if confirmation and texts["password"] != texts["password_confirmation"]:
            fields = {"password_confirmation": "The two passwords are not the same."}
            raise ValidationError("passwords differ", fields=fields)
        return texts["password"]

    async def _extra_fields(self, params: Mapping[str, Any]) -> dict[str, Any]:
        declared = self._options.register_fields
        texts = read_texts(params, optional=declared, limit=EXTRA_FIELD_LIMIT)
        if not isinstance(declared, Mapping):
            return dict(texts)
        values, problems = dict[str, Any](), dict[str, str]()
        for name, read in declared.items():
            try:
                value = read(texts.get(name))
                values[name] = await value if isawaitable(value) else value
            except ValueError as exc:
                problems[name] = str(exc)
        if problems:
            raise ValidationError("extra fields refused", fields=problems)
        return values

    # --- sign in

    async def sign_in(
        self,
        params: Mapping[str, Any],
        *,
        client: Client = Client(),
        token_type: Literal["access", "sign_in"] = "access",
    ) -> SignedIn | TokenIssued:
        """Whoever the identity and the password name.

        Args:
            params: The identity field, ``password`` and, if wanted, ``remember_me``.
            client: Who asks.
            token_type: ``sign_in`` issues a token for ``sign_in_with_token`` instead of a session.

        Raises:
            AuthenticationFailedError: unknown, wrong, without a password, disabled or not admitted: nobody can tell.
            ValidationError: a parameter is missing or cannot be one.
            OverloadedError, StoreUnavailableError: nothing happened.
        """
        field = self._options.identity_field
        texts = read_texts(params, required=[field, "password"])
        _normal(texts["password"])
        began = self._services.clock()
        found = await self._verified(await self._services.accounts.find(field, texts[field]), texts["password"], client)
        remember = read_flag(params, "remember_me")
        signed_in = SignedIn(found.user, self._proof(found, began), remember=remember)
        return signed_in if token_type == "access" else await self._issue_sign_in_token(signed_in, client)

    async def _verified(self, found: Found[Any] | None, password: str, client: Client) -> Found[Any]:
        stored = found and found.account.password_hash
        verified = await self._services.passwords.verify(password, stored, client=client.address)
        if found is None or not verified.valid:
            raise AuthenticationFailedError(
                "unknown identity" if found is None else "no password" if stored is None else "wrong password"
            )
        if verified.replacement is not None:
            await self._services.accounts.rehash(found.account, verified.replacement)
        return found

    async def _issue_sign_in_token(self, signed_in: SignedIn, client: Client) -> TokenIssued:
        proof = signed_in.proof
        await self._services.sessions.admit(signed_in, client)  # asked again when the token is redeemed
        issued = await self._services.tokens.issue(
            SIGN_IN,
            account=proof.account,
            lifetime=self._options.sign_in_token_lifetime,
            extra_data={"factor": proof.factor, "at": proof.at.isoformat(), "remember": signed_in.remember},
        )
        return TokenIssued(signed_in.user, issued.token)

    async def sign_in_with_token(self, params: Mapping[str, Any], *, client: Client = Client()) -> SignedIn:
        """Whoever a sign-in token names; it is spent when the session is minted.

        Raises:
            InvalidTokenError: the token is not live.
            ValidationError: there is none.
        """
        token = read_texts(params, required=["token"])["token"]
        found, data = await self._owner(SIGN_IN, token)
        proof = self._proof(found, datetime.fromisoformat(data["at"]))
        spend = partial(self._spend, SIGN_IN, token)
        return SignedIn(found.user, proof, remember=data["remember"], spend=spend)

    async def reauthenticate(
        self, params: Mapping[str, Any], *, session: Session, client: Client = Client()
    ) -> SignedIn:
        """Prove the password once more: a fresh session, with a new cookie, in place of *session*.

        Its other factors keep their times; it is not remembered, since a remembered one is never fresh.

        Args:
            params: ``password``.
            session: The one that is alive.
            client: Who asks.

        Raises:
            AuthenticationFailedError: wrong, or the user has no password; *session* stays as it is.
            InvalidTokenError: *session* has ended in the meantime.
            ValidationError: the password is missing or cannot be one.
            OverloadedError, StoreUnavailableError: nothing happened.
        """
        password = read_texts(params, required=["password"])["password"]
        _normal(password)
        began = self._services.clock()
        found = await self._verified(await self._services.accounts.get(session.user_id), password, client)
        account = as_of(found.account, session.stamp)  # what changed since it began has ended the session

        async def spend(work: Work[Any]) -> None:
            if not await work.sessions.revoke(session.id, now=began):
                raise InvalidTokenError("the session has ended in the meantime")
            work.emit(SessionsRevoked(at=began, user_id=session.user_id, client=client, session_id=session.id))

        proof = Proof(account=account, factor=self._options.name, at=began, earlier=session.factors)
        return SignedIn(found.user, proof, spend=spend)

    # --- reset

    async def reset_request(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Send a link to whom the identity names, after the response; do nothing, silently, if it names nobody.

        Raises:
            ValidationError: the identity is missing or cannot be one.
        """
        field = self._options.identity_field
        text = read_texts(params, required=[field])[field]
        self._services.accounts.identity(field, text)
        return Accepted(then=partial(self._send_reset, field, text))

    async def _send_reset(self, field: str, text: str) -> None:
        resettable, sender = self._reset_options()
        found = await self._services.accounts.find(field, text)
        if found is None or found.account.disabled_at is not None:
            return
        address = self._services.values(found.user).get("email")
        if address is None:
            return
        issued = await self._services.tokens.issue(
            RESET, account=found.account, lifetime=resettable.token_lifetime, extra_data={"factor": self._options.name}
        )
        url = self._services.link(resettable.url, self._options.name, "reset", reset_token=issued.token)
        await self._services.deliver(sender, found.user, purpose=RESET, address=address, issued=issued, url=url)

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
            work.after_commit(partial(self._send_notice, found.user))  # told even if the thief of a link hangs up

        changed = await self._services.accounts.set_password(
            found, password, client=client, strategy=self._options.name, spend=spend, proves_mailbox=True
        )
        if resettable.sign_in:
            return SignedIn(changed.user, self._proof(changed, began), settled=True)
        return Accepted(user=changed.user)

    async def _send_notice(self, user: Any) -> None:
        _, sender = self._reset_options()
        address = self._services.values(user).get("email")
        if address is not None:
            await self._services.deliver(sender, user, purpose="password_changed", address=address)

    def _reset_options(self) -> tuple[Resettable, Sender]:
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

    # --- phases

    async def _register_phase(self, request: PhaseRequest) -> Outcome:
        return await self.register(request.params, client=request.client)

    async def _sign_in_phase(self, request: PhaseRequest) -> Outcome:
        return await self.sign_in(request.params, client=request.client)

    async def _sign_in_with_token_phase(self, request: PhaseRequest) -> Outcome:
        return await self.sign_in_with_token(request.params, client=request.client)

    async def _reauthenticate_phase(self, request: PhaseRequest) -> Outcome:
        if request.state.session is None:  # pragma: no cover  # the plug serves it to nobody but who is signed in
            raise AuthenticationFailedError("nobody is signed in")
        return await self.reauthenticate(request.params, session=request.state.session, client=request.client)

    async def _reset_request_phase(self, request: PhaseRequest) -> Outcome:
        return await self.reset_request(request.params, client=request.client)

    async def _reset_phase(self, request: PhaseRequest) -> Outcome:
        return await self.reset(request.params, client=request.client)


def _normal(password: str) -> None:
    try:
        normalise_password(password)
    except ValueError as exc:
        raise ValidationError("password refused", fields={"password": str(exc)}) from exc


def _check_lifetime(name: str, lifetime: object, longest: timedelta) -> None:
    if not isinstance(lifetime, timedelta):
        raise ConfigurationError(f"{name} must be a timedelta")
    if not timedelta(0) < lifetime <= longest:
        raise ConfigurationError(f"{name} must be positive and at most {longest}")
