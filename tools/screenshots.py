"""``make screenshots``: start a fresh demo, sign in as the people of ``screenshots.toml`` and picture their pages.

The demo runs in a folder and on a port of its own, so one that somebody works with is not disturbed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from launcher.processes import free_port, send, wait_until

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "screenshots"
START_SECONDS = 600.0

_PASSWORD = re.compile(r"with the password (\S+)")
_SIGN_IN = re.compile(r"^\s*(?P<email>[^\s@]+@[^\s@]+)\s{2,}(?P<who>\S.*?)(\s{2,}.*)?$")


@dataclass(frozen=True)
class SignIn:
    """One person of the sample company."""

    who: str
    email: str
    password: str


@dataclass(frozen=True)
class Picture:
    """One picture to take."""

    name: str
    sign_in: str
    path: str
    width: int
    height: int
    theme: str
    follow: tuple[str, ...] = ()


class ScreenshotError(Exception):
    """A picture that cannot be taken, and why."""


def read_pictures(text: str) -> list[Picture]:
    """The pictures of screenshots.toml with the defaults filled in."""
    settings: dict[str, Any] = tomllib.loads(text)
    return [
        Picture(**{**settings["defaults"], **one, "follow": tuple(one.get("follow", ()))})
        for one in settings["picture"]
    ]


def read_sign_ins(text: str) -> list[SignIn]:
    """What the demo prints: one password, then lines ``mail-address  who  what they do``."""
    password = _PASSWORD.search(text)
    if password is None:
        raise ScreenshotError("The demo printed no password to sign in with.")
    matches = [match for line in text.splitlines() if (match := _SIGN_IN.match(line))]
    return [SignIn(match["who"], match["email"], password.group(1)) for match in matches]


def find_sign_in(sign_ins: list[SignIn], who: str) -> SignIn:
    """The first person whose line begins so. Raises ScreenshotError when there is none."""
    for one in sign_ins:
        if one.who.startswith(who):
            return one
    raise ScreenshotError(f"The demo prints no sign-in for {who!r}, only for: {', '.join(one.who for one in sign_ins)}")


def take(browser: Browser, address: str, picture: Picture, person: SignIn) -> None:
    """Sign in in a fresh window, go to the page, wait for its charts, save the picture."""
    context = browser.new_context(
        viewport={"width": picture.width, "height": picture.height},
        color_scheme="dark" if picture.theme == "dark" else "light",
        device_scale_factor=1,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(f"{address}/sign-in/?next={picture.path}")
    page.locator("input[type=email], input[name=email], input[name=username]").first.fill(person.email)
    page.locator("input[type=password]").first.fill(person.password)
    page.locator("main button[type=submit]").first.click()
    page.wait_for_load_state("networkidle")
    if "/sign-in/" in page.url:
        raise ScreenshotError(f"{person.email} could not sign in.")
    for words in picture.follow:
        target = page.get_by_role("link", name=words).or_(page.get_by_role("button", name=words)).first
        if not target.count():
            raise ScreenshotError(f"{picture.name}: {page.url} has no link or button named {words!r}.")
        target.click()
        page.wait_for_load_state("networkidle")
    settle(page)
    page.screenshot(path=TARGET / f"{picture.name}.png")
    context.close()


def settle(page: Page) -> None:
    """Wait until every chart is drawn; a page with charts says so itself."""
    page.wait_for_load_state("networkidle")
    if page.locator("[data-chart]").count():
        page.wait_for_selector("body[data-ready='1']")


def chromium() -> str:
    """The browser to use. Raises ScreenshotError when there is none."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        raise ScreenshotError("There is no Chromium here. Run `make deps`, or set CHROMIUM to the path of one.")
    return found


def main() -> int:
    """Take every picture."""
    TARGET.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="gpu-commons-screenshots-"))
    folder.chmod(0o755)  # PostgreSQL has to look into it, which is not root
    port = free_port()
    log = folder / "demo.log"
    environment = {**os.environ, "COMMONS_DIR": str(folder / "commons"), "PORT": str(port)}
    try:
        browser_path = chromium()
        with log.open("wb") as handle:
            demo = subprocess.Popen(
                [sys.executable, "-m", "launcher", "demo"], cwd=ROOT, env=environment, stdout=handle, stderr=handle
            )
        try:
            print("Starting a demo …", flush=True)
            started = wait_until(
                lambda: "Ctrl-C stops everything" in log.read_text() or demo.poll() is not None, START_SECONDS, step=0.5
            )
            if demo.poll() is not None or not started:
                raise ScreenshotError(f"The demo did not start:\n{log.read_text()}")
            sign_ins = read_sign_ins(log.read_text())
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=browser_path)
                for picture in read_pictures((ROOT / "tools" / "screenshots.toml").read_text(encoding="utf-8")):
                    take(browser, f"http://localhost:{port}", picture, find_sign_in(sign_ins, picture.sign_in))
                    print(f"docs/screenshots/{picture.name}.png", flush=True)
                browser.close()
        finally:
            send(demo.pid, signal.SIGTERM)
            demo.wait(60)
    except ScreenshotError as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
