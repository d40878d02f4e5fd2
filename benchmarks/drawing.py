"""How long the pages take to draw, as HTML, without HTTP."""

from functools import partial

from asgi_auth.localization import Localization
from asgi_auth.pages import Context, Drawn, Page, Pages
from asgi_auth.strategies.password import Password
from asgi_auth.strategies.password.forms import register_form, sign_in_form
from benchmarks.timing import Variant, in_turn, verdict

BUDGET = 100.0
"""Microseconds."""
SIGN_IN = "sign in"


def _variants() -> dict[str, Variant]:
    """Each page as in the plug: translated, with a hidden field and two links."""
    pages, localization = Pages(), Localization(None, None)
    options = Password()
    refused = {"email": "This is not a mail address.", "password": "Use at least 8 characters."}
    sign_in = Drawn(sign_in_form(options), "/auth/password/sign_in", hidden={"return_to": "/me"})
    register = Drawn(register_form(options), "/auth/password/register", values={"email": "ada"}, problems=refused)
    links = {"/auth/password/register": "Create an account", "/auth/password/reset_request": "Forgot your password?"}

    async def draw(drawn: Drawn, locale: str) -> Page:
        context = Context("localhost", locale, partial(localization.say, locale=locale))
        content = "\n".join((pages.form(drawn, context), pages.links(links, context)))
        return pages.page(drawn.form.title, content, context)

    return {
        SIGN_IN: partial(draw, sign_in, "en"),
        "sign in, in German": partial(draw, sign_in, "de"),
        "register, refused": partial(draw, register, "en"),
    }


async def measure(*, rounds: int) -> dict[str, float]:
    """Microseconds of each page."""
    return await in_turn(_variants(), rounds=rounds)


def report(times: dict[str, float]) -> None:
    """Print the times, and if the page to sign in is within the budget."""
    print("\npages: how long one takes to draw (µs, median)\n")
    for name, micros in times.items():
        said = f"    {verdict(micros <= BUDGET)}: at most {BUDGET:.0f}" if name == SIGN_IN else ""
        print(f"  {name:<26}{micros:8.1f}{said}")
