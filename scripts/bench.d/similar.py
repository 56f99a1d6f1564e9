"""similar.py [EVENTS] [USERS] [QUESTIONS]: how fast sg-query similar answers over EVENTS vectors, and how many
of the right answers it finds, next to a comparison with every vector by numpy and faiss.

Questions are events by chance, half of them anomalies. A process is measured from its start to its end, with
what it reads in the page cache. An answer counts as right if its score is that of the true tenth or higher:
made-up events have many that are equally alike. The truth comes of a comparison with every stored vector.
"""
import base64
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time

import faiss
import numpy

N_EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
N_USERS = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
N_QUESTIONS = int(sys.argv[3]) if len(sys.argv) > 3 else 200
N_COLD = 5
N_ANSWERS = 10

ONE_COLD = """
import sys, faiss, numpy
vectors = numpy.load(sys.argv[1])
index = faiss.IndexFlatIP(vectors.shape[1])
index.add(vectors)
index.search(vectors[:1], 11)
"""


def shell(command):
    start = time.perf_counter()
    subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], check=True)
    return time.perf_counter() - start


def ms(times):
    times = sorted(times)
    return " | ".join(f"{times[min(len(times) * p // 100, len(times) - 1)]:7.1f}" for p in (50, 95, 99))


def timed(ask):
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1e3


def read(path):
    """Keys and vectors of length 1."""
    ids, vectors = [], numpy.zeros((N_EVENTS, 256), numpy.float32)
    with open(path, encoding="utf-8") as lines:
        for i, line in enumerate(lines):
            event = json.loads(line)
            ids.append((event["event_id"], "anomaly" in event))
            vectors[i] = numpy.frombuffer(base64.b64decode(event["embedding"]["vector"]), numpy.int8)
    vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
    return ids, vectors


def files(folder):
    with os.scandir(folder) as found:
        return {file.name: file.stat().st_size for file in found}


def main():
    folder = tempfile.mkdtemp(prefix="streamguard-bench-")
    try:
        measure(folder)
    finally:
        shutil.rmtree(folder)


def measure(folder):
    scored, embedded, db = f"{folder}/scored", f"{folder}/embedded", f"{folder}/db"
    shell(f"sg-gen --events {N_EVENTS} --users {N_USERS} | sg-score -q > {scored}")
    seconds = shell(f"sg-embed -q --all < {scored} > {embedded}")
    print(f"{N_EVENTS:,} events of {N_USERS:,} users, {os.cpu_count()} cores, {platform.machine()}\n")
    print(f"sg-embed --all: {N_EVENTS / seconds:,.0f} events/s")
    shell(f"sg-store -q --db {folder}/bare < {scored} && sg-store -q --db {db} < {embedded}")
    shell(f"sg-store compact --db {folder}/bare 2> /dev/null && sg-store compact --db {db} 2> /dev/null")
    more = sum(files(db).values()) - sum(files(f"{folder}/bare").values())
    print(f"vectors in the store: {more / N_EVENTS:.0f} bytes an event")
    ids, vectors = read(embedded)
    chance = random.Random(1)
    anomalies = [i for i, (_, is_anomaly) in enumerate(ids) if is_anomaly]
    asked = chance.sample(anomalies, N_QUESTIONS // 2) + chance.sample(range(len(ids)), N_QUESTIONS // 2)
    chance.shuffle(asked)
    with open(f"{folder}/ids", "w", encoding="utf-8") as output:
        output.writelines(ids[i][0] + "\n" for i in asked)

    def query(i):
        command = ["sg-query", "similar", "--db", db, ids[i][0]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    first_s = timed(lambda: query(asked[0])) / 1e3
    derived = files(db)["streamguard.similar"]
    print(f"first question, which makes the file: {first_s:.1f} s; the file: {derived / N_EVENTS:.0f} bytes an event\n")
    process = [timed(lambda i=i: query(i)) for i in asked]
    within = json.loads(subprocess.run(
        ["cargo", "bench", "--quiet", "--locked", "--bench", "similar", "--", db, f"{folder}/ids"],
        check=True, stdout=subprocess.PIPE).stdout)
    assert within["vectors"] == N_EVENTS and within["questions"] == len(asked)

    def line(name, times, recall):
        print(f"| {name:45} | {times} | {recall} |")

    def own(name, key, recall):
        line(name, " | ".join(f"{within[key][p]:7.1f}" for p in ("p50", "p95", "p99")), recall)

    print(f"| {'milliseconds for the 10 most alike':45} | {'p50':>7} | {'p95':>7} | {'p99':>7} | recall@10 |")
    print(f"|{'-' * 47}|{'-' * 8}:|{'-' * 8}:|{'-' * 8}:|----------:|")
    line("sg-query similar, the process", ms(process), f"{within['recall_at_10']:.4f}   ")
    own(f"within a process (loaded in {within['load_ms']:.0f} ms)", "similar_ms", f"{within['recall_at_10']:.4f}   ")
    own("every vector, within a process", "brute_force_ms", "1        ")

    def by_numpy(i):
        scores = vectors @ vectors[i]
        numpy.argpartition(scores, -11)[-11:]

    line("numpy, every vector, within a process", ms([timed(lambda i=i: by_numpy(i)) for i in asked]), "1        ")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    found = [timed(lambda i=i: index.search(vectors[i:i + 1], N_ANSWERS + 1)) for i in asked]
    line("faiss IndexFlatIP, within a process", ms(found), "1        ")
    del index
    numpy.save(f"{folder}/vectors.npy", vectors)
    cold = [sys.executable, "-c", ONE_COLD, f"{folder}/vectors.npy"]
    subprocess.run(cold, check=True)
    found = [timed(lambda: subprocess.run(cold, check=True)) for _ in range(N_COLD)]
    line(f"faiss IndexFlatIP, the process ({N_COLD} times)", ms(found), "1        ")


if __name__ == "__main__":
    main()
