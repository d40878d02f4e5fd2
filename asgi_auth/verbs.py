"""The actions of a strategy or an add-on, for code without HTTP."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from asgi_auth.phases import Accepted, Finished, TokenIssued
from asgi_auth.protocol.fields import without
from asgi_auth.types import EMPTY, Activity, Client

if TYPE_CHECKING:
    from asgi_auth.authentication import Authentication


class Verbs:
    """The verbs of a strategy or an add-on. Each outcome is carried out before the verb returns."""

    def __init__(self, auth: "Authentication[Any]", name: str, actions: Any) -> None:
        self._auth, self._name, self._actions = auth, name, actions
        self._places = dict[str, int]()  # the position of ``params`` by verb: reading a signature is slow

    def __getattr__(self, verb: str) -> Callable[..., Awaitable[Any]]:
        if verb.startswith("_"):
            raise AttributeError(verb)
        return partial(self._call, verb, getattr(self._actions, verb))

    async def _call(self, verb: str, action: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        client = options.get("client") or Client()
        act = partial(action, *args, **options)
        params = without(self._params(verb, action, args, options), self._auth.secrets)
        actor = getattr(options.get("session"), "user_id", None)
        result = await self._auth.perform(Activity(self._name, verb), act, client, params=params, actor=actor)
        if isinstance(result, TokenIssued):
            return Finished(result.user, result.token)
        if isinstance(result, Accepted):
            return Finished(result.user, None)
        return result

    def _params(
        self, verb: str, action: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """The argument for ``params``, by position or by name."""
        if verb not in self._places:
            names = list(signature(action).parameters)
            self._places[verb] = names.index("params") if "params" in names else len(names)
        place = self._places[verb]
        params = args[place] if place < len(args) else options.get("params")
        return params if isinstance(params, Mapping) else EMPTY
