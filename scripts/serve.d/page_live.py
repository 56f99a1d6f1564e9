"""What comes in while the page is looked at."""

import contextlib
import json
import subprocess
import time
import urllib.request

from playwright.sync_api import expect

import page_data
from page_visit import ROOT, Server, loaded, visible


def message(event, kind="anomaly"):
    """An event as /api/live sends it."""
    return (
        f"event: {kind}\r\nid: {event['timestamp']}:{event['event_id']}\r\ndata: {json.dumps(event)}\r\n\r\n"
    )


class Feed:
    """What answers in the place of /api/live, when it is told to. Each answer ends, so the page asks again."""

    def __init__(self, page):
        self.page, self.waiting = page, []
        page.route("**/api/live*", lambda route: self.waiting.append(route))
        page.reload()

    def next(self):
        """The next question, or the one that waits."""
        while not self.waiting:
            self.page.wait_for_timeout(20)
        return self.waiting.pop(0)

    def give(self, answer):
        """Answers it: with a stream, or a status."""
        route = self.next()
        if isinstance(answer, int):
            route.fulfill(status=answer, body="")
        else:
            route.fulfill(status=200, content_type="text/event-stream", body=answer)


def event(n, severity="high", user="alice"):
    same = {"event_id": f"live-{n}", "user": user, "timestamp": 1_738_300_000_000 + n}
    anomaly = {
        "anomaly_score": 0.9991,
        "severity": severity,
        "reasons": ["address 203.0.113.7: provider new to everybody"],
    }
    return {
        **same,
        "type": "LOGIN_FAILED",
        "source_ip": "203.0.113.7",
        "status": "failed",
        "anomaly": {**same, **anomaly},
    }


def check_live(run):
    override = page_data.HOSTILE["override"]
    with run.visit("#range=all", may_fail=True) as page:
        found, note = page.locator("#live-body li"), page.locator("#live-note")
        feed = Feed(page)
        feed.give(
            f": hello\n\n{message(event(1, 'low'))}{message(event(2, 'critical', override))}"
            'event: skipped\ndata: {"skipped":7}\n\nevent: other\ndata: 1\n\nevent: anomaly\ndata: not JSON\n\n'
        )
        loaded(page)
        expect(found).to_have_count(3)
        expect(found.first).to_have_text("7 left out: more came than could be sent")
        expect(found.nth(1)).to_contain_text(visible(override))
        assert "event=live-2" in found.nth(1).locator("a").get_attribute("href")
        said = f"2 new anomalies, the worst: critical, user {visible(override)}, LOGIN_FAILED, score 0.999"
        expect(page.locator("#live-news")).to_have_text(said)
        expect(page.locator("#news")).to_be_visible()
        # The server has ended it: the page comes again, and tells nothing twice.
        feed.give(message(event(1, "low")) + message(event(3)))
        expect(found).to_have_count(4)
        # Somebody reads: what comes meanwhile waits.
        page.locator("#live-body").hover()
        feed.give(message(event(4)))
        expect(note).to_have_text("paused, 1 waiting")
        expect(found).to_have_count(4)
        page.locator("#live-title").hover()
        expect(found).to_have_count(5)
        # More than are kept.
        feed.give("".join(message(event(n)) for n in range(100, 500)))
        expect(found).to_have_count(300)
        expect(found.first).to_contain_text("alice")
        run.shot(page, "live", is_full=False)
        given_up = feed.next()
        page.locator("#live-switch").click()
        expect(note).to_have_text("off")
        given_up.abort()
        page.locator("#live-switch").click()
        feed.give(500)
        expect(note).to_contain_text("no connection, again in")
        feed.give(404)
        expect(page.locator("#live-switch")).to_have_attribute("aria-checked", "false")
        expect(note).to_have_text("not there")


def stored(server):
    """How many events the server knows of."""
    with urllib.request.urlopen(f"{server.url}/api/stats/summary", timeout=30) as answer:
        return json.load(answer)["events"]


def check_follow(run):
    """What a program writes into a log that is followed comes to the page."""
    with contextlib.ExitStack() as stack:
        log, database = run.folder / "followed.ndjson", run.folder / "followed"
        lines = subprocess.run(
            ["zstd", "-dc", ROOT / "testdata/demo.ndjson.zst"], capture_output=True, check=True
        ).stdout.splitlines(keepends=True)
        log.write_bytes(b"".join(lines[:-1]))
        server = Server(
            stack, run.binaries / "sg-run", "--follow", log, "--db", database, "--serve", "127.0.0.1:0"
        )
        # What was there before is no news.
        while stored(server) < len(lines) - 1:
            time.sleep(0.05)
        with run.visit(server=server) as page:
            loaded(page)
            page.locator("#live-what").select_option("events")
            expect(page.locator("#live-note")).to_have_text("on")
            with log.open("ab") as appended:
                appended.write(lines[-1])
            event = json.loads(lines[-1])
            expect(page.locator("#live-body li")).to_have_count(1)
            expect(page.locator("#live-body li")).to_contain_text(event["user"])
            page.locator("#live-body li a").click()
            expect(page.locator("#detail h1")).to_contain_text(event["type"])
