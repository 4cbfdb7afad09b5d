"""The page as a whole, in Chromium: how soon it can be used, by keyboard alone, keys, errors, and servers without models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from browser.visitor import Visitor
from playwright.sync_api import expect
from support import Server, pixels

LOADED = """performance.getEntriesByType("resource").filter(({name}) => !/v1|health/.test(name)).map((one) => one.decodedBodySize)"""
Start = Callable[..., Server]
Visit = Callable[[Server], Visitor]


def test_it_can_be_used_within_a_second(visitor: Visitor) -> None:
    visitor.open().close()
    taken = []
    for _ in range(3):
        page = visitor.context.new_page()
        page.goto(visitor.server.url, wait_until="commit")
        page.get_by_role("tab").first.wait_for()
        taken.append(page.evaluate("performance.now()"))
        page.locator(".pictures img").first.wait_for()
        loaded = page.evaluate(LOADED)
        page.close()
    print(f"until there are tabs: {', '.join(f'{one:.0f}' for one in taken)} ms; first load: {len(loaded)} files, {sum(loaded):,} bytes")
    assert sum(loaded) < 200_000
    assert min(taken) < 1000


def test_by_keyboard(visitor: Visitor) -> None:
    page = visitor.open("generate")
    page.get_by_role("tab", name="Generate").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Digits")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Digits")).to_be_visible()
    page.keyboard.press("End")
    expect(page.get_by_role("tab").last).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    expect(page.locator("[role=tabpanel]:visible input[type=radio]").first).to_be_focused()


def test_what_is_wrong_is_said_in_words(visitor: Visitor, tmp_path: Path) -> None:
    (tmp_path / "letter.png").write_text("Dear model,")
    page = visitor.open("upscale")
    page.locator("[role=tabpanel]:visible input[type=file]").set_input_files(tmp_path / "letter.png")
    expect(page.get_by_role("alert").and_(page.locator(":visible"))).to_contain_text("The picture cannot be read")
    assert len(visitor.wrong) == 1, visitor.wrong
    assert "415" in visitor.wrong.pop()
    visitor.look("problem")


def test_the_key_is_asked_for_when_one_is_wanted(start: Start, visit: Visit) -> None:
    guarded = start(ATELIER_API_KEYS="sesame", ATELIER_LOAD="cdcgan")
    guarded.until_loaded()
    visitor = visit(guarded)
    page = visitor.page
    page.goto(guarded.url)
    field = page.get_by_label("This server wants a key")
    expect(field).to_be_focused()
    visitor.look("key")
    field.fill("wrong")
    field.press("Enter")
    expect(page.get_by_text("The key is not known.")).to_be_visible()
    field.fill("sesame")
    field.press("Enter")
    expect(page.locator(".written img")).to_have_count(4)
    expect(field).to_be_hidden()
    expect(page.locator("[role=tabpanel]:visible pre")).to_contain_text("Bearer $KEY")
    assert "sesame" not in page.content()
    assert all("401" in wrong for wrong in visitor.wrong), visitor.wrong
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_the_code_does_what_the_page_did(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("upscale")
    panel = page.locator("[role=tabpanel]:visible")
    panel.get_by_role("button", name="a fig, 132 x 88").click()
    panel.get_by_text("132 x 88 became 528 x 352").wait_for()
    curl = panel.locator("pre").inner_text()
    panel.get_by_role("radio", name="Python").check()
    python = panel.locator("pre").inner_text()
    for number, command in enumerate((["bash", "-c", curl], [sys.executable, "-c", python])):
        folder = tmp_path / str(number)
        folder.mkdir()
        subprocess.run(command, cwd=folder, check=True, timeout=60, capture_output=True)
        assert pixels((folder / "upscaled.png").read_bytes()).shape == (352, 528, 3)


def test_the_code_saves_pictures(visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.open("digits")
    panel = page.locator("[role=tabpanel]:visible")
    panel.get_by_text("2026 written").wait_for()
    subprocess.run(["bash", "-c", panel.locator("pre").inner_text()], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    assert pixels((tmp_path / "digits.png").read_bytes()).shape == (28, 4 * 28)
    (tmp_path / "digits.png").unlink()
    panel.get_by_role("radio", name="Python").check()
    subprocess.run([sys.executable, "-c", panel.locator("pre").inner_text()], cwd=tmp_path, check=True, timeout=60, capture_output=True)
    assert pixels((tmp_path / "digits.png").read_bytes()).shape == (28, 4 * 28)


def test_a_server_that_is_away_is_tried_again(visitor: Visitor) -> None:
    page = visitor.open("digits")
    page.locator(".written img").first.wait_for()
    panel = page.locator("[role=tabpanel]:visible")
    visitor.context.set_offline(True)
    page.get_by_role("tab", name="Caption").click()
    expect(panel.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    visitor.context.set_offline(False)
    page.get_by_role("tab", name="Caption").click()
    example = panel.get_by_role("button", name="two umbrellas")
    example.wait_for()
    visitor.context.set_offline(True)
    example.click()
    expect(panel.get_by_role("alert")).to_contain_text("The server cannot be reached.")
    expect(panel.locator("[aria-pressed=true]")).to_have_count(0)
    visitor.context.set_offline(False)
    example.click()
    expect(panel.locator(".sentence button").first).to_be_visible()
    expect(panel.locator("[role=alert]")).to_be_empty()
    assert all("ERR_INTERNET_DISCONNECTED" in wrong for wrong in visitor.wrong), visitor.wrong
    visitor.wrong.clear()


@pytest.mark.few
def test_an_operation_without_a_model_says_so(start: Start, visit: Visit) -> None:
    small = start(ATELIER_LOAD="cdcgan")
    small.until_loaded()
    visitor = visit(small)
    page = visitor.open("caption")
    expect(page.get_by_text("No model of this server serves caption.")).to_be_visible()
    assert page.get_by_role("tab").first.inner_text() == "Digits"
    visitor.look("unserved")
    assert visitor.wrong == []
