"""What is hostile stays text, whatever it is in."""

import contextlib
import re

from playwright.sync_api import expect

import page_data
from page_visit import NARROW, UNSEEN, WIDE, detail, fits, is_accessible, loaded, rows, serve, visible

ELEMENTS = set(
    """html head meta title link script body a header svg rect path form label input button fieldset legend
select option span noscript div main h1 h2 section p table thead tbody tr th td aside ol ul li footer dialog dl dt dd
time bdi figure figcaption strong details summary pre blockquote nav line text""".split()
)


def stays_text(page):
    found = page.evaluate("""() => ({
        names: [...new Set([...document.querySelectorAll('*')].map((each) => each.localName))],
        scripts: document.querySelectorAll('script').length,
        handlers: [...document.querySelectorAll('*')].flatMap((each) => [...each.attributes]).filter((each) => /^on/.test(each.name)).length,
        links: [...document.querySelectorAll('a')].map((each) => each.getAttribute('href')),
        texts: (() => {
            const texts = [document.title], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walker.nextNode()) texts.push(walker.currentNode.data);
            for (const each of document.querySelectorAll('[title], [aria-label]')) texts.push(each.getAttribute('title') ?? '', each.getAttribute('aria-label') ?? '');
            return texts;
        })(),
    })""")
    assert set(found["names"]) <= ELEMENTS, set(found["names"]) - ELEMENTS
    assert found["scripts"] == 1 and found["handlers"] == 0, found
    for text in found["texts"]:
        # Spaces at the ends are those between our own words.
        unseen = UNSEEN.sub(lambda one: "" if one[0].strip(" \n") == "" else "!", text)
        assert "!" not in unseen or unseen.count("!") == text.count("!"), (
            f"what cannot be seen is there as it is: {text[:100]!r}"
        )
    assert all(link.startswith(("#", "/api/docs")) for link in found["links"]), found["links"]


def check_hostile(run):
    with contextlib.ExitStack() as stack:
        server = serve(stack, run, run.hostile_database)
        for size in (WIDE, NARROW):
            with run.visit("#range=all", server=server, size=size, may_fail=True) as page:
                loaded(page)
                expect(rows(page)).to_have_count(len(run.hostile_events))
                shown = page.locator("#list-body td.who .value").all_text_contents()
                for event in run.hostile_events:
                    assert any(starts_alike(text, event["user"]) for text in shown), event["user"][:50]
                stays_text(page)
                fits(page)
                run.shot(page, f"hostile-{'wide' if size is WIDE else 'narrow'}")
                is_accessible(page)
        with run.visit("#range=all", server=server, may_fail=True) as page:
            loaded(page)
            detail(page, event=run.hostile_events[0]["event_id"])
            run.shot(page, "hostile-event")
            for event in run.hostile_events[::3]:
                hostile_event(page, event)
            for event in run.hostile_events[::3]:
                hostile_user(page, event["user"])
            for text in (page_data.MARKUP, page_data.HOSTILE["link"], page_data.HOSTILE["attribute"]):
                page.locator("#query").fill(text)
                page.keyboard.press("Enter")
                expect(page.locator("#detail h1")).to_contain_text(text)
                stays_text(page)


def starts_alike(shown, text):
    start = shown.removesuffix("…")
    return visible(text) == shown or (
        shown.endswith("…") and len(start) >= 5 and visible(text).startswith(start)
    )


def hostile_event(page, event):
    detail(page, event=event["event_id"])
    page.locator("#detail .more-text").evaluate_all("(all) => all.forEach((each) => each.click())")
    texts = page.locator("#detail bdi.value").evaluate_all(
        "(all) => all.filter((each) => !each.closest('.raw')).map((each) => each.textContent)"
    )
    (name, metadata), *_ = event["metadata"].items()
    for text in (
        event["type"],
        event["geo_location"],
        event["anomaly"]["archetype"],
        event["event_id"],
        metadata,
        f"metadata.{name}",
    ):
        assert visible(text) in texts, (event["event_id"], text[:80])
    for reason, shown in zip(
        event["anomaly"]["reasons"], page.locator("#detail .reason .value").all_text_contents()
    ):
        assert shown == visible(reason), (shown[:100], reason[:100])
    if "analysis" in event:
        said = event["analysis"]
        model = page.locator("#detail .model bdi.value").all_text_contents()
        for text in (
            said["summary"],
            said["recommendation"],
            said["provider"],
            said["injection"][0],
            said["indicators"][1]["observation"],
        ):
            assert any(visible(text) in shown for shown in model), text[:80]
    assert "12345678901234567890" in page.locator("#detail .raw").text_content()
    stays_text(page)


def hostile_user(page, user):
    detail(page, user=user)
    page.locator("#detail h1 .more-text").evaluate_all("(all) => all.forEach((each) => each.click())")
    expect(page.locator("#detail h1 .value")).to_have_text(re.compile("^" + re.escape(visible(user)) + "$"))
    stays_text(page)
