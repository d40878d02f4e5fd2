"""The demo in a real browser without scripts: Chromium, driven over WebDriver."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.browsing import browser
from tests.demos import SIGN_IN, Demo, running_demo
from tests.support import EMAIL, NEW_PASSWORD, OTHER_EMAIL, PASSWORD, PATIENCE, credentials, registration

pytestmark = pytest.mark.slow

REGISTER = "/auth/password/register"
CHANGE_EMAIL = "/auth/confirmation/change_email"
OPEN_PAGES = ("/", SIGN_IN, REGISTER, "/auth/password/reset_request", "/auth/confirmation/resend")
INVITING = ("/invitations", "/auth/invitation/invite")
SESSIONS = ".rows:last-of-type"
REFUSED = "The address or the password is wrong, or the address is not confirmed yet."
NEW_EMAIL = "alice@new.example.org"


class Visitor:
    """A user with a browser, who opens pages, fills in forms and presses buttons."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver, self._url = driver, url

    def open(self, address: str) -> None:
        """Open a path of the demo or an absolute URL."""
        self.driver.get(address if "://" in address else f"{self._url}{address}")

    def fill_in(self, **values: str) -> None:
        """Type values into the fields with these names."""
        for name, value in values.items():
            field = self.driver.find_element(By.NAME, name)
            field.clear()
            field.send_keys(value)

    def press(self, text: str, *, where: str = "main") -> None:
        """Press the button or link with this text and wait for the next page."""
        page = self.driver.find_element(By.TAG_NAME, "html")
        self.driver.find_element(By.XPATH, f"//{where}//*[self::button or self::a][text()='{text}']").click()
        self.wait_for_another(page)

    def wait_for_another(self, page: WebElement) -> None:
        """Wait until the browser has replaced *page*, an ``html`` element, with another page."""
        # Between two pages there is a moment without a page.
        wait = WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05, ignored_exceptions=[WebDriverException])
        wait.until(lambda driver: driver.find_element(By.TAG_NAME, "html").id != page.id)

    @property
    def path(self) -> str:
        """The URL in the address bar, without the origin."""
        return self.driver.current_url.removeprefix(self._url)

    @property
    def heading(self) -> str:
        """The heading of the page."""
        return self.driver.find_element(By.TAG_NAME, "h1").text

    def text(self, selector: str) -> str:
        """The text of the first element that matches the selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def cookie(self) -> Any:
        """The session cookie with its flags, as the browser stores it; None if there is none."""
        return self.driver.get_cookie("user_session")

    def width_at(self, pixels: int) -> int:
        """The width of the page in a window that is *pixels* wide."""
        metrics = {"width": pixels, "height": 720, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        return int(size["width"])


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """A new demo."""
    with running_demo(tmp_path / "demo") as running:
        yield running


@pytest.fixture
def visitor(tmp_path: Path, demo: Demo) -> Iterator[Visitor]:
    """A new browser on the demo."""
    with browser(tmp_path / "profile", scripts=False) as driver:
        yield Visitor(driver, demo.url)


def sign_up(demo: Demo, visitor: Visitor) -> None:
    """Register with the form, confirm with the printed link, sign in."""
    visitor.open(REGISTER)
    visitor.fill_in(email=EMAIL, password=PASSWORD, password_confirmation=PASSWORD)
    visitor.press("Create the account")
    confirm(demo, visitor)
    visitor.fill_in(email=EMAIL, password=PASSWORD)
    visitor.press("Sign in")
    assert visitor.path == "/account"


def confirm(demo: Demo, visitor: Visitor) -> None:
    """Open the link in the mail and press the button."""
    assert visitor.heading == "Check your mail"
    visitor.open(demo.printed(r"http://\S+confirmation_token=\S+"))
    assert EMAIL in visitor.text("main p")
    visitor.press("Confirm")
    assert visitor.heading == "Confirmed"
    visitor.press("Sign in")


def sign_up_elsewhere(demo: Demo, email: str) -> None:
    """Create a confirmed account without the browser under test."""
    with httpx.Client(base_url=demo.url) as elsewhere:
        elsewhere.post("/auth/password/register", data=registration(email))
        token = demo.printed(r"confirmation_token=\S+").partition("=")[2]
        confirmed = elsewhere.post("/auth/confirmation/confirm", data={"confirmation_token": token})
        assert confirmed.status_code == 200


def test_every_page_fits_and_is_styled(demo: Demo, visitor: Visitor) -> None:
    """CF-8: the policy permits the stylesheet; every page fits the smallest phone; an invalid field has the focus."""
    for path in (*OPEN_PAGES, "/nowhere", "/auth/password/reset", "/auth/invitation/view"):
        visitor.open(path)
        assert visitor.width_at(320) <= 320, path
        brand = visitor.driver.find_element(By.CLASS_NAME, "brand")
        assert brand.value_of_css_property("font-weight") == "700"

    visitor.open(REGISTER)
    visitor.fill_in(email=EMAIL, password="password", password_confirmation="password")
    visitor.press("Create the account")
    focused = visitor.driver.switch_to.active_element
    assert visitor.driver.title == "Error: Create an account - asgi_auth demo"
    assert focused.get_attribute("name") == "password"
    assert focused.get_attribute("value") == ""
    assert visitor.text(f"#{focused.get_attribute('aria-describedby')}").startswith("This password is easy to guess.")
    assert visitor.driver.find_element(By.NAME, "email").get_attribute("value") == EMAIL
    assert visitor.width_at(320) <= 320

    sign_up(demo, visitor)
    for path in ("/account", CHANGE_EMAIL, "/auth/password/reauthenticate", "/auth/account", *INVITING):
        visitor.open(path)
        assert visitor.path == path
        assert visitor.width_at(320) <= 320, path


def test_demo_works_without_scripts(demo: Demo, visitor: Visitor) -> None:
    """Without scripts: guarded page, registration, sessions, sign-out, password reset, sign-in with the new one."""
    visitor.open("/account")
    assert visitor.path == f"{SIGN_IN}?return_to=%2Faccount"
    visitor.press("Create an account")
    visitor.fill_in(email=EMAIL, password=PASSWORD, password_confirmation=PASSWORD)
    visitor.press("Create the account")
    confirm(demo, visitor)
    visitor.open("/account")
    visitor.fill_in(email=EMAIL, password=PASSWORD)
    visitor.press("Sign in")
    assert (visitor.path, visitor.heading) == ("/account", "Your account")
    cookie = visitor.cookie()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"], cookie["domain"]) == (True, "Lax", "/", "127.0.0.1")
    assert "expiry" not in cookie

    end_other_session(demo, visitor)
    visitor.press("Sign out", where="header")
    assert visitor.heading == "You are signed out"
    assert visitor.cookie() is None

    reset_by_mail(demo, visitor)
    visitor.fill_in(email=EMAIL, password=PASSWORD)
    visitor.press("Sign in")
    assert visitor.text("[role=alert]") == REFUSED
    visitor.fill_in(password=NEW_PASSWORD)
    visitor.press("Sign in")
    assert visitor.heading == "Your account"


def end_other_session(demo: Demo, visitor: Visitor) -> None:
    """Sign in with another client, find its session in the list and end it."""
    with httpx.Client(base_url=demo.url, headers={"User-Agent": "curl/8"}) as elsewhere:
        assert elsewhere.post("/auth/password/sign_in", data=credentials()).status_code == 200
        visitor.open("/account")
        assert "Chrome on Linux" in visitor.text(f"{SESSIONS} li:first-child")
        assert "This session" in visitor.text(f"{SESSIONS} li:first-child")
        assert "curl/8" in visitor.text(f"{SESSIONS} li:last-child")
        visitor.press("End")
        assert visitor.text(".notice") == "The session was ended."
        assert "curl/8" not in visitor.text(SESSIONS)
        assert elsewhere.get("/account").status_code == 303


def reset_by_mail(demo: Demo, visitor: Visitor) -> None:
    """Request a link, open it, enter an invalid and a valid password. No URL contains the token after a submission."""
    visitor.press("Sign in")
    visitor.press("Forgot your password?")
    visitor.fill_in(email=EMAIL)
    visitor.press("Send the link")
    assert visitor.heading == "Check your mail"
    visitor.open(demo.printed(r"http://\S+reset_token=\S+"))
    assert "reset_token=" in visitor.path

    visitor.fill_in(password="short", password_confirmation="short")
    visitor.press("Set the new password")
    assert (visitor.path, visitor.text("#password-problem")) == (
        "/auth/password/reset",
        "Use at least 8 characters.",
    )
    visitor.fill_in(password=NEW_PASSWORD, password_confirmation=NEW_PASSWORD)
    visitor.press("Set the new password")
    assert (visitor.path, visitor.heading) == ("/auth/password/reset", "Done")
    visitor.press("Sign in")


@pytest.mark.parametrize("domain", ["faß.example", "bücher.example", "βόλος.mail.example"])
def test_typed_address_arrives_unchanged(demo: Demo, visitor: Visitor, domain: str) -> None:
    """AC-6: the browser does not rewrite the domain at registration, sign-in, reset, change and invitation."""
    sign_up_elsewhere(demo, f"script@{domain}")
    visitor.open(SIGN_IN)
    visitor.fill_in(email=f"script@{domain}", password=PASSWORD)
    visitor.press("Sign in")
    assert visitor.text("main .rows strong") == f"script@{domain}"
    invite(demo, visitor, f"friend@{domain}")
    visitor.open(CHANGE_EMAIL)
    visitor.fill_in(email=f"new@{domain}", current_password=PASSWORD)
    visitor.press("Send the link")
    assert f"new@{domain}" in visitor.text(".rows li:last-child")
    visitor.press("Sign out", where="header")

    visitor.open(REGISTER)
    visitor.fill_in(email=f"typed@{domain}", password=PASSWORD, password_confirmation=PASSWORD)
    visitor.press("Create the account")
    assert visitor.heading == "Check your mail"
    demo.printed(f"typed@{domain}")
    visitor.open("/auth/password/reset_request")
    visitor.fill_in(email=f"script@{domain}")
    visitor.press("Send the link")
    demo.printed(f"script@{domain}")


def test_remembered_session_has_a_persistent_cookie(demo: Demo, visitor: Visitor) -> None:
    """The checkbox gives the cookie an expiry; the page shows the end of the session."""
    sign_up_elsewhere(demo, EMAIL)
    visitor.open(SIGN_IN)
    visitor.fill_in(email=EMAIL, password=PASSWORD)
    visitor.driver.find_element(By.NAME, "remember_me").click()
    visitor.press("Sign in")

    assert "expiry" in visitor.cookie()
    assert "Kept until" in visitor.text(SESSIONS)


def test_pending_change_of_address_is_shown_and_cancelled(demo: Demo, visitor: Visitor) -> None:
    """A remembered sign-in requires the password again; the page shows the pending change, which can be cancelled."""
    sign_up_elsewhere(demo, EMAIL)
    visitor.open(SIGN_IN)
    visitor.fill_in(email=EMAIL, password=PASSWORD)
    visitor.driver.find_element(By.NAME, "remember_me").click()
    visitor.press("Sign in")
    visitor.press("Change")
    assert visitor.heading == "Is it still you?"
    visitor.fill_in(password=PASSWORD)
    visitor.press("Continue")

    ask_for_change(visitor)
    visitor.press("Cancel")
    assert visitor.text(".notice") == "The change was cancelled. Your address stays as it is."
    assert NEW_EMAIL not in visitor.text("main")
    visitor.press("Change")
    ask_for_change(visitor)


def ask_for_change(visitor: Visitor) -> None:
    """Enter a wrong password, then the right one; the page shows the pending change."""
    visitor.fill_in(email=NEW_EMAIL, current_password="not this one")
    visitor.press("Send the link")
    assert visitor.text("#current_password-problem") == "The password is wrong."
    visitor.fill_in(current_password=PASSWORD)
    visitor.press("Send the link")
    assert visitor.path == "/account?note=change_asked"
    assert NEW_EMAIL in visitor.text(".rows li:last-child")
    assert visitor.text(".waits") == "Not confirmed yet"


def test_invited_users_register_and_join(demo: Demo, visitor: Visitor) -> None:
    """A user without an account registers; a user with one signs in on the invitation's page. No URL gets the token."""
    sign_up(demo, visitor)
    mailed = invite(demo, visitor, OTHER_EMAIL)
    visitor.open(mailed)
    assert f"Sign out to continue as {OTHER_EMAIL}." in visitor.text("main")
    visitor.press("Sign out and continue")
    visitor.fill_in(password="password", password_confirmation="password")
    visitor.press("Create the account")
    assert visitor.text("#password-problem").startswith("This password is easy to guess.")
    visitor.fill_in(password=PASSWORD, password_confirmation=PASSWORD)
    visitor.press("Create the account")
    assert visitor.path == "/account"
    assert OTHER_EMAIL in visitor.text("main")

    mailed = invite(demo, visitor, EMAIL)
    visitor.press("Sign out", where="header")
    visitor.open(mailed)
    visitor.fill_in(email=EMAIL, password=PASSWORD)
    visitor.press("Sign in")
    assert visitor.path == "/auth/password/sign_in"
    visitor.press("Accept")
    assert visitor.text(".notice") == "You have accepted the invitation. Welcome!"
    visitor.open("/invitations")
    assert f"{OTHER_EMAIL} Accepted" in visitor.text(".rows")


def invite(demo: Demo, visitor: Visitor, email: str) -> str:
    """Send an invitation with the form and return the link in its mail."""
    visitor.open("/invitations")
    visitor.press("Invite people")
    visitor.fill_in(email=email)
    visitor.press("Send the invitation")
    assert visitor.text(".notice") == "The invitation is on its way."
    assert f"{email} Waiting" in visitor.text(".rows")
    return demo.printed(r"http://\S+invitation_token=\S+")


# --- other sites -----------------------------------------------------------------------------------------------------


@contextmanager
def other_site(target: str) -> Iterator[str]:
    """A page of another site with forms that post to the demo, and a script that would change the title."""
    fields = "".join(f'<input name="{name}" value="{value}">' for name, value in credentials(OTHER_EMAIL).items())
    page = (
        "<!doctype html><title>quiet</title><script>document.title = 'loud'</script>"
        f'<form method="post" action="{target}/auth/sign_out"><button>out</button></form>'
        f'<form method="post" action="{target}/account/end_others"><button>others</button></form>'
        f'<form method="post" action="{target}/auth/password/sign_in">{fields}<button>in</button></form>'
    )

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *args: Any) -> None:
            """Write no log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_other_sites_cannot_sign_users_in_or_out(demo: Demo, visitor: Visitor) -> None:
    """CF-1: localhost and 127.0.0.1 are two sites; posts from one to the other are refused, signed in or not."""
    with other_site(demo.url) as address:
        sign_up_elsewhere(demo, OTHER_EMAIL)
        visitor.open(address)
        visitor.press("in", where="body")
        assert visitor.cookie() is None
        sign_up(demo, visitor)
        before = visitor.cookie()["value"]
        for button in ("out", "in"):
            visitor.open(address)
            assert visitor.driver.title == "quiet"
            visitor.press(button, where="body")
            assert "The request came from another site" in visitor.text("main")
        visitor.open(address)
        visitor.press("others", where="body")
        assert re.match(f"{SIGN_IN}|/account", visitor.path)

        visitor.open("/account")
        assert visitor.cookie()["value"] == before
        assert EMAIL in visitor.text("main")
