"""api.py --bin DIR: has schemathesis ask a server everything that its document allows, and more.

DIR has the programs. Three servers are asked: one with keys by somebody who has one, the same by somebody who has
none, and one without keys. It ends with 1 if schemathesis finds that anything is not as the document says.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
EVENTS = HERE.parents[1] / "testdata" / "demo.ndjson.zst"
N_EVENTS = 3_000


def program(name, *args, stdin=None):
    """Runs one of ours to its end and returns what it has written."""
    ran = subprocess.run([BIN / name, *args], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if ran.returncode > 1:
        sys.exit(f"{name} {' '.join(map(str, args))}: {ran.stderr.decode()}")
    return ran.stdout


def database(folder):
    """A database that has something to every question."""
    db = folder / "db"
    lines = program("sg-consume", "-q", EVENTS).splitlines(keepends=True)[:N_EVENTS]
    scored = program("sg-score", "-q", "--threshold", "0.9", stdin=b"".join(lines))
    program("sg-store", "--db", db, stdin=program("sg-embed", "-q", stdin=scored))
    first = json.loads(program("sg-query", "anomalies", "--db", db, "-n", "1"))
    event_id = first["event_id"]
    program("sg-store", "feedback", event_id, "--db", db, "--verdict", "benign", "--by", "serve-check")
    os.environ.update(SERVE_CHECK_ID=event_id, SERVE_CHECK_USER=first["user"])
    return db


class Server:
    """A server at a port of its own."""

    def __init__(self, db, *args):
        # All of it is asked within a minute by one address.
        words = [BIN / "sg-query", "serve", "--db", db, "--listen", "127.0.0.1:0", "-q", "--rate", "100000", *args]
        self.running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        line = self.running.stderr.readline()
        said = re.search(r"listening on (http://\S+)", line)
        if not said:
            sys.exit(f"the server does not listen: {line}{self.running.stderr.read()}")
        self.url = said[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.running.terminate()
        _, rest = self.running.communicate(timeout=20)
        if rest or self.running.returncode:
            sys.exit(f"the server ended with {self.running.returncode}: {rest}")


def ask(url, n_examples, *args, document=None):
    """Has schemathesis ask a server; returns whether all is right, and what it has said."""
    document = document or f"{url}/api/openapi.json"
    words = [sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml", "run"]
    words += [document, "--url", url, "--checks", "all", "--max-examples", str(n_examples), "--workers", "2"]
    words += ["--seed", "1", "--continue-on-failure", "--no-color", *args]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "serve_hooks", "PYTHONPATH": str(HERE)}
    with tempfile.TemporaryDirectory() as scratch:  # where it keeps what it has found
        ran = subprocess.run(
            words, cwd=scratch, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
    return ran.returncode == 0, ran.stdout


def check(what, url, n_examples, *args):
    """The same, and says what has come of it."""
    start = time.monotonic()
    is_right, said = ask(url, n_examples, *args)
    n_seconds = time.monotonic() - start
    cases = re.search(r"Test cases:\s+(.*)", said)
    if not is_right or not cases:
        print(said)
        print(f"schemathesis, {what}: not as the document says ({n_seconds:.0f} s)")
        return False
    print(f"schemathesis, {what}: {cases[1]} ({n_seconds:.0f} s)")
    return True


def lies(document):
    """Documents that are wrong in one thing each."""
    text = json.dumps(document)
    limit = next(it for it in document["paths"]["/api/events"]["get"]["parameters"] if it["name"] == "limit")
    schemas = document["components"]["schemas"]
    for what, lie in [
        ("a limit that is too low", lambda: limit["schema"].update(maximum=999)),
        ("a limit that is too high", lambda: limit["schema"].update(maximum=1001)),
        ("another type", lambda: schemas["Problem"]["properties"].update(status={"type": "string"})),
        ("a status that is not told", lambda: document["paths"]["/api/events"]["get"]["responses"].pop("400")),
    ]:
        lie()
        yield what, json.dumps(document)
        document = json.loads(text)
        limit = next(it for it in document["paths"]["/api/events"]["get"]["parameters"] if it["name"] == "limit")
        schemas = document["components"]["schemas"]


def finds_lies(url, folder):
    """Whether schemathesis tells when a document is wrong: else it would say nothing to say that one is right."""
    with urllib.request.urlopen(f"{url}/api/openapi.json") as answer:
        document = json.load(answer)
    path = folder / "openapi.json"
    finds_all = True
    for what, text in lies(document):
        path.write_text(text)
        is_right, said = ask(url, 1, "--include-path", "/api/events", "--phases", "coverage", document=path)
        if is_right:
            print(f"{said}\nschemathesis passes over {what}")
            finds_all = False
    return finds_all


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        db = database(folder)
        keys = folder / "keys"
        key = program("sg-query", "keys", "add", "admin", "--role", "admin", "--keys", keys).decode().strip()
        program("sg-query", "keys", "add", "reader", "--keys", keys)
        with Server(db, "--keys", keys) as server:
            is_right = check("with a key", server.url, 6, "-H", f"Authorization: Bearer {key}")
            is_right &= check("without a key", server.url, 1, "--phases", "coverage")
        with Server(db) as server:
            is_right &= check("where no key is needed", server.url, 2, "--phases", "fuzzing,stateful")
            is_right &= finds_lies(server.url, folder)
    sys.exit(0 if is_right else 1)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bin", type=pathlib.Path, required=True)
BIN = parser.parse_args().bin.resolve()
main()
