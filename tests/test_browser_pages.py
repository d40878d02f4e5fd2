"""The library's pages in a real browser: languages, widths, light and dark schemes, the keyboard, and axe."""

import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.browsing import browser
from tests.demos import SIGN_IN, Demo, running_demo
from tests.support import EMAIL, PASSWORD, credentials
from tests.test_browser import Visitor, sign_up_elsewhere

pytestmark = pytest.mark.slow

OPEN = (SIGN_IN, "/auth/password/register", "/auth/password/reset_request", "/auth/confirmation/resend")
DEAD = (
    "/auth/password/reset",
    "/auth/invitation/view?invitation_token=x",
    "/auth/confirmation/undo?undo_token=x",
    "/auth/nowhere/x",
)
SIGNED_IN = (
    "/auth/account",
    "/auth/confirmation/change_email",
    "/auth/password/reauthenticate",
    "/auth/invitation/invite",
)
OF_THE_DEMO = ("/", "/account", "/invitations")
"""Pages in English only."""
LANGUAGES = {"en": "Sign in", "de": "Anmelden", "ar": "تسجيل الدخول"}
LOOKS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
AXE = files("axe_core_python").joinpath("axe.min.js").read_text()
"""A script that checks WCAG rules."""
SCREENSHOTS = os.environ.get("ASGI_AUTH_SCREENSHOTS")
"""A directory for a screenshot of every page; without it no screenshots are taken."""


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    """A new demo."""
    with running_demo(tmp_path / "demo") as running:
        yield running


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Chrome]:
    """A browser with scripts, which only axe requires: the pages have none."""
    with browser(tmp_path / "profile", scripts=True) as started:
        yield started


def _look(driver: Chrome, width: int, scheme: str) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


def _speak(driver: Chrome, language: str) -> None:
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": language}})


def _violations(driver: Chrome) -> list[tuple[str, list[Any]]]:
    driver.execute_script(AXE)
    found = driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]


def _check(driver: Chrome, language: str, path: str) -> None:
    """Check the open page at every width and in every scheme."""
    html = driver.find_element(By.TAG_NAME, "html")
    assert html.get_attribute("dir") == ("rtl" if language == "ar" else "ltr"), path
    for width, scheme in LOOKS:
        _look(driver, width, scheme)
        size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        assert size["width"] <= width, (path, width)
        assert _violations(driver) == [], (path, width, scheme)
        if SCREENSHOTS:  # pragma: no cover  # for reviewers
            name = f"{path.strip('/').partition('?')[0].replace('/', '-')}-{language}-{width}-{scheme}.png"
            driver.save_screenshot(str(Path(SCREENSHOTS) / name))


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_have_no_barriers(demo: Demo, driver: Chrome, language: str) -> None:
    """WCAG 2.2, as far as a program can check it: every page, light and dark, on a phone and a wide screen."""
    visitor = Visitor(driver, demo.url)
    _speak(driver, language)
    for path in (*OPEN, *DEAD):
        visitor.open(path)
        _check(driver, language, path)
    sign_up_elsewhere(demo, EMAIL)
    visitor.open(SIGN_IN)
    assert visitor.heading == LANGUAGES[language]
    visitor.fill_in(email=EMAIL, password="not the password")
    visitor.press(visitor.text("main button"))
    assert driver.find_element(By.CSS_SELECTOR, "[role=alert]").text
    _check(driver, language, "refused")
    visitor.fill_in(email=EMAIL, password=PASSWORD)
    visitor.press(visitor.text("main button"))
    for path in (*SIGNED_IN, *(OF_THE_DEMO if language == "en" else ())):
        visitor.open(path)
        assert visitor.path == path
        _check(driver, language, path)


def test_sign_in_works_with_the_keyboard_alone(demo: Demo, driver: Chrome) -> None:
    """The tab order is the order of the page, the focus is visible, and Enter sends the form."""
    sign_up_elsewhere(demo, EMAIL)
    visitor = Visitor(driver, demo.url)
    visitor.open(SIGN_IN)
    form, reached = credentials(), list[str]()
    while "remember_me" not in reached:
        ActionChains(driver).send_keys(Keys.TAB).perform()
        focused = driver.switch_to.active_element
        name = str(focused.get_attribute("name"))
        reached += [name] if name else []
        assert len(reached) <= len(form) + 1
        assert focused.value_of_css_property("outline-style") == "solid"
        if name in form:
            focused.send_keys(form[name])
    ActionChains(driver).send_keys(Keys.TAB).perform()
    page = driver.find_element(By.TAG_NAME, "html")
    ActionChains(driver).send_keys(Keys.ENTER).perform()
    visitor.wait_for_another(page)

    assert reached == ["email", "password", "remember_me"]
    assert visitor.path == "/account"


def test_enlarged_pages_fit(demo: Demo, driver: Chrome) -> None:
    """WCAG 1.4.4 and 1.4.10: at 400 % of 1280 pixels and at 200 % of 640, no page scrolls sideways."""
    visitor = Visitor(driver, demo.url)
    for path in (*OPEN, *DEAD):
        visitor.open(path)
        assert visitor.width_at(320) <= 320, path
