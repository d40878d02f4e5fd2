"""Actions of the password strategy: register, sign_in, sign_in_with_token, reauthenticate, reset_request, reset."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from asgi_auth.accounts import as_of
from asgi_auth.acts import Draft, Proof, Way
from asgi_auth.errors import AuthenticationFailedError, ConfigurationError
from asgi_auth.hooks import Hook
from asgi_auth.messages import REQUIRED, Message
from asgi_auth.phases import Accepted, Form, Outcome, Phase, PhaseRequest, SignedIn, TokenIssued
from asgi_auth.protocol.fields import Problems, read_flag, read_texts
from asgi_auth.services import Services
from asgi_auth.store import Found, Work
from asgi_auth.strategies.password.extra_fields import check_kept, read_extra_fields
from asgi_auth.strategies.password.forms import (
    invited_form,
    reauthenticate_form,
    register_form,
    reset_form,
    reset_request_form,
    sign_in_form,
)
from asgi_auth.strategies.password.own_tokens import OwnTokens
from asgi_auth.strategies.password.params import PASSWORDS, check_all, check_password, read_new_password
from asgi_auth.strategies.password.resetting import Resetting
from asgi_auth.types import Client, Session

if TYPE_CHECKING:
    from asgi_auth.strategies.password.options import Password

SIGN_IN = "sign_in"
"""Purpose of the tokens that stand for a sign-in."""


class PasswordActions(Hook):
    """The actions of the strategy, with or without HTTP."""

    def __init__(self, options: "Password", services: Services[Any]) -> None:
        if options.identity_field not in services.store.users.identity_fields:
            raise ConfigurationError(f"identity_field: the store cannot find users by {options.identity_field}")
        check_kept(tuple(options.register_fields), services.store.users)
        self.name = options.name
        self._options, self._services = options, services
        self._tokens = OwnTokens(options.name, services)
        self._reset: Resetting | None = None
        if options.resettable is not None:
            self._reset = Resetting(options, options.resettable, services)
        self.phases = self._make_phases()

    secrets = PASSWORDS | {"token", "reset_token", "invitation_token"}
    """Parameters that hooks never see, even if a phase is disabled."""

    def _make_phases(self) -> list[Phase]:
        options, phases = self._options, list[Phase]()
        if options.registration_enabled:
            phases.append(
                Phase(
                    name="register",
                    handle=self._register_phase,
                    hashes=True,
                    form=register_form(options),
                    page=self._services.registrations.mode == "open",  # else only who was invited has a form
                    registers=invited_form(options),
                    secrets=PASSWORDS | {"invitation_token"},
                )
            )
        if options.sign_in_enabled:
            phases += [
                Phase(
                    name="sign_in",
                    handle=self._sign_in_phase,
                    hashes=True,
                    form=sign_in_form(options),
                    page=True,
                    proves=True,
                    secrets=PASSWORDS,
                ),
                Phase(
                    name="sign_in_with_token",
                    handle=self._sign_in_with_token_phase,
                    secrets=frozenset({"token"}),
                ),
                Phase(
                    name="reauthenticate",
                    handle=self._reauthenticate_phase,
                    hashes=True,
                    form=reauthenticate_form(options),
                    form_for=self._reauthenticate_form,
                    page=True,
                    proves=True,
                    secrets=PASSWORDS,
                    who="session",
                ),
            ]
        if options.resettable is not None:
            phases += [
                Phase(
                    name="reset_request", handle=self._reset_request_phase, form=reset_request_form(options), page=True
                ),
                Phase(
                    name="reset",
                    handle=self._reset_phase,
                    hashes=True,
                    form=reset_form(options),
                    form_for=self._reset_form,
                    page=True,
                    secrets=PASSWORDS | {"reset_token"},
                ),
            ]
        return phases

    # --- register

    async def register(self, params: Mapping[str, Any], *, client: Client = Client()) -> SignedIn | Accepted:
        """Create a user with a password. The user is signed in if every gate admits them.

        Args:
            params: The field of ``identity_field``, ``password``, ``password_confirmation`` and declared extra fields.
            client: The client of the request.

        Raises:
            ValidationError: a field or the password is rejected.
            IdentityTakenError: there is already such a user. It is raised only after the work of a registration. If
                addresses have to be confirmed, it is not raised; the result is ``Accepted``, as for a new address.
            InvalidTokenError: the ``invitation_token`` is not live.
            ForbiddenError: registration is not open.
            RateLimitedError: this client was told too often that an address or user name is taken.
            OverloadedError, StoreUnavailableError: nothing was created.
        """
        known_by = self._options.identity_field
        password, fields = await self._registration(params, client)
        told = {name: value for name, value in params.items() if name not in PASSWORDS}
        draft = Draft(act="create", strategy=self._options.name, fields=fields, params=told, client=client)
        began = self._services.clock()
        found = await self._services.registrations.register(draft, password=password, required=known_by)
        if found is None:
            return Accepted()
        return SignedIn(found.user, self._proof(found, began), registered=True, settled=True)

    async def _registration(self, params: Mapping[str, Any], client: Client) -> tuple[str, dict[str, Any]]:
        """Return the password and the fields. Raises ValidationError with every invalid parameter."""
        password, fields, problems, known_by = "", dict[str, Any](), Problems(), self._options.identity_field
        with problems.noted():
            fields.update(read_texts(params, optional=[known_by]))
        with problems.noted():
            fields.update(await read_extra_fields(self._options.register_fields, params))
        for name in {"email", "username"} & fields.keys():
            with problems.noted():
                self._services.accounts.normalise(name, fields[name])
        with problems.noted():
            password = read_new_password(params, repeated=self._options.repeat_password)
        if problems and known_by not in fields and "invitation_token" not in params:
            problems.setdefault(known_by, REQUIRED)
        context = [value for value in fields.values() if isinstance(value, str)]
        await check_all(problems, params, self._services.passwords, client=client, context=context)
        return password, fields

    # --- sign in

    async def sign_in(
        self,
        params: Mapping[str, Any],
        *,
        client: Client = Client(),
        token_type: Literal["access", "sign_in"] = "access",
    ) -> SignedIn | TokenIssued:
        """Check the address or user name and the password, and return the user.

        Args:
            params: The field of ``identity_field``, ``password`` and, if wanted, ``remember_me``.
            client: The client of the request.
            token_type: ``sign_in`` issues a token for ``sign_in_with_token`` instead of a session.

        Raises:
            AuthenticationFailedError: the user is unknown, has no password, is disabled or is not admitted, or the
                password is wrong. The client cannot tell these cases apart.
            ValidationError: a parameter is missing or invalid.
            OverloadedError, StoreUnavailableError: nothing happened.
        """
        field = self._options.identity_field
        texts, problems, key = read_texts(params, required=[field, "password"]), Problems(), ""
        with problems.noted():
            check_password(texts["password"])
        with problems.noted():
            key = self._services.accounts.normalise(field, texts[field])[1]
        problems.check()
        began = self._services.clock()
        async with self._services.tries.attempt("sign_in", [f"{field} {key}"]):
            found = await self._services.store.users.find(field, key)
            found = await self._verified(found, texts["password"], client)
        remember = read_flag(params, "remember_me")
        signed_in = SignedIn(found.user, self._proof(found, began), remember=remember)
        return signed_in if token_type == "access" else await self._issue_sign_in_token(signed_in, client)

    async def _verified(self, found: Found[Any] | None, password: str, client: Client) -> Found[Any]:
        stored = found and found.account.password_hash
        verified = await self._services.passwords.verify(password, stored, client=client.address)
        if found is None or not verified.valid:
            raise _refusal(found)
        if verified.replacement is not None:
            await self._services.accounts.rehash(found.account, verified.replacement)
        return found

    async def _issue_sign_in_token(self, signed_in: SignedIn, client: Client) -> TokenIssued:
        proof = signed_in.proof
        await self._services.sessions.admit(signed_in, client)  # checked again when the token is redeemed
        issued = await self._services.tokens.issue(
            SIGN_IN,
            account=proof.account,
            lifetime=self._options.sign_in_token_lifetime,
            extra_data={"factor": proof.factor, "at": proof.at.isoformat(), "remember": signed_in.remember},
        )
        return TokenIssued(signed_in.user, issued.token)

    async def sign_in_with_token(self, params: Mapping[str, Any], *, client: Client = Client()) -> SignedIn:
        """Exchange a sign-in token for its user. Creating the session consumes the token.

        Raises:
            InvalidTokenError: the token is not live.
            ValidationError: the token is missing.
        """
        token = read_texts(params, required=["token"])["token"]
        found, data = await self._tokens.owner(SIGN_IN, token)
        proof = self._proof(found, datetime.fromisoformat(data["at"]))
        spend = self._tokens.spend(SIGN_IN, token)
        return SignedIn(found.user, proof, remember=data["remember"], spend=spend)

    async def reauthenticate(
        self, params: Mapping[str, Any], *, session: Session, client: Client = Client()
    ) -> SignedIn:
        """Prove the password again. A fresh session with a new cookie replaces *session*.

        Its other factors keep their times. It is not remembered, because a remembered session is never fresh.

        Args:
            params: ``password``.
            session: The current session.
            client: The client of the request.

        Raises:
            AuthenticationFailedError: the password is wrong, or the user has none; *session* is unchanged.
            InvalidTokenError: *session* has ended in the meantime.
            ValidationError: the password is missing or invalid.
            OverloadedError, StoreUnavailableError: nothing happened.
        """
        password = read_texts(params, required=["password"])["password"]
        check_password(password)
        began = self._services.clock()
        async with self._services.tries.attempt("current_password", [session.user_id]):
            found = await self._verified(await self._services.accounts.get(session.user_id), password, client)
        account = as_of(found.account, session.stamp)  # a change of the account since then has ended the session
        proof = Proof(account=account, factor=self._options.name, at=began, earlier=session.factors)
        return SignedIn(found.user, proof, replaces=session.id)

    # --- reset

    async def reset_request(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted:
        """Mail a link to the user with this address or user name, after the response. No user: nothing is sent.

        Args:
            params: The field of ``identity_field``.
            client: The client of the request.

        Raises:
            ValidationError: the field is missing or invalid.
            ConfigurationError: resets are not enabled for this strategy.
        """
        return await self._resetting().request(params)

    async def reset(self, params: Mapping[str, Any], *, client: Client = Client()) -> Accepted | SignedIn:
        """Set a new password with the token of a mailed link. Every session of the user ends.

        Args:
            params: ``reset_token``, ``password`` and ``password_confirmation``.
            client: The client of the request.

        Raises:
            InvalidTokenError: the token is not live.
            ValidationError: the new password is rejected; the token stays usable.
            OverloadedError, StoreUnavailableError: nothing was changed; the token stays usable.
            ConfigurationError: resets are not enabled for this strategy.
        """
        return await self._resetting().reset(params, client=client)

    def _resetting(self) -> Resetting:
        if self._reset is None:
            raise ConfigurationError("resettable: this strategy cannot reset passwords")
        return self._reset

    # --- as a hook

    async def ways_in(self, found: Found[Any], work: Work[Any]) -> Sequence[Way]:
        """The password, and the address or user name for a sign-in, if the user has them."""
        known_by = self._services.values(found.user).get(self._options.identity_field)
        if not self._options.sign_in_enabled or known_by is None or found.account.password_hash is None:
            return ()
        return [Way(name=self.name, factor=self.name, first=True, label=Message("field.password", "Password"))]

    # --- parts

    def _proof(self, found: Found[Any], began: datetime) -> Proof:
        return Proof(account=found.account, factor=self._options.name, at=began)

    # --- forms

    def _known_by(self, user: Any) -> str | None:
        return self._services.values(user).get(self._options.identity_field)

    async def _reauthenticate_form(self, request: PhaseRequest) -> Form:
        return reauthenticate_form(self._options, shown=self._known_by(request.state.user))

    async def _reset_form(self, request: PhaseRequest) -> Form:
        return reset_form(self._options, shown=self._known_by(await self._resetting().user(request)))

    # --- phases

    async def _register_phase(self, request: PhaseRequest) -> Outcome:
        return await self.register(request.params, client=request.client)

    async def _sign_in_phase(self, request: PhaseRequest) -> Outcome:
        return await self.sign_in(request.params, client=request.client)

    async def _sign_in_with_token_phase(self, request: PhaseRequest) -> Outcome:
        return await self.sign_in_with_token(request.params, client=request.client)

    async def _reauthenticate_phase(self, request: PhaseRequest) -> Outcome:
        if request.state.session is None:  # pragma: no cover  # the plug serves it only with a session
            raise AuthenticationFailedError("nobody is signed in")
        return await self.reauthenticate(request.params, session=request.state.session, client=request.client)

    async def _reset_request_phase(self, request: PhaseRequest) -> Outcome:
        return await self.reset_request(request.params, client=request.client)

    async def _reset_phase(self, request: PhaseRequest) -> Outcome:
        return await self.reset(request.params, client=request.client)


def _refusal(found: Found[Any] | None) -> AuthenticationFailedError:
    """The error of a failed sign-in. The client gets the same answer for every cause."""
    if found is None:
        return AuthenticationFailedError("unknown user", cause="unknown_user")
    user_id = found.account.user_id
    if found.account.password_hash is None:
        return AuthenticationFailedError("no password", cause="no_password", user_id=user_id)
    return AuthenticationFailedError("wrong password", cause="wrong_password", user_id=user_id)
