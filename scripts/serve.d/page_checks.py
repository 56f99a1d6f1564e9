"""What the page shows of ordinary events, and how people get about in it."""

import contextlib
import json
import re
import subprocess

from playwright.sync_api import expect

import page_data
from page_visit import NARROW, WIDE, detail, fits, is_accessible, loaded, rows, serve


def check_overview(run):
    for size, scheme, name in [
        (WIDE, "light", "overview-wide-light"),
        (WIDE, "dark", "overview-wide-dark"),
        (NARROW, "light", "overview-narrow-light"),
        (NARROW, "dark", "overview-narrow-dark"),
    ]:
        with run.visit("#range=all", size=size, scheme=scheme) as page:
            loaded(page)
            expect(page.locator("#summary .tile")).to_have_count(4)
            expect(page.locator("#summary")).to_contain_text("12,000")
            assert page.locator("#timeline rect.fill").count() > 10
            expect(rows(page)).to_have_count(50)
            expect(page.locator("#users-body li")).to_have_count(10)
            expect(page.locator("#incidents-body li")).to_have_count(8)
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 600) == (scheme == "light"), ground
            fits(page)
            if (size is WIDE) == (scheme == "light"):
                is_accessible(page)
            run.shot(page, name, is_full=False)


def check_theme(run):
    with run.visit(scheme="light") as page:
        loaded(page)
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("#theme").click()
        expect(page.locator("#theme")).to_have_text("Dark")
        after = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert before != after
        page.reload()
        loaded(page)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def check_filters(run):
    with run.visit("#range=all") as page:
        loaded(page)
        page.locator("#severity").select_option("critical")
        expect(page.locator("#list-body .severity:not(.critical)")).to_have_count(0)
        expect(rows(page).first).to_contain_text("critical")
        assert "severity=critical" in page.url
        page.go_back()
        expect(page.locator("#severity")).to_have_value("")
        expect(page.locator("#list-body .severity.low").first).to_be_visible()
        page.locator("#sort").select_option("score")
        expect(page.locator("#list-body .num").nth(1)).to_have_text("1.000")
        loaded(page)
        scores = [float(text) for text in page.locator("#list-body td.num").all_text_contents()]
        assert scores == sorted(scores, reverse=True) and len(scores) > 50, scores
        page.locator("label[for=range-24h]").click()
        expect(page.locator("#timeline-range")).to_contain_text("2025-01-29")
        loaded(page)
        times = page.locator("#list-body time").evaluate_all(
            "(all) => all.map((each) => Date.parse(each.dateTime))"
        )
        assert max(times) - min(times) <= 86_400_000
        # What is shared shows the same.
        url = page.url
    with run.visit(url.split("/", 3)[3]) as page:
        loaded(page)
        expect(page.locator("#range-24h")).to_be_checked()
        expect(page.locator("#sort")).to_have_value("score")


def check_timeline(run):
    with run.visit("#range=all") as page:
        loaded(page)
        picture = page.locator("#timeline svg")
        box = picture.bounding_box()
        page.mouse.move(box["x"] + 300, box["y"] + 60)
        expect(page.locator("#timeline .said")).to_contain_text("anomalies:")
        page.mouse.down()
        page.mouse.move(box["x"] + 400, box["y"] + 60)
        page.mouse.up()
        page.wait_for_url(re.compile("since="))
        expect(page.locator("#widen")).to_be_visible()
        loaded(page)
        first = page.locator("#timeline-range").text_content()
        # Now by keyboard: the second bucket from the end, and two more.
        picture = page.locator("#timeline svg")
        picture.focus()
        for key in ("End", "ArrowLeft", "Shift+ArrowLeft", "Shift+ArrowLeft", "Enter"):
            page.keyboard.press(key)
        expect(page.locator("#timeline-range")).not_to_have_text(first)
        loaded(page)
        page.locator("#widen").click()
        expect(page.locator("#widen")).to_be_hidden()
        loaded(page)
        page.locator("#timeline summary").click()
        # The table is made once the browser has told of the opening.
        cells = page.locator("#timeline table tbody td:nth-child(2)")
        expect(cells.first).to_be_visible()
        cells = cells.all_text_contents()
        assert sum(int(cell.replace(",", "")) for cell in cells) == 12_000, cells


def check_paging(run):
    with run.visit("#range=all") as page:
        loaded(page)
        page.locator("#list-body button.more").click()
        expect(rows(page)).to_have_count(95)
        expect(page.locator("#list-body button.more")).to_be_hidden()
        links = page.locator("#list-body a.open").evaluate_all("(all) => all.map((each) => each.hash)")
        assert len(set(links)) == 95
        times = page.locator("#list-body time").evaluate_all(
            "(all) => all.map((each) => Date.parse(each.dateTime))"
        )
        assert times == sorted(times, reverse=True)


def check_event(run):
    for size, scheme in [(WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")]:
        with run.visit(
            "#range=all", size=size, scheme=scheme, permissions=["clipboard-read", "clipboard-write"]
        ) as page:
            loaded(page)
            detail(page, event=run.worst["event_id"])
            expect(page.locator("#detail h1")).to_contain_text(run.worst["type"])
            expect(page.locator("#detail .reasons > li")).to_have_count(len(run.worst["anomaly"]["reasons"]))
            for reason, shown in zip(run.worst["anomaly"]["reasons"], page.locator("#detail .reason").all()):
                expect(shown).to_have_text(reason)
            # The hours of the day, and the megabytes of each hour before.
            expect(page.locator("#detail .hours .bar")).to_have_count(48)
            expect(page.locator("#detail .hours .bar.here")).to_have_count(2)
            expect(page.locator("#detail .parts li")).to_have_count(5)
            expect(page.locator("#detail .shares .here")).to_have_count(6)
            expect(page.locator("#detail .model")).to_contain_text("Its words, not a finding of StreamGuard")
            expect(page.locator("#detail")).to_contain_text("session was stolen, ticket 4711")
            expect(page.locator("#detail section[aria-label=Incident] .lead-text")).to_contain_text("anomal")
            expect(page.locator("#detail section[aria-label='Seen before'] tbody tr")).to_have_count(8)
            fits(page)
            if (size is WIDE) == (scheme == "dark"):
                is_accessible(page)
            run.shot(page, f"event-{'wide' if size is WIDE else 'narrow'}-{scheme}")
            page.locator("#detail .raw-event summary").click()
            # As it is stored, not as a browser would write it.
            shown = json.loads(page.locator("#detail .raw").text_content())
            stored = {name: shown[name] for name in run.worst if name in shown}
            assert stored.keys() >= {"event_id", "user", "timestamp", "metadata", "anomaly"}, stored.keys()
            assert all(
                stored[name] == run.worst[name] for name in ("event_id", "user", "timestamp", "metadata")
            ), stored
            page.locator("#detail .raw-event button").first.click()
            expect(page.locator("#detail .raw-event .note")).to_have_text("Copied.")
            assert json.loads(page.evaluate("navigator.clipboard.readText()")) == shown
            page.get_by_role("link", name="← Overview").click()
            expect(page.locator("#overview")).to_be_visible()
            expect(rows(page)).to_have_count(50)


def check_neighbours(run):
    with run.visit("#range=all") as page:
        loaded(page)
        first, second = page.locator("#list-body a.open").evaluate_all(
            "(all) => all.slice(0, 2).map((each) => each.hash)"
        )
        rows(page).first.locator("td.what").click()
        expect(page.locator("#detail nav.back")).to_contain_text("1 of the 50 listed")
        page.get_by_role("link", name="Next ›").click()
        expect(page.locator("#detail nav.back")).to_contain_text("2 of the 50 listed")
        assert page.url.endswith(second), (page.url, second)
        page.get_by_role("link", name="‹ Previous").click()
        expect(page.locator("#detail nav.back")).to_contain_text("1 of the 50 listed")
        assert page.url.endswith(first), (page.url, first)


def check_user(run):
    for size, scheme in [(WIDE, "light"), (NARROW, "dark")]:
        with run.visit(size=size, scheme=scheme) as page:
            loaded(page)
            page.locator("label[for=range-all]").click()
            page.locator("#users-body a").first.click()
            expect(page.locator("#detail h1")).to_contain_text("user")
            expect(page.locator("#detail [aria-busy]")).to_have_count(0)
            expect(page.locator("#detail .hours .bar")).to_have_count(24)
            expect(page.locator("#detail .week .cell")).to_have_count(168)
            assert page.locator("#detail .shares li").count() > 6
            expect(page.locator("#detail section[aria-label='Latest events'] tbody tr")).to_have_count(20)
            page.locator("#detail section[aria-label='Latest events'] button.more").click()
            expect(page.locator("#detail section[aria-label='Latest events'] tbody tr")).to_have_count(40)
            fits(page)
            is_accessible(page)
            run.shot(page, f"user-{'wide' if size is WIDE else 'narrow'}-{scheme}")


def check_find(run):
    with run.visit(may_fail=True) as page:
        loaded(page)

        def find(words):
            page.locator("#query").fill(words)
            page.keyboard.press("Enter")

        find(run.worst["event_id"])
        expect(page.locator("#detail h1")).to_contain_text(run.worst["type"])
        find(run.worst["user"])
        expect(page.locator("#detail h1")).to_have_text(f"User {run.worst['user']}")
        find("password guessing country:RO")
        expect(page.locator("#detail h1")).to_have_text("Found for password guessing country:RO")
        expect(page.locator("#detail tbody tr").first).to_be_visible()
        is_accessible(page)
        # Back to where the search was, not into it again.
        page.go_back()
        expect(page.locator("#detail h1")).to_have_text(f"User {run.worst['user']}")
        detail_of = "#event=there-is-none"
        page.evaluate("(hash) => { location.hash = hash }", detail_of)
        expect(page.locator("#detail .error")).to_contain_text("There is no event with this id")


def check_keyboard(run):
    with run.visit("#range=all") as page:
        loaded(page)
        met = []
        for _ in range(60):
            page.keyboard.press("Tab")
            focus = page.evaluate("""() => {
                const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
                const label = at.matches('.segments input') ? getComputedStyle(at.nextElementSibling.matches(':checked + label, label') ? document.querySelector('.segments input:focus + label') : at) : style;
                return { name: at.id || at.className || at.tagName, outline: label.outlineStyle, width: label.outlineWidth,
                         isThere: box.width > 0 && box.bottom > 0 && box.top < innerHeight, isRow: at.matches('#list-body a.open') };
            }""")
            met.append(focus["name"])
            if focus["name"] not in ("BODY",):
                assert focus["outline"] != "none" and focus["width"] != "0px", f"no focus to be seen: {focus}"
                assert focus["isThere"], f"focus is where nobody sees it: {focus}"
            if focus["isRow"]:
                break
        assert met[0] == "skip" and "query" in met and "severity" in met, met
        page.keyboard.press("ArrowDown")
        name = page.evaluate("document.activeElement.textContent")
        assert name == rows(page).nth(1).locator("time").text_content()
        page.keyboard.press("Enter")
        expect(page.locator("#detail h1")).to_be_focused()
        for _ in ("Next", "Previous", "Overview"):
            page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#overview")).to_be_visible()
        page.locator("#skip").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()


def check_key(run):
    with contextlib.ExitStack() as stack:
        server, key = server_with_keys(stack, run)
        with run.visit("#range=all", server=server, may_fail=True) as page:
            dialog = page.locator("#key-dialog")
            expect(dialog).to_be_visible()
            expect(page.locator("#key")).to_be_focused()
            is_accessible(page)
            run.shot(page, "key", is_full=False)
            page.keyboard.type("wrong")
            page.keyboard.press("Enter")
            expect(page.locator("#key-why")).to_contain_text("does not take this key")
            page.keyboard.press("Escape")
            expect(dialog).to_be_hidden()
            expect(page.locator("#summary .error")).to_contain_text("asks for a key")
            page.locator("#summary .error button").click()
            page.locator("#key").fill(key)
            page.keyboard.press("Enter")
            loaded(page)
            expect(rows(page)).to_have_count(50)
            kept = page.evaluate(
                "[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie, location.href]"
            )
            assert key in kept[0] and not any(key in other for other in kept[1:]), (
                "the key is kept where it should not be"
            )
            page.reload()
            loaded(page)
            page.locator("#forget-key").click()
            expect(dialog).to_be_visible()
            assert key not in page.evaluate("JSON.stringify(sessionStorage)")


def server_with_keys(stack, run):
    """A server that asks for keys, and one of them."""
    keys = run.folder / "keys"
    made = subprocess.run(
        [run.binaries / "sg-query", "keys", "add", "page", "--keys", keys],
        capture_output=True,
        check=True,
        text=True,
    )
    return serve(stack, run, run.database, "--keys", keys), made.stdout.strip()


def check_failure(run):
    with contextlib.ExitStack() as stack:
        server = serve(stack, run, run.database)
        with run.visit(server=server, may_fail=True) as page:
            loaded(page)
            server.stop()
            page.locator("#severity").select_option("high")
            expect(page.locator("#list-body .error, #summary .error").first).to_contain_text(
                "cannot be reached"
            )
            expect(page.locator("#live-note")).to_have_text(re.compile("no connection|not there"))
            # The same port again.
            run.shot(page, "failure", is_full=False)


def check_empty(run):
    with contextlib.ExitStack() as stack:
        database = run.folder / "empty"
        page_data.pipe([[run.binaries / "sg-store", "--db", database]], [])
        server = serve(stack, run, database)
        with run.visit(server=server) as page:
            loaded(page)
            expect(page.locator("#summary")).to_contain_text("no events yet")
            expect(page.locator("#list-body")).to_contain_text("There are no anomalies")
            run.shot(page, "empty", is_full=False)


# Every element that the page makes by itself.
