"""Headless Chromium for the tests of pages that must work offline.

Tests load it by path, because pytest runs with ``--import-mode=importlib`` and tests are no package::

    # conftest.py of a folder of tests
    import importlib.util
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("reconlab_browser", Path(__file__).parents[1] / "browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    browser = module.browser          # a fixture: browser.open(path), browser.until(...), browser.driver, …
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--use-angle=swiftshader",  # WebGL by software, the same on every machine
    "--enable-unsafe-swiftshader",
)
PATIENCE = 60.0  # seconds until a condition that does not come is a failure; a shared machine may be slow


class Browser:
    """A Chromium that a test drives; everything that it asks of the network and says in its console is kept.

    Attributes:
        driver: The ``selenium.webdriver.Chrome``.
        requests: Addresses that the pages asked for, other than ``file:``, ``data:``, ``blob:`` and Chromium's own.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self._requests: list[str] = []

    def open(self, path: Path | str, width: int = 1280, height: int = 900) -> None:
        """Load a file (or an address) in a window of that size; the logs start anew."""
        self._drain()
        self._requests = []
        self.driver.get_log("browser")
        self.driver.set_window_size(width, height)
        self.driver.get(path if isinstance(path, str) else path.resolve().as_uri())

    def until(self, condition: Any, message: str = "") -> Any:
        """Wait for a condition of the driver (a callable, as of ``expected_conditions``); returns its value."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(condition, message)

    def until_script(self, expression: str, *arguments: Any) -> Any:
        """Wait until a JavaScript expression is true; returns its value."""
        return self.until(lambda d: d.execute_script(f"return ({expression})", *arguments), expression)

    def script(self, body: str, *arguments: Any) -> Any:
        """Run JavaScript; ``return`` gives a value."""
        return self.driver.execute_script(body, *arguments)

    def find(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> list[Any]:
        """All elements of a CSS selector."""
        return list(self.driver.find_elements("css selector", selector))

    def press(self, *keys: str) -> None:
        """Type keys (``selenium.webdriver.common.keys.Keys``) where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def complaints(self) -> list[str]:
        """Warnings and errors in the console since the page was opened, or since the last call.

        What the software renderer says about its own speed is left out.
        """
        said = [e["message"] for e in self.driver.get_log("browser") if e["level"] in ("WARNING", "SEVERE")]
        return [m for m in said if "GL Driver Message (OpenGL, Performance" not in m]

    def requests(self) -> list[str]:
        """What the page asked of any host since it was opened."""
        self._drain()
        return list(self._requests)

    def alert(self) -> str | None:
        """The text of an open ``alert()``; None if there is none."""
        from selenium.common.exceptions import NoAlertPresentException

        try:
            return str(self.driver.switch_to.alert.text)
        except NoAlertPresentException:
            return None

    def prefer(self, scheme: str = "light", motion: str = "no-preference") -> None:
        """The colour scheme and motion that the page is told the user prefers."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def resize(self, width: int, height: int) -> None:
        """The size of the page's viewport, which may be narrower than a window can be."""
        settings = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", settings)

    def screenshot(self, path: Path) -> Path:
        """What the window shows, as a PNG file."""
        self.driver.save_screenshot(str(path))
        return path

    def _drain(self) -> None:
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                url = message["params"].get("request", message["params"])["url"]
                if not url.startswith(("file:", "data:", "blob:", "chrome:", "about:")):
                    self._requests.append(url)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One headless Chromium for the session; skips where Chromium, its driver or selenium is missing."""
    program = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    driver_program = shutil.which("chromedriver")
    if importlib.util.find_spec("selenium") is None:
        pytest.skip("selenium is not installed (pip install 'reconlab[test]')")
    if program is None or driver_program is None:
        pytest.skip("chromium and chromedriver are not both on the PATH")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(prefix="reconlab-chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        options.set_capability("unhandledPromptBehavior", "ignore")  # an alert() must be seen by the test
        driver = webdriver.Chrome(options=options, service=Service(driver_program))
        driver.set_page_load_timeout(PATIENCE)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
