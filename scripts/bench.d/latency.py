"""How long an event takes from its producer to the disk: kcat sends events at a steady rate, sg-run stores
them and passes each on once it is stored. Arguments: BROKERS TOPIC DB [EVENTS_PER_S=10000] [SECONDS=20]"""

import subprocess
import sys
import threading
import time

TICK_S = 0.005
N_USERS = 1_000
WARM_UP_S = 3


def line(number: int, now_ns: int) -> bytes:
    user = number * 7919 % N_USERS
    event = (
        f'{{"event_id":"l{number}","user":"user{user}","timestamp":{now_ns // 1_000_000},'
        f'"type":"LOGIN_SUCCESS","source_ip":"10.0.{user % 256}.{number % 4}",'
        f'"geo_location":"Berlin, DE","status":"success","sent_ns":{now_ns}}}'
    )
    return f"user{user}\t{event}\n".encode()


def send(producer: subprocess.Popen, rate: int, seconds: int) -> None:
    start = time.monotonic()
    n_sent = 0
    while (passed := time.monotonic() - start) < seconds:
        n_due = int(passed * rate)
        now_ns = time.time_ns()
        producer.stdin.write(b"".join(line(i, now_ns) for i in range(n_sent, n_due)))
        producer.stdin.flush()
        n_sent = n_due
        time.sleep(TICK_S)
    producer.stdin.close()


def main() -> None:
    brokers, topic, db = sys.argv[1:4]
    rate = int(sys.argv[4]) if len(sys.argv) > 4 else 10_000
    seconds = int(sys.argv[5]) if len(sys.argv) > 5 else 20
    runner = subprocess.Popen(
        ["sg-run", "-q", "-b", brokers, "-t", topic, "-o", "end", "--db", db, "--tee"],
        stdout=subprocess.PIPE,
    )
    time.sleep(WARM_UP_S)
    producer = subprocess.Popen(
        ["kcat", "-P", "-b", brokers, "-t", topic, "-K", "\t", "-X", "acks=all", "-X", "linger.ms=5"],
        stdin=subprocess.PIPE,
    )
    sender = threading.Thread(target=send, args=(producer, rate, seconds))
    started = time.time_ns()
    sender.start()
    latencies = []
    threading.Timer(seconds + 3, runner.terminate).start()
    for stored in runner.stdout:
        now_ns = time.time_ns()
        sent_ns = int(stored.split(b'"sent_ns":', 1)[1].split(b"}", 1)[0].split(b",", 1)[0])
        # The first second is that of connections being made.
        if sent_ns - started > 1e9:
            latencies.append((now_ns - sent_ns) / 1e6)
    sender.join()
    producer.wait()
    latencies.sort()
    at = {p: latencies[int(len(latencies) * p / 100)] for p in (50, 95, 99)}
    print(
        f"{len(latencies)} events at {rate} a second, from the producer to the disk: "
        + ", ".join(f"p{p} {ms:.0f} ms" for p, ms in at.items())
    )


main()
