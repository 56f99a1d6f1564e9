"""What the checks of page.py have in common: servers, a browser's pages, and what must hold on each of them."""

import pathlib
import re
import subprocess

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

import page_data

ROOT = pathlib.Path(__file__).resolve().parents[2]
# As on a machine without a desktop and without a way out; as root there is no sandbox.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
]
# For a machine that has much else to do.
TIMEOUT_MS = 20_000
expect.set_options(timeout=TIMEOUT_MS)
WIDE = {"width": 1600, "height": 1000}
NARROW = {"width": 360, "height": 780}
UNSEEN = re.compile(
    "[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u00a0\u1680\u2000-\u200f"
    "\u2028-\u202f\u205f-\u206f\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\ue000-\uf8ff\U000e0000-\U000e0fff]|^ +| +$"
)


CONTROLS = "NUL SOH STX ETX EOT ENQ ACK BEL BS TAB LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK SYN ETB CAN EM SUB ESC FS GS RS US".split()


def visible(text):
    """Text as the page is to show it: a mark for each character that cannot be seen. Says the rule once more,
    so that the page and this have to agree."""

    def mark(found):
        code = ord(found[0][0])
        if code == 0x20:
            return "␣" * len(found[0])
        return f"[{CONTROLS[code]}]" if code < 0x20 else f"[U+{code:04X}]"

    return re.sub("([\u0300-\u036f]{4})[\u0300-\u036f]+", r"\1…", UNSEEN.sub(mark, text))


class Server:
    """A program that serves."""

    def __init__(self, stack, *command):
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        stack.callback(self.stop)
        for line in self.process.stderr:
            found = re.search(r"http://[\d.]+:\d+", line)
            if found:
                self.url = found[0]
                return
        raise AssertionError(f"{command[0]} does not serve")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stderr.close()


def serve(stack, run, database, *more):
    """A server over a database. Tests ask for more than people do."""
    return Server(
        stack,
        run.binaries / "sg-query",
        "serve",
        "--db",
        database,
        "--listen",
        "127.0.0.1:0",
        "--rate",
        "10000",
        "--quiet",
        *more,
    )


class Visit:
    """A page that is looked at, and all that must not happen on it."""

    def __init__(self, run, server, path="", size=None, scheme="light", may_fail=False, **options):
        self.server, self.may_fail = server, may_fail
        self.context = run.browser.new_context(
            viewport=size or WIDE,
            color_scheme=scheme,
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="Europe/Berlin",
            **options,
        )
        self.context.set_default_timeout(TIMEOUT_MS)
        self.page = self.context.new_page()
        self.wrong = []
        # A violation of the policy is said on the console too.
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', (event) => console.error('policy', event.violatedDirective, event.blockedURI))"
        )
        self.page.on("console", self.hear)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on(
            "dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss())
        )
        self.page.on("request", self.see)
        self.page.on("popup", lambda popup: self.wrong.append(f"window: {popup.url}"))
        self.page.goto(f"{server.url}/{path}")

    def hear(self, message):
        if message.type not in ("error", "warning"):
            return
        # A browser says on its console that an answer was an error, which some checks are about.
        if self.may_fail and message.text.startswith("Failed to load resource"):
            return
        self.wrong.append(f"console: {message.text} {message.location}")

    def see(self, request):
        if not request.url.startswith((f"{self.server.url}/", "data:")):
            self.wrong.append(f"request: {request.url[:200]}")

    def __enter__(self):
        return self.page

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None and self.wrong:
            raise AssertionError("; ".join(self.wrong[:5]))


class Run:
    """What checks have in common: a browser, the databases and their servers."""

    def __init__(self, stack, browser, binaries, folder, shots):
        self.stack, self.browser, self.binaries, self.folder, self.shots = (
            stack,
            browser,
            binaries,
            folder,
            shots,
        )
        self.database, self.worst = page_data.ordinary(binaries, folder, ROOT / "testdata/demo.ndjson.zst")
        self.hostile_database, self.hostile_events = page_data.hostile(binaries, folder)
        self.server = serve(stack, self, self.database)

    def visit(self, path="", **options):
        return Visit(self, options.pop("server", self.server), path, **options)

    def shot(self, page, name, is_full=True):
        if self.shots:
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=self.shots / f"{name}.png", full_page=is_full)


def loaded(page):
    expect(
        page.locator("#list-body .events tbody tr, #list-body .message:not(.loading)").first
    ).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)


def detail(page, **parameters):
    """Opens what the address names."""
    page.evaluate(
        """(parameters) => {
        const query = new URLSearchParams(location.hash.slice(1));
        for (const name of ["event", "at", "user", "find"]) query.delete(name);
        for (const [name, value] of parameters) query.set(name, value);
        if (location.hash === `#${query}`) return null;
        // The page hears of it first, since it has listened for longer.
        const heard = new Promise((resolve) => addEventListener("hashchange", resolve, { once: true }));
        location.hash = query;
        return heard.then(() => null);
    }""",
        list(parameters.items()),
    )
    expect(page.locator("#detail h1")).to_be_visible()
    expect(page.locator("#detail [aria-busy], #detail .loading")).to_have_count(0)


def is_accessible(page):
    found = Axe().run(
        page,
        options={
            "resultTypes": ["violations"],
            "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
        },
    )
    said = [
        f"{each['id']}: {each['nodes'][0]['html'][:160]} {each['nodes'][0]['failureSummary'][:200]}"
        for each in found.response["violations"]
    ]
    assert not said, said


def fits(page):
    widths = page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1], f"the page is wider than its window: {widths}"


def rows(page):
    return page.locator("#list-body .events tbody tr")
