"""Pictures of a report for the docs: python benchmarks/report_pictures.py runs/quickstart-seed0/report.html docs

Writes `report_overview.png`, `report_compared.png` and `report_tokens.png`, or with `--sections learning behaviour` a
picture of each of these sections; needs Chromium, the playwright package (`make test-browser` installs it), and a
report of a run of `retool rl`.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sections", nargs="+", default=[])
    parser.add_argument("--chromium", default=os.environ.get("RETOOL_CHROMIUM") or shutil.which("chromium"))
    args = parser.parse_args()
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=args.chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 720})
        page.goto(args.report.resolve().as_uri())
        page.wait_for_selector("html[data-charts=drawn]")
        if args.sections:
            take_sections(page, args.sections, args.out)
        else:
            page.screenshot(path=args.out / "report_overview.png")
            take_browser(page, args.out)
        browser.close()


def take_sections(page: Page, names: list[str], out: Path) -> None:
    page.set_viewport_size({"width": 1200, "height": 860})
    for name in names:
        page.evaluate("name => document.getElementById(name).scrollIntoView({ behavior: 'instant' })", name)
        page.screenshot(path=out / f"report_{name}.png")


def take_browser(page: Page, out: Path) -> None:
    page.evaluate("document.getElementById('trajectories').scrollIntoView({ behavior: 'instant' })")
    page.select_option("#verdict", "wrong")
    page.select_option("#order", "recorded")
    choose_part(page, "held-out")
    page.locator(".item").first.click()
    page.keyboard.press("c")
    page.wait_for_selector("#reader article + article")
    page.screenshot(path=out / "report_compared.png")
    page.keyboard.press("Escape")
    page.select_option("#verdict", "")
    choose_part(page, "rollouts")
    page.select_option("#order", "calls")
    page.locator(".item").first.click()
    page.get_by_role("button", name="Advantage", exact=True).click()
    page.wait_for_selector(".tokens.advantages")
    page.screenshot(path=out / "report_tokens.png")


def choose_part(page: Page, part: str) -> None:
    """Of the first run that has it."""
    page.select_option("#run", page.locator(f"#run option[value$='{part}']").first.get_attribute("value"))


if __name__ == "__main__":
    main()
