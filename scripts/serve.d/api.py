"""api.py --bin DIR: has schemathesis ask a server everything that its document allows, and more.

DIR has the programs. Three servers are asked: one with keys by somebody who has one, the same by somebody who has
none, and one without keys. It ends with 1 if schemathesis finds that anything is not as the document says.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

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
    first = program("sg-query", "anomalies", "--db", db, "-n", "1")
    event_id = re.search(rb'"event_id":"([^"]+)"', first)[1].decode()
    program("sg-store", "feedback", event_id, "--db", db, "--verdict", "benign", "--by", "serve-check")
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


def ask(what, url, n_examples, *args):
    """Has schemathesis ask a server."""
    words = [sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml", "run"]
    words += [f"{url}/api/openapi.json", "--checks", "all", "--max-examples", str(n_examples), "--workers", "2"]
    words += ["--seed", "1", "--continue-on-failure", "--no-color", *args]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "serve_hooks", "PYTHONPATH": str(HERE)}
    start = time.monotonic()
    ran = subprocess.run(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    n_seconds = time.monotonic() - start
    if ran.returncode:
        print(ran.stdout)
        print(f"schemathesis, {what}: not as the document says ({n_seconds:.0f} s)")
        return False
    cases = re.search(r"Test cases:\s+(.*)", ran.stdout)
    print(f"schemathesis, {what}: {cases[1]} ({n_seconds:.0f} s)")
    return True


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        db = database(folder)
        keys = folder / "keys"
        key = program("sg-query", "keys", "add", "admin", "--role", "admin", "--keys", keys).decode().strip()
        program("sg-query", "keys", "add", "reader", "--keys", keys)
        with Server(db, "--keys", keys) as server:
            is_right = ask("with a key", server.url, 12, "-H", f"Authorization: Bearer {key}")
            is_right &= ask("without a key", server.url, 3)
        with Server(db) as server:
            is_right &= ask("where no key is needed", server.url, 3)
    sys.exit(0 if is_right else 1)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bin", type=pathlib.Path, required=True)
BIN = parser.parse_args().bin.resolve()
main()
