"""AuthController: the plug with the callbacks of a controller."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount

from asgi_auth.errors import AuthError
from asgi_auth.types import AccessToken, Activity
from asgi_auth.web.plug import AuthPlug
from asgi_auth.web.serving import answered

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    U = TypeVar("U", default=Any)  # so that a subclass need not name it
else:
    from typing import TypeVar

    U = TypeVar("U")


class AuthController(AuthPlug[U]):
    """An ``AuthPlug`` to subclass with ``success``, ``failure`` and ``sign_out``; ``routes()`` gives its routes."""

    _callbacks: ClassVar[tuple[str, ...]] = (*AuthPlug._callbacks, "success", "failure", "sign_out")

    async def success(self, request: Request, activity: Activity, user: U, token: AccessToken) -> Response:
        """The user was signed in. By default as ``AuthPlug.handle_success``."""
        return await super().handle_success(request, activity, user, token)

    async def failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """The request failed. By default as ``AuthPlug.handle_failure``."""
        return await super().handle_failure(request, activity, reason)

    async def sign_out(self, request: Request, params: Mapping[str, Any]) -> Response:
        """The session has ended. By default as ``AuthPlug.handle_sign_out``."""
        return await super().handle_sign_out(request)

    async def handle_success(self, request: Request, activity: Activity, user: U, token: AccessToken) -> Response:
        """Calls ``success``."""
        return await answered(self.success(request, activity, user, token), self.success)

    async def handle_failure(self, request: Request, activity: Activity, reason: AuthError) -> Response:
        """Calls ``failure``."""
        return await answered(self.failure(request, activity, reason), self.failure)

    async def handle_sign_out(self, request: Request) -> Response:
        """Calls ``sign_out`` with the parameters."""
        return await answered(self.sign_out(request, self.params(request)), self.sign_out)

    def routes(self) -> Sequence[BaseRoute]:
        """The controller mounted at ``auth.mount_path``, for ``Starlette(routes=[*controller.routes(), …])``."""
        return [Mount(self.auth.mount_path, self)]
