"""What our programs send, held against what the vendors declare."""
import base64
import contextlib
import json
import struct
import sys

import anthropic

import typed
import vendors
from programs import KEY, analyze, demand, embed, of, run, say
from replies import VECTOR, VERDICTS

MODELS = {"anthropic": "claude-haiku-5-5", "openai": "mock"}
FIRST_VERSION = "2023-06-01"
ROUTES = {"anthropic": "/v1/messages", "openai": "/v1/chat/completions"}


def check(recorder, lines, folder):
    for provider, route in ROUTES.items():
        command = analyze(provider, recorder.url, MODELS[provider])
        shown = [json.loads(line) for line in run([*command, "--show-prompt"], lines, folder)]
        demand(not recorder.taken(), f"{provider}: --show-prompt asks somebody")
        check_verdicts(run(command, lines, folder), provider, VERDICTS[provider])
        sent = check_taken(recorder, provider, route)
        demand(len(sent) == len(lines), f"{provider}: {len(lines)} events are asked about {len(sent)} times")
        demand(in_order(sent) == in_order(shown), f"{provider}: what is sent is not what --show-prompt shows")

    command = analyze("anthropic", recorder.url, MODELS["anthropic"], "--batch-state", "batches", "--batch")
    run([*command, "submit"], lines, folder)
    check_taken(recorder, "anthropic", "/v1/messages/batches")
    check_verdicts(run([*command, "collect"], lines, folder), "anthropic", VERDICTS["anthropic"])
    for _, headers, _ in recorder.taken():
        check_headers("anthropic", headers, has_body=False)

    check_vectors(run(embed(recorder.url), lines, folder))
    check_taken(recorder, "openai", "/v1/embeddings")


def check_taken(recorder, provider, route):
    asked = recorder.taken()
    demand(asked and all(path == route for path, _, _ in asked), f"{route}: {[path for path, _, _ in asked]} is asked")
    n_spoilt = 0
    for _, headers, body in asked:
        check_headers(provider, headers)
        n_spoilt += check_body(route, body)
    say(f"{route}: {len(asked)} requests are what the vendor declares, and {n_spoilt} spoilt ones are not")
    return [body for _, _, body in asked]


def check_headers(provider, headers, has_body=True):
    if provider == "anthropic":
        with anthropic.Anthropic(api_key=KEY) as client:
            newest = client.default_headers["anthropic-version"]
        # The package has the types of the newest version, which has taken members away from the first and added
        # none: what fits these types is right in both, and many compatible servers know but the first.
        version = headers["anthropic-version"]
        demand(version in (newest, FIRST_VERSION), f"{provider}: the version is {version}, and the newest {newest}")
    content_type = headers["content-type"]
    demand(content_type == "application/json" or not has_body, f"{provider}: the content-type is {content_type}")
    # The Messages API has two places for a key.
    is_there = provider == "anthropic" and headers["x-api-key"] == KEY
    demand(is_there or headers["authorization"] == f"Bearer {KEY}", f"{provider}: the key is in no header")


def check_body(route, body):
    """The body is accepted, and refused with any member misspelt or of another type: how many of these there are."""
    try:
        free = vendors.check(route, body)
    except typed.Refused as reason:
        sys.exit(f"scripts/llm-check: {route}: {reason}\n{json.dumps(body, indent=1)}")
    n_spoilt = 0
    for what, spoilt in typed.spoilt(body, free):
        with contextlib.suppress(typed.Refused):
            typed.check(spoilt, vendors.TYPES[route])
            sys.exit(f"scripts/llm-check: {route}: it is not seen that {what}")
        n_spoilt += 1
    demand(n_spoilt > 0, f"{route}: nothing was spoilt")
    return n_spoilt


def check_verdicts(lines, provider, verdict):
    for analysis in of(lines, "analysis"):
        found = {name: (analysis or {}).get(name) for name in ("outcome", "provider", *verdict)}
        demand(found == {"outcome": "ok", "provider": provider, **verdict}, f"{provider}: {analysis}")


def check_vectors(lines):
    for embedding in of(lines, "embedding"):
        demand(embedding is not None and embedding["model"] == "vectors", f"sg-embed: {embedding}")
        vector = struct.unpack(f"<{len(VECTOR)}f", base64.b64decode(embedding["vector"]))
        demand(list(vector) == VECTOR, f"sg-embed: {vector} is not what came")


def in_order(bodies):
    return sorted(json.dumps(body, sort_keys=True) for body in bodies)
