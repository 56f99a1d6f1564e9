"""A writer at full speed, alone and with readers, in turns: how much slower it is, what the readers see, and how
old that is.

Half of the readers are clients of `sg-query serve`, the others call `sg-query` again and again; none writes,
so all of them ask the writer. Each asks a question, looks whether the answer can be right, and rests, as
people and dashboards do: they share two processors with the writer.
"""

import argparse
import bisect
import http.client
import json
import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

PIECE_BYTES = 1 << 18


class Feed:
    """Gives a program the same lines for as long as the run takes, and remembers when."""

    def __init__(self, n_users: int, seconds: float):
        self.generator = subprocess.Popen(
            ["sg-gen", "--events", str(10**9), "--users", str(n_users)], stdout=subprocess.PIPE
        )
        self.seconds = seconds
        self.times, self.numbers = [], []
        self.n_lines = 0

    def into(self, program: subprocess.Popen) -> float:
        """Returns how long it took until the program had taken all in."""
        start = time.monotonic()
        source = self.generator.stdout
        rest = b""
        while time.monotonic() - start < self.seconds:
            piece = rest + source.read1(PIECE_BYTES)
            end = piece.rfind(b"\n") + 1
            piece, rest = piece[:end], piece[end:]
            program.stdin.write(piece)
            self.n_lines += piece.count(b"\n")
            self.times.append(time.monotonic())
            self.numbers.append(self.n_lines)
        program.stdin.close()
        self.generator.kill()
        self.generator.wait()
        program.wait()
        if program.returncode != 0:
            raise SystemExit(f"sg-run has ended with {program.returncode}")
        return time.monotonic() - start

    def age(self, n_seen: int, now: float) -> float:
        """How long ago the first line was given that is not among so many."""
        first_missing = bisect.bisect_right(self.numbers, n_seen)
        if first_missing >= len(self.times):
            return 0.0
        return max(0.0, now - self.times[first_missing])


class Reader(threading.Thread):
    def __init__(self, number: int, db: Path, address: str | None, feed: Feed, rest: float):
        super().__init__()
        self.random = random.Random(number)
        self.db, self.address, self.feed, self.rest = db, address, feed, rest
        self.is_over = threading.Event()
        self.n_asked, self.ages, self.times, self.wrong = 0, [], [], []
        self.last_count = 0
        self.known = []
        self.connection = None

    def run(self):
        while not self.is_over.wait(self.rest * self.random.uniform(0.5, 1.5)):
            question = self.random.choice([self.count, self.anomalies, self.events, self.one, self.user])
            start = time.monotonic()
            try:
                question()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told
                self.wrong.append(f"{question.__name__}: {error!r}")
                self.connection = None
            self.times.append(time.monotonic() - start)
            self.n_asked += 1

    def get(self, path: str, args: list[str]):
        """The items of an answer, by the server or by the program."""
        if self.address is None:
            done = subprocess.run(["sg-query", *args, "--db", str(self.db)], capture_output=True, check=False)
            if done.returncode > 1 or (done.stderr and b"there is more" not in done.stderr):
                raise RuntimeError(done.stderr.decode())
            return [json.loads(line) for line in done.stdout.splitlines()]
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.address, timeout=20)
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"HTTP {answer.status}: {body[:200]}")
        body = json.loads(body)
        return body.get("items", [body])

    def expect(self, is_so: bool, what: str):
        if not is_so:
            raise AssertionError(what)

    def count(self):
        if self.address is None:
            # A whole count of users is not a question for every second.
            items = self.get("", ["events", "-n", "1"])
            self.expect(len(items) <= 1, "too many")
            return
        count = self.get("/api/events/count", [])[0]["count"]
        now = time.monotonic()
        self.ages.append(self.feed.age(count, now))
        self.expect(count >= self.last_count, f"{count} events after {self.last_count}")
        self.last_count = count

    def anomalies(self):
        items = self.get("/api/anomalies?limit=50", ["anomalies", "-n", "50"])
        times = [item["timestamp"] for item in items]
        self.expect(times == sorted(times, reverse=True), "not in order")
        self.expect(all(item["severity"] and item["reasons"] for item in items), "an anomaly without a reason")
        self.known = [(item["event_id"], item["user"], item["timestamp"]) for item in items]

    def events(self):
        items = self.get("/api/events?limit=50", ["events", "-n", "50"])
        times = [item["timestamp"] for item in items]
        self.expect(times == sorted(times, reverse=True), "not in order")
        self.known = [(item["event_id"], item["user"], item["timestamp"]) for item in items]

    def one(self):
        """What was seen is found by its id, too."""
        if self.known:
            event_id, user, at = self.random.choice(self.known)
            items = self.get(f"/api/events/{event_id}", ["event", event_id])
            found = [(item["event_id"], item["user"], item["timestamp"]) for item in items]
            self.expect((event_id, user, at) in found, f"{event_id} is not found")

    def user(self):
        """What was seen is found by its user."""
        if self.known:
            event_id, user, at = self.random.choice(self.known)
            items = self.get(
                f"/api/events?user={user}&until={at}&limit=20", ["events", "--user", user, "--until", str(at), "-n", "20"]
            )
            self.expect(all(item["user"] == user for item in items), "another user's event")
            at_that_time = [item for item in items if item["timestamp"] == at]
            is_there = event_id in [item["event_id"] for item in items] or len(at_that_time) == 20
            self.expect(is_there, f"{event_id} is not found by its user")


def run(work: Path, arguments, with_readers: bool):
    db = work / "db"
    subprocess.run(["rm", "-rf", str(db)], check=True)
    subprocess.run(["sg-store", "-q", "--db", str(db)], stdin=subprocess.DEVNULL, check=True)
    server, address, readers = None, None, []
    feed = Feed(arguments.users, arguments.seconds)
    if with_readers:
        server = subprocess.Popen(
            ["sg-query", "serve", "--db", str(db), "--listen", "127.0.0.1:0", "--quiet", "--rate", "100000"],
            stderr=subprocess.PIPE,
            text=True,
        )
        address = re.search(r"http://(\S+)", server.stderr.readline()).group(1)
    writer = subprocess.Popen(["sg-run", "-q", "-", "--db", str(db)], stdin=subprocess.PIPE)
    if with_readers:
        for number in range(arguments.readers):
            of_server = number % 2 == 0
            readers.append(Reader(number, db, address if of_server else None, feed, arguments.rest))
            readers[-1].start()
    seconds = feed.into(writer)
    for reader in readers:
        reader.is_over.set()
    for reader in readers:
        reader.join()
    if server:
        server.send_signal(signal.SIGTERM)
        server.wait()
    return feed.n_lines / seconds, readers


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] * 1e3 if values else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--rest", type=float, default=1.0, help="seconds from one question of a reader to the next")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--users", type=int, default=10_000)
    arguments = parser.parse_args()
    alone, together, readers = [], [], []
    with tempfile.TemporaryDirectory() as work:
        for _ in range(arguments.rounds):
            alone.append(run(Path(work), arguments, False)[0])
            rate, of_round = run(Path(work), arguments, True)
            together.append(rate)
            readers.extend(of_round)
    wrong = [text for reader in readers for text in reader.wrong]
    ages = [age for reader in readers for age in reader.ages]
    print(
        f"{arguments.seconds:g} s each, {arguments.rounds} rounds in turns, {arguments.readers} readers that ask every "
        f"{arguments.rest:g} s, {os.cpu_count()} cores:\n"
    )
    print("| sg-run, adaptive | events/s | of alone |\n|---|--:|--:|")
    print(f"| alone | {max(alone):,.0f} | 1.00 |")
    print(f"| with readers | {max(together):,.0f} | {max(together) / max(alone):.2f} |\n")
    n_asked = sum(reader.n_asked for reader in readers)
    print(f"{n_asked} questions, {len(wrong)} wrong answers or errors")
    print(
        f"what is stored was read {percentile(ages, 0.5):.0f} ms ago (median; p95 {percentile(ages, 0.95):.0f}, "
        f"at most {max(ages, default=float('nan')) * 1e3:.0f}), of {len(ages)} answers"
    )
    for kind, is_server in [("by the server", True), ("by a new process", False)]:
        times = [it for reader in readers if (reader.address is not None) == is_server for it in reader.times]
        print(f"answered {kind} in {percentile(times, 0.5):.0f} ms (median; p95 {percentile(times, 0.95):.0f})")
    for text in wrong[:10]:
        print(text)
    raise SystemExit(1 if wrong else 0)


main()
