"""The page at /, over HTTP: every file that it needs is there, small, public, and of this server's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest
from support import Server

from service import page

FILES = sorted(path for path in page.FOLDER.rglob("*") if path.is_file())
TEXTS = [path for path in FILES if path.suffix in (".html", ".css", ".js", ".txt")]
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".jpg": "image/jpeg",
    ".js": "text/javascript",
    ".png": "image/png",
    ".txt": "text/plain",
}
FIRST_LOAD = 200_000
LARGEST_EXAMPLE = 40_000


def name(path: Path) -> str:
    return path.relative_to(page.FOLDER).as_posix()


def references(address: str, text: str) -> Iterator[str]:
    """Addresses on this server that a page or a module names: links, and imports, also those of tabs that are opened later."""
    for link in re.findall(r'(?:src|href)="([^"#]+)"', text) if address == "/" else re.findall(r'(?:from |import\()"([^"]+)"', text):
        yield urljoin(address, link)


def everything(client: httpx.Client) -> dict[str, httpx.Response]:
    """The page and all that can be reached from it, save what the templates of tabs make up."""
    answers, waiting = dict[str, httpx.Response](), ["/", *(f"/playground/{name(path)}" for path in FILES if path.parent.name == "tabs")]
    while waiting:
        address = waiting.pop()
        if address not in answers:
            answers[address] = client.get(address)
            waiting += references(address, answers[address].text) if address == "/" or address.endswith(".js") else []
    return answers


def test_everything_that_the_page_names_is_there(client: httpx.Client) -> None:
    answers = everything(client)
    assert len(answers) > 20
    for address, answer in answers.items():
        assert answer.status_code == 200, address
    reached = {address.removeprefix("/playground/") for address in answers}
    modules = {name(path) for path in FILES if path.suffix == ".js"}
    assert modules <= reached
    assert {f"tabs/{task}.js" for task in re.findall(r'^  \["([a-z]+)", "[A-Z]', (page.FOLDER / "main.js").read_text(), re.M)} == {
        module for module in modules if module.startswith("tabs/")
    }


@pytest.mark.parametrize("path", FILES, ids=name)
def test_each_file_has_its_type_and_the_headers(client: httpx.Client, path: Path) -> None:
    answer = client.get("/" if path.name == "index.html" else f"/playground/{name(path)}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == TYPES[path.suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'; img-src 'self' data: blob:" in policy
    assert "unsafe" not in policy


def test_the_etag_saves_the_second_load(client: httpx.Client) -> None:
    for address in ("/", "/playground/main.js", "/playground/examples/digit-2.png"):
        first = client.get(address)
        again = client.get(address, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert "default-src 'self'" in again.headers["content-security-policy"]
        assert client.head(address).status_code == 200


def test_the_first_load_is_small() -> None:
    """All there is, tabs that are loaded later included, is less than the first load may be; examples come by themselves."""
    pages = sum(path.stat().st_size for path in FILES if path.parent.name != "examples")
    print(f"the page with all its tabs: {pages:,} bytes; examples: {sum(path.stat().st_size for path in FILES) - pages:,}")
    assert pages < FIRST_LOAD
    assert max(path.stat().st_size for path in FILES if path.parent.name == "examples") < LARGEST_EXAMPLE


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_no_file_names_another_host(path: Path) -> None:
    assert re.findall(r"(?:https?:|wss?:|[\"'(])//\S+", path.read_text()) == []


def test_nothing_is_inline() -> None:
    text = (page.FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]+src=)", text)


def test_every_example_is_offered_and_told_of() -> None:
    offered = set(re.findall(r'file: "([^"]+)"', (page.FOLDER / "parts" / "examples.js").read_text()))
    there = {path.name for path in FILES if path.parent.name == "examples"} - {"NOTICE.txt"}
    told = set(re.findall(r"[\w-]+\.(?:png|jpg)(?=[ \n])", (page.FOLDER / "examples" / "NOTICE.txt").read_text()))
    assert offered == there
    assert there <= told


def test_the_page_is_public(start: Callable[..., Server]) -> None:
    guarded = start(ATELIER_API_KEYS="one", ATELIER_LOAD="cdcgan")
    for address in ("/", "/playground/main.js", "/playground/examples/digit-2.png"):
        assert guarded.client.get(address).status_code == 200
    assert guarded.client.get("/v1/models").status_code == 401


def test_what_is_not_there_is_a_problem(client: httpx.Client) -> None:
    for address in ("/playground/", "/playground/nothing.js", "/playground/../app.py", "/playground/%2e%2e/app.py", "/playground/%00"):
        answer = client.get(address)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), address
    refused = client.post("/playground/main.js")
    assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")


def test_the_page_is_no_operation(client: httpx.Client) -> None:
    assert not [path for path in client.get("/openapi.json").json()["paths"] if path == "/" or path.startswith("/playground")]
