"""Somebody at the page, whose every step is watched."""

from __future__ import annotations

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize
from support import ROOT, Server

SCREENSHOTS = ROOT / "build" / "screenshots"
DESKTOP, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=360, height=740)


class Visitor:
    """A page of a server, and what should not have happened on it.

    Attributes:
        wrong: errors on the console, and requests that left the host.
    """

    def __init__(self, browser: Browser, server: Server) -> None:
        self.server = server
        self.context = browser.new_context(viewport=DESKTOP, reduced_motion="reduce")
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.wrong: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self._left(request.url))

    def open(self, tab: str = "") -> Page:
        self.page.goto(f"{self.server.url}/#{tab}")
        if tab:
            self.page.get_by_role("tab", selected=True).and_(self.page.locator(f"#tab-{tab}")).wait_for()
        return self.page

    def look(self, name: str) -> None:
        """Takes screenshots at both widths, light and dark, and looks for what people would stumble over."""
        for width, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
            self.page.set_viewport_size(viewport)
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme=scheme)
                self.page.mouse.move(0, 0)
                SCREENSHOTS.mkdir(parents=True, exist_ok=True)
                self.page.screenshot(path=SCREENSHOTS / f"{name}-{width}-{scheme}.png", full_page=True)
                self._check(f"{name}, {width}, {scheme}")
            assert self.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], f"{name} is wider than a {width}"
        self.page.set_viewport_size(DESKTOP)

    def _check(self, where: str) -> None:
        """By the rules of axe-core."""
        found = [one for one in Axe().run(self.page).response["violations"] if one["impact"] != "minor"]
        assert [f"{where}: {one['help']}: {node['html']}" for one in found for node in one["nodes"]] == []

    def _said(self, message: ConsoleMessage) -> None:
        asked_too_late = "/v1/requests/" in message.location["url"] and "404" in message.text  # whose answer came first
        if message.type in ("error", "warning") and not asked_too_late:
            self.wrong.append(message.text)

    def _left(self, url: str) -> None:
        if not url.startswith((self.server.url, "data:", "blob:")):
            self.wrong.append(f"a request went to {url}")
