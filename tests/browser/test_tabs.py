"""Every tab of the page, used in Chromium against the server, photographed (build/screenshots) and checked by axe-core.

Those marked `few` are what CI runs.
"""

from __future__ import annotations

import re

import pytest
from browser.visitor import SCREENSHOTS, Visitor
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect
from support import encoded

expect.set_options(timeout=20_000)


def panel(page: Page) -> Locator:
    return page.locator("[role=tabpanel]:visible")


def example(page: Page, says: str) -> None:
    panel(page).get_by_role("button", name=says, exact=True).click()


def source(locator: Locator) -> str:
    return locator.get_attribute("src") or ""


def chosen(page: Page) -> Locator:
    """The example that is marked."""
    return panel(page).locator(".examples [aria-pressed=true]")


def done(page: Page, says: str) -> None:
    expect(panel(page).locator(".status")).to_contain_text(says)


def test_generate(visitor: Visitor) -> None:
    page = visitor.open("generate")
    expect(panel(page).locator(".pictures button")).to_have_count(18)
    panel(page).get_by_text("What it is not good for").click()
    expect(panel(page).get_by_text("Not a classifier")).to_be_visible()
    panel(page).get_by_text("What it is not good for").click()
    panel(page).get_by_label("How many").fill("5")
    panel(page).get_by_label("How many").press("Enter")
    expect(panel(page).locator(".pictures button")).to_have_count(5)
    page.get_by_role("button", name="Picture 2 of 5").click()
    turned = panel(page).locator(".turned img")
    before = source(turned)
    panel(page).get_by_label("Latent 1", exact=True).fill("3")
    done(page, "Drawn from the numbers")
    assert source(turned) != before
    visitor.look("generate")


def test_a_way_between_two_pictures(visitor: Visitor) -> None:
    page = visitor.open("generate")
    panel(page).get_by_role("radio", name="In between").check()
    expect(panel(page).locator(".pictures button")).to_have_count(10)
    done(page, "10 pictures")
    visitor.look("generate-way")


def test_the_map_moves_the_digit(visitor: Visitor) -> None:
    page = visitor.open("generate")
    panel(page).get_by_role("radio", name="Map").check()
    expect(panel(page).get_by_label("Model")).to_have_value("vae-map")
    done(page, "Drawn at 0.00, 0.00")
    drawn, square = panel(page).locator("img.large"), panel(page).locator(".map")
    seen = {source(drawn)}
    box = square.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    for step in range(10):
        page.mouse.move(box["x"] + 10 + step * box["width"] / 12, box["y"] + 10 + step * box["height"] / 14)
        page.wait_for_timeout(50)
        seen.add(source(drawn))
    page.mouse.up()
    assert len(seen) > 4
    before = panel(page).locator(".status").inner_text()
    square.press("Shift+ArrowLeft")
    expect(panel(page).locator(".status")).not_to_have_text(before)
    visitor.look("generate-map")


@pytest.mark.few
def test_digits(visitor: Visitor) -> None:
    page = visitor.open("digits")
    done(page, "2026 written")
    panel(page).get_by_label("Number").fill("31x4")
    done(page, "314 written")
    expect(panel(page).locator(".written img")).to_have_count(3)
    before = source(panel(page).locator(".written img").last)
    panel(page).get_by_role("radio", name="One for all").check()
    expect(panel(page).locator(".written img").last).not_to_have_attribute("src", before)
    expect(panel(page).locator("pre")).to_contain_text('"latents"')
    panel(page).get_by_role("radio", name="Python").check()
    expect(panel(page).locator("pre")).to_contain_text("httpx.post")
    panel(page).get_by_role("radio", name="Each digit its own").check()
    expect(panel(page).locator("pre")).to_contain_text('"digits": "314"')
    visitor.look("digits")
    panel(page).get_by_label("Number").fill("")
    done(page, "Type a number.")
    expect(panel(page).locator(".written img")).to_have_count(0)
    expect(panel(page).locator("pre")).to_be_hidden()


def test_reconstruct(visitor: Visitor) -> None:
    page = visitor.open("reconstruct")
    example(page, "a shoe")
    expect(panel(page).get_by_label("Model")).to_have_value("vae-fashion")
    done(page, "Mean squared error")
    example(page, "a written 3")
    expect(panel(page).get_by_label("Model")).to_have_value("vae")
    expect(panel(page).get_by_label("Latent 16", exact=True)).to_be_visible()
    turned = panel(page).locator(".turned img")
    before = source(turned)
    panel(page).get_by_label("Latent 4", exact=True).fill("-3")
    expect(turned).not_to_have_attribute("src", before)
    visitor.look("reconstruct")
    example(page, "a bag")
    done(page, "vae-fashion")
    panel(page).get_by_text("Draw a digit").click()
    draw(page, panel(page).locator(".own canvas"), [(0.5, 0.15), (0.5, 0.85)])
    expect(panel(page).get_by_label("Model")).to_have_value("vae")
    expect(chosen(page)).to_have_count(0)
    expect(panel(page).locator("pre")).to_contain_text("-o reconstructed.png")
    panel(page).get_by_role("button", name="Clear").click()
    expect(panel(page).locator(".pair img")).to_have_count(0)
    expect(panel(page).locator("pre")).to_be_hidden()


def draw(page: Page, canvas: Locator, points: list[tuple[float, float]]) -> None:
    """One stroke, at shares of the canvas."""
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def test_translate(visitor: Visitor) -> None:
    page = visitor.open("translate")
    panel(page).get_by_label("Model").select_option("pix2pix-relief-to-satellite")
    example(page, "relief of the South China Sea")
    done(page, "320 x 240")
    handle = panel(page).locator(".layers input")
    handle.press("Home")
    expect(panel(page).locator(".compare")).to_have_css("--at", "0%")
    handle.fill("50")
    visitor.look("translate")


def test_a_translator_is_offered_its_own_examples_and_keeps_no_others_result(visitor: Visitor) -> None:
    page = visitor.open("translate")
    model, code, compared = panel(page).get_by_label("Model"), panel(page).locator("pre"), panel(page).locator(".compare")
    model.select_option("cyclegan-relief-to-satellite")
    example(page, "relief of the Rocky Mountains")
    done(page, "cyclegan-relief-to-satellite")
    model.select_option("pix2pix-relief-to-satellite")
    done(page, "pix2pix-relief-to-satellite")
    expect(chosen(page)).to_have_count(1)
    for name, says in (
        ("cyclegan-satellite-to-relief", "the Rocky Mountains from above"),
        ("cyclegan-google-to-twitter", "a grinning face as Google draws it"),
        ("cyclegan-twitter-to-google", "a winking face as Twitter draws it"),
    ):
        model.select_option(name)
        done(page, "Choose a picture to begin.")
        expect(compared).to_have_count(0)
        expect(code).to_be_hidden()
        expect(chosen(page)).to_have_count(0)
        example(page, says)
        done(page, name)
        expect(compared).to_be_visible()
    expect(panel(page).get_by_text("kind twitter (emoji)")).to_be_visible()
    panel(page).get_by_role("button", name="Draw edges").click()
    expect(panel(page).locator(".sketching")).to_be_visible()
    expect(compared).to_have_count(0)
    expect(code).to_be_hidden()


@pytest.mark.few
def test_edges_become_an_emoji(visitor: Visitor) -> None:
    page = visitor.open("translate")
    panel(page).get_by_label("Model").select_option("pix2pix-edges-to-emoji")
    canvas = panel(page).locator(".sketching canvas")
    draw(page, canvas, [(0.5, 0.1), (0.9, 0.5), (0.5, 0.9), (0.1, 0.5), (0.5, 0.1)])
    made = panel(page).locator(".made img")
    expect(made).to_be_visible()
    first = source(made)
    draw(page, canvas, [(0.4, 0.4), (0.4, 0.5)])
    expect(made).not_to_have_attribute("src", first)
    panel(page).get_by_role("button", name="Undo").click()
    panel(page).get_by_role("button", name="Clear").click()
    expect(made).to_be_hidden()
    panel(page).get_by_role("button", name="A face").click()
    expect(made).to_be_visible()
    expect(panel(page).get_by_role("link", name="Save drawing.png")).to_be_visible()
    visitor.look("translate-edges")


def test_upscale(visitor: Visitor) -> None:
    page = visitor.open("upscale")
    example(page, "a fig, 132 x 88")
    done(page, "132 x 88 became 528 x 352")
    visitor.look("upscale")
    large = {"name": "large.png", "mimeType": "image/png", "buffer": encoded(Image.linear_gradient("L").resize((600, 400)))}
    with page.expect_response(re.compile("/v1/requests/")) as asked:
        panel(page).locator("input[type=file]").set_input_files(large)
    assert asked.value.json().keys() == {"state", "position", "done", "total"}
    done(page, "600 x 400 became 2400 x 1600")


def test_it_is_said_that_something_is_under_way(visitor: Visitor) -> None:
    page = visitor.open("upscale")
    held: list[Route] = []
    page.route("**/v1/upscale", lambda route: held.append(route))  # noqa: PLW0108  # Playwright marks what it calls
    example(page, "a fig, 132 x 88")
    done(page, "Working …")
    held[0].continue_()
    done(page, "132 x 88 became 528 x 352")


def test_inpaint(visitor: Visitor) -> None:
    page = visitor.open("inpaint")
    example(page, "a fig in a red bowl")
    fill = panel(page).get_by_role("button", name="Paint it anew")
    expect(fill).to_be_disabled()
    draw(page, panel(page).locator(".masked canvas"), [(0.3, 0.4), (0.6, 0.5)])
    fill.click()
    done(page, "Painted anew")
    expect(panel(page).locator(".compare img").first).to_be_visible()
    expect(panel(page).locator("pre")).to_contain_text("# save mask.png first: the link below")
    panel(page).get_by_role("button", name="Undo").click()
    expect(fill).to_be_disabled()
    panel(page).get_by_text("Cover a rectangle by numbers").click()
    panel(page).get_by_role("button", name="Cover it").click()
    expect(fill).to_be_enabled()
    fill.click()
    visitor.look("inpaint")


@pytest.mark.few
def test_anomaly(visitor: Visitor) -> None:
    page = visitor.open("anomaly")
    example(page, "bricks, as they should be")
    verdict = panel(page).locator(".verdict strong")
    expect(verdict).to_have_text("Normal")
    example(page, "bricks, crumbled in one place")
    expect(verdict).to_have_text("Anomalous")
    expect(panel(page).locator(".region")).to_have_count(1)
    threshold = panel(page).get_by_label("Threshold", exact=True)
    threshold.press("End")
    expect(verdict).to_have_text("Normal")
    expect(panel(page).locator("pre")).to_contain_text("threshold=")
    panel(page).get_by_role("button", name="The model's own").click()
    expect(verdict).to_have_text("Anomalous")
    example(page, "gravel with a white stain")
    expect(panel(page).get_by_label("Model")).to_have_value("padim-gravel")
    done(page, "padim-gravel")
    expect(verdict).to_have_text("Anomalous")
    example(page, "bricks, crumbled in one place")
    expect(panel(page).get_by_label("Model")).to_have_value("padim-brick")
    done(page, "padim-brick")
    visitor.look("anomaly")
    panel(page).get_by_label("Model").select_option("brightness")
    expect(panel(page).get_by_text("What normal would look like")).to_be_visible()


def test_the_words_of_a_caption_show_where_the_model_looked(visitor: Visitor) -> None:
    page = visitor.open("caption")
    example(page, "an owl above books")
    word = panel(page).locator(".word").first
    look = panel(page).locator("canvas.look")
    expect(look).to_be_hidden()
    word.hover()
    expect(look).to_be_visible()
    page.mouse.move(0, 0)
    expect(look).to_be_hidden()
    word.focus()
    expect(look).to_be_visible()
    panel(page).get_by_role("radio", name="Sample").check()
    expect(panel(page).locator("pre")).to_contain_text("seed=7")
    panel(page).get_by_role("radio", name="Beam search").check()
    expect(panel(page).locator("pre")).to_contain_text("beams=3")
    done(page, " a word")
    word.focus()
    expect(look).to_be_visible()
    visitor.look("caption")


def test_swap(visitor: Visitor) -> None:
    page = visitor.open("swap")
    example(page, "a grinning face as Google draws it")
    expect(panel(page).get_by_label("As", exact=True)).to_have_value("twitter")
    done(page, "As twitter (emoji)")
    visitor.look("swap")


def test_embed(visitor: Visitor) -> None:
    page = visitor.open("embed")
    for says in ("a stream between rocks", "a meadow before mountains", "a fig in a red bowl", "dandelions in the evening"):
        example(page, says)
    cells = panel(page).locator("tbody td")
    expect(cells).to_have_count(16)
    expect(cells.first).to_have_text("1.00")
    visitor.look("embed")
    panel(page).get_by_label("Model").select_option("vae-map")
    done(page, "2 numbers a picture")
    panel(page).get_by_role("button", name="Remove a fig in a red bowl").click()
    expect(cells).to_have_count(9)


def test_an_error_goes_with_its_cause(visitor: Visitor) -> None:
    page = visitor.open("inpaint")
    alert, stage = panel(page).locator("[role=alert]"), panel(page).locator(".stage")
    letter = {"name": "letter.txt", "mimeType": "text/plain", "buffer": b"Dear model,"}
    panel(page).locator("input[type=file]").set_input_files(letter)
    expect(alert).to_contain_text("This browser cannot show the picture")
    expect(stage).to_have_css("opacity", "0.35")
    example(page, "a fig in a red bowl")
    expect(alert).to_be_empty()
    expect(stage).to_have_css("opacity", "1")


@pytest.mark.parametrize(
    ("tab", "says", "result"),
    [
        ("anomaly", "bricks, crumbled in one place", ".verdict"),
        ("caption", "two umbrellas", ".overlay"),
        ("upscale", "a fig, 132 x 88", ".compare"),
    ],
)
def test_on_a_phone_the_result_comes_into_view(visitor: Visitor, tab: str, says: str, result: str) -> None:
    page = visitor.open(tab)
    page.set_viewport_size({"width": 390, "height": 844})
    example(page, says)
    expect(panel(page).locator(result)).to_be_in_viewport(ratio=0.9)
    page.screenshot(path=SCREENSHOTS / f"{tab}-picked.png")
