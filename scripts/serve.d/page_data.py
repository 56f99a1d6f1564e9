"""What page.py shows: a database of ordinary events, with verdicts and a model's words, and a hostile one."""

import json
import subprocess

HOUR_MS = 3_600_000

# Each of these would do something if it became markup, a link, a style or a terminal's command.
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
HOSTILE = {
    "script": MARKUP,
    "attribute": '" onmouseover="alert(3)" style="position:fixed',
    "link": "javascript:alert(4)",
    "template": "{{constructor.constructor('alert(5)')()}}${alert(6)}</title></textarea></style><svg onload=alert(7)>",
    "terminal": "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "override": "admin\u202egnp.exe",
    "isolate": "\u2067\u2066\u200f\u061cuser",
    "unseen": "al\u200bi\u2060ce\ufeff\u00ad\U000e0041\u3164",
    "spaces": "  alice \u00a0 ",
    "piled": "Z" + "\u0301" * 200 + "algo",
    "entities": "&lt;b&gt;&amp;&#x3c;img&#x3e;",
    "path": "../../api/health?x=1#y%2f%00",
    "long": "N" * 10_000 + "END",
    "long_words": "<b>word</b> " * 900,
}
# Users, types and places may have 1,024 bytes.
NAME_CHARS_MAX = 1_000
# What an id may not hold.
IN_IDS = [name for name in HOSTILE if name not in ("terminal", "long", "long_words", "spaces")]


def pipe(programs, lines):
    """Runs lines through programs; what the last one writes."""
    data = "".join(
        json.dumps(line, ensure_ascii=False) + "\n" if isinstance(line, dict) else line for line in lines
    ).encode()
    for program in programs:
        done = subprocess.run(program, input=data, capture_output=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"page.py: {program[0]}: {done.stderr.decode()}")
        data = done.stdout
    return data.decode().splitlines(keepends=True)


def analysis(event, is_hostile=False):
    words = HOSTILE["script"] if is_hostile else ""
    return {
        "outcome": "ok",
        "severity": "high",
        "confidence": 0.85,
        "indicators": [
            {
                "field": "source_ip",
                "observation": words
                or f"{event['source_ip']} belongs to a provider that nobody here has used.",
            },
            {
                "field": "geo_location",
                "observation": HOSTILE["override"] if is_hostile else "The place is new to this user.",
            },
        ],
        "summary": words
        + (
            HOSTILE["long"]
            if is_hostile
            else "Somebody signs in from a network and a place that are new to this account, outside of its usual hours, and reads what it never read. That fits a stolen session."
        ),
        "recommendation": HOSTILE["link"]
        if is_hostile
        else "Ask the user about this session, end it, and have the password changed.",
        "model": HOSTILE["attribute"] if is_hostile else "claude-haiku-5-5",
        "provider": HOSTILE["script"] if is_hostile else "anthropic",
        "fingerprint": "41a3",
        "injection": [HOSTILE["script"]] if is_hostile else [],
        "raised_from": "low",
    }


def ordinary(binaries, folder, events):
    """The shipped events, with vectors, a model's words about the worst, and verdicts."""
    database = folder / "db"
    packed = subprocess.run(["zstd", "-dc", events], capture_output=True, check=True).stdout.decode()
    lines = pipe([[binaries / "sg-score"], [binaries / "sg-embed"]], [packed])
    worst, out = None, []
    for line in lines:
        event = json.loads(line)
        severity = event.get("anomaly", {}).get("severity")
        if severity == "critical":
            worst = event
            line = line.rstrip()[:-1] + ',"analysis":' + json.dumps(analysis(event)) + "}\n"
        out.append(line)
    pipe([[binaries / "sg-store", "--db", database]], out)
    subprocess.run(
        [
            binaries / "sg-store",
            "feedback",
            worst["event_id"],
            "--db",
            database,
            "--verdict",
            "malicious",
            "--note",
            "session was stolen, ticket 4711",
            "--by",
            "alice",
        ],
        capture_output=True,
        check=True,
    )
    return database, worst


def hostile(binaries, folder):
    """Events in which every field that is shown is hostile. Returns the database and the events."""
    database = folder / "hostile"
    start = 1_735_689_600_000
    events = []
    for i, (name, text) in enumerate(HOSTILE.items()):
        # An id may have 256 bytes and no controls.
        event_id = f"evt-{i}-" + (text[:40] if name in IN_IDS else name)
        for n in range(3):
            events.append(
                {
                    "event_id": event_id if n == 0 else f"evt-{i}-{n}",
                    "user": text[:NAME_CHARS_MAX],
                    "timestamp": start + i * HOUR_MS + n * 1000,
                    "type": text[:NAME_CHARS_MAX],
                    "source_ip": "203.0.113.7",
                    "geo_location": text[:NAME_CHARS_MAX],
                    "threat_score": 0.9,
                    "status": "failed",
                    "metadata": {text[:200]: text, "number": 12345678901234567890, "asn": text},
                    "other": text,
                    "anomaly": {
                        "event_id": event_id if n == 0 else f"evt-{i}-{n}",
                        "user": text[:NAME_CHARS_MAX],
                        "timestamp": start + i * HOUR_MS + n * 1000,
                        "anomaly_score": 0.9 + i / 1000,
                        "time_anomaly": 0.5,
                        "ip_anomaly": 1,
                        "location_anomaly": 0.2,
                        "type_anomaly": 0.1,
                        "failure_anomaly": 0,
                        "reasons": [f"address {text}", text, f"type {text}", f"location {text}"],
                        "detector": text,
                        "risk": 1 + i,
                        "archetype": text,
                        "severity": ["low", "medium", "high", "critical"][i % 4],
                        "baseline": {"state": text, "events": 12},
                        "incident": {
                            "id": event_id,
                            "state": "opened" if n == 0 else "more",
                            "kind": "user",
                            "alerts": n + 1,
                            "users": 1,
                        },
                    },
                }
            )
            if n == 0:
                events[-1]["analysis"] = analysis(events[-1], is_hostile=True)
    pipe([[binaries / "sg-embed"], [binaries / "sg-store", "--db", database]], events)
    subprocess.run(
        [
            binaries / "sg-store",
            "feedback",
            events[0]["event_id"],
            "--db",
            database,
            "--verdict",
            "benign",
            "--note",
            MARKUP + "\u202eetilps",
            "--by",
            MARKUP,
        ],
        capture_output=True,
        check=True,
    )
    return database, events
