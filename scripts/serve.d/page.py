"""page.py --bin DIR [--shots DIR] [ONLY...]: drives the page of the server in a real browser, as scripts/serve-check does.

DIR has the programs. It ends with 1 if anything is not as it should be. ONLY are names of checks; without,
all run. Every page that is opened must keep to the server, stay within its policy, and say nothing on the
browser's console. Screenshots are taken on the way, if there is a folder for them.
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile
import time
import traceback

from playwright.sync_api import sync_playwright

import page_checks
import page_hostile
import page_live
from page_visit import FLAGS, Run

CHECKS = {
    name.removeprefix("check_"): check
    for module in (page_checks, page_live, page_hostile)
    for name, check in vars(module).items()
    if name.startswith("check_")
}


def line_of(error):
    """Where in these files it went wrong."""
    lines = [
        f"{pathlib.Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(str(pathlib.Path(__file__).parent))
    ]
    return ", ".join(lines[-2:])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--shots", type=pathlib.Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("only", nargs="*", choices=[[], *CHECKS])
    given = parser.parse_args()
    started = time.monotonic()
    n_failed = 0
    with (
        tempfile.TemporaryDirectory(prefix="streamguard-page-") as folder,
        sync_playwright() as playwright,
        contextlib.ExitStack() as stack,
    ):
        browser = playwright.chromium.launch(executable_path=given.chromium, args=FLAGS)
        stack.callback(browser.close)
        run = Run(stack, browser, given.bin.resolve(), pathlib.Path(folder), given.shots)
        for name in given.only or CHECKS:
            before = time.monotonic()
            try:
                CHECKS[name](run)
                print(f"page.py: {name}: good, {time.monotonic() - before:.1f} s", file=sys.stderr)
            except Exception as error:
                n_failed += 1
                print(
                    f"page.py: {name}: {type(error).__name__}: {str(error)[:1500]} (at {line_of(error)})",
                    file=sys.stderr,
                )
    print(f"page.py: {n_failed} failed, {time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(1 if n_failed else 0)


if __name__ == "__main__":
    main()
