"""hostile.py [EVENTS]: input that somebody has made to cost much, next to ordinary events, with the same programs: what
it takes of time and memory. It fails if memory or time has no bound: beyond the limit of memory, or more than FACTOR
times the time of ordinary events of as many bytes or lines."""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

N = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
LIMIT_MIB = 512
FACTOR = 12
FAILED = []


def line(number, **members):
    event = {"event_id": f"h{number}", "user": "u", "timestamp": 1_700_000_000_000 + number, "type": "LOGIN_SUCCESS"}
    return json.dumps(event | members) + "\n"


def address(number):
    return f"2001:db8:{number >> 16 & 0xFFFF:x}:{number & 0xFFFF:x}::{number & 0xFF:x}"


def users(number):
    return line(number, user=f"made-up-{number}", source_ip=address(number))


def values(number):
    return line(number, source_ip=address(number), geo_location=f"Town{number}, DE", metadata={
        "device": f"d{number}", "user_agent": f"agent/{number}", "endpoint": f"/{number}", "asn": str(number)})


def kinds(number):
    return line(number, type=f"TYPE_{number}")


def same(number):
    return line(number, event_id="same")


def nanoseconds(number):
    return line(number, timestamp=(1_700_000_000_000 + number) * 1_000_000)


def ends_of_time(number):
    return line(number, timestamp=number % 2 * 999_999_999_999_999, user=f"u{number % 100}")


def controls(number):
    return line(number, user=f"u\u202e\u001b]0;x\u0007{number % 100}", status="fa\u0000iled")


def deep(number):
    return line(number).replace('"type"', '"x":' + "[" * 60 + "]" * 60 + ',"type"')


def members(number):
    return line(number, metadata={f"m{i}": i for i in range(200)})


def addresses_to_hide(number):
    return line(number, threat_score=0.9, **{f"::{i:x}": i for i in range(2_000)})


def huge(number):
    return line(number, text="x" * 100_000_000)


OPTIONAL = ["requestID", "errorCode", "errorMessage", "userAgent", "eventType", "recipientAccountId", "vpcEndpointId", "sharedEventID",
            "apiVersion", "eventCategory", "readOnly", "resources", "tlsDetails", "serviceEventDetails"]


def record(number, **members):
    """A record of CloudTrail."""
    of_all = {
        "eventSource": "s3.amazonaws.com", "eventName": "GetObject", "eventTime": "2026-01-02T03:04:05Z", "awsRegion": "eu-central-1",
        "userIdentity": {"type": "IAMUser", "userName": f"u{number % 100}", "arn": f"arn:aws:iam::1:user/u{number % 100}"},
        "sourceIPAddress": f"10.0.{number % 250}.1", "eventID": f"e{number}",
    }
    return json.dumps(of_all | members) + "\n"


def shapes(number):
    return record(number, **{name: "x" for i, name in enumerate(OPTIONAL) if number >> i & 1})


def names(number):
    return record(number, eventName=f"Name{number}", eventSource=f"s{number}.amazonaws.com", errorCode=f"E{number}")


def long_names(number):
    return record(number, eventName="x" * 60_000, eventSource="y" * 60_000, userAgent="z" * 60_000)


def held(number):
    return json.dumps({"CloudTrailEvent": record(number)}) + "\n"


def held_by_many(number):
    return '{"detail":' * 30 + record(number).strip() + "}" * 30 + "\n"


def ordinary(folder, n):
    path = f"{folder}/ordinary"
    with open(path, "wb") as file:
        subprocess.run(["sg-gen", "--events", str(n), "--users", "10000"], stdout=file, check=True)
    return path


def made(folder, of, n):
    path = f"{folder}/made"
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(of(number) for number in range(n))
    return path


def run(command):
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    message = child.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(child.pid, 0)
    return time.monotonic() - start, usage.ru_maxrss / 1024, os.waitstatus_to_exitcode(status), message


def check(is_so, what):
    if not is_so:
        FAILED.append(what)


def streams(folder, on_disk):
    base = ordinary(folder, N)
    commands = {
        "sg-score": lambda path: ["sg-score", "--memory-limit", f"{LIMIT_MIB}MiB", path],
        "sg-run": lambda path: ["sg-run", "--memory-limit", f"{LIMIT_MIB}MiB", path, "--db", f"{on_disk}/db"],
    }
    n_bytes_ordinary = os.path.getsize(base)
    usual = {}
    print(f"{N:,} lines if nothing else is said, --memory-limit {LIMIT_MIB}MiB\n")
    print("| input | program | seconds | of ordinary | peak MiB | lines in, rejected |\n|---|---|--:|--:|--:|--:|")
    cases = [("ordinary events", None, N)] + [
        ("every event of another user", users, N), ("one user, all values new", values, N),
        ("one user, every type new", kinds, N), ("all events of one id", same, N),
        ("times in nanoseconds", nanoseconds, N), ("times at both ends", ends_of_time, N),
        ("control characters, wrong status", controls, N), ("arrays 60 deep", deep, N),
        ("200 members of metadata", members, N // 10), ("lines of 100 MB", huge, 5)]
    for name, of, n in cases:
        path = base if of is None else made(folder, of, n)
        size = os.path.getsize(path)
        for program, command in commands.items():
            shutil.rmtree(f"{on_disk}/db", ignore_errors=True)
            seconds, mib, code, message = run(command(path) if program == "sg-run" else
                                              ["bash", "-c", f"exec {' '.join(command('')[:3])} < {path}"])
            if of is None:
                usual[program] = seconds
            # As many lines, or as many bytes, whichever is more.
            share = seconds / (usual[program] * max(n / N, size / n_bytes_ordinary))
            counts = re.findall(r"in (\d+) = .*?rejected (\d+)", message)
            shown = ", ".join(counts[-1]) if counts else "?"
            print(f"| {name} | {program} | {seconds:.2f} | {share:.1f} | {mib:.0f} | {shown} |", flush=True)
            check(code in (0, 1), f"{name}, {program}: exit code {code}: {message[-300:]}")
            check(mib < LIMIT_MIB, f"{name}, {program}: {mib:.0f} MiB")
            check(share < FACTOR or seconds < 1, f"{name}, {program}: {share:.1f} times ordinary events")
    formats(folder)
    path = made(folder, addresses_to_hide, 20)
    command = f"sg-score -q < {path} | sg-analyze --show-prompt --redact user,ip"
    seconds, mib, code, message = run(["bash", "-c", command])
    print(f"| 20 events of 2,000 addresses to hide | sg-analyze --redact | {seconds:.2f} | | {mib:.0f} | |")
    check(code in (0, 1) and seconds < 20, f"addresses to hide: {code}, {seconds:.1f} s {message[-300:]}")


def formats(folder):
    """Records of another format, next to ordinary ones of it."""
    usual = None
    for name, of, n in [
        ("records of CloudTrail", record, N // 5), ("each with other members", shapes, N // 5), ("each of another name", names, N // 5),
        ("names of 60 KB", long_names, N // 500), ("within another record", held, N // 5), ("30 records deep", held_by_many, N // 5),
    ]:
        path = made(folder, of, n)
        size = os.path.getsize(path)
        seconds, mib, code, message = run(["sg-consume", "--format", "auto", "--dead-letter", os.devnull, path])
        usual = usual or (seconds, size)
        share = seconds / (usual[0] * max(n / (N // 5), size / usual[1]))
        counts = re.findall(r"in (\d+) = .*?rejected (\d+)", message)
        print(f"| {name} | sg-consume | {seconds:.2f} | {share:.1f} | {mib:.0f} | {', '.join(counts[-1]) if counts else '?'} |", flush=True)
        check(code in (0, 1) and mib < LIMIT_MIB, f"{name}: exit code {code}, {mib:.0f} MiB: {message[-300:]}")
        check(share < FACTOR or seconds < 1, f"{name}: {share:.1f} times ordinary records")


def ask(port, path, key=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    start = time.monotonic()
    connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
    status = connection.getresponse().status
    connection.close()
    return status, time.monotonic() - start


def questions(port, key, server):
    usual = min(ask(port, "/api/anomalies?limit=10", key)[1] for _ in range(5))
    # As many as have room, each of which sends a header a second and never ends.
    slow = []
    for _ in range(200):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        slow.append(connection)
    beside = max(ask(port, "/api/anomalies?limit=10", key)[1] for _ in range(5))
    start = time.monotonic()
    for connection in slow:
        connection.settimeout(30)
        while connection.recv(4096):
            pass
        connection.close()
    print(f"\n200 clients that never end a request: others are answered in {beside * 1e3:.0f} ms "
          f"({usual * 1e3:.0f} without), all 200 are closed after {time.monotonic() - start:.1f} s")
    check(beside < 5, "others wait for slow clients")
    statuses = [ask(port, "/api/stats/summary", f"sgk_{number:064x}")[0] for number in range(1_000)]
    told = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(f"1,000 guessed keys: answered with {told}")
    check(set(statuses) <= {401, 429} and 429 in statuses, f"guesses: {told}")
    time.sleep(2)
    status, seconds = ask(port, "/api/stats/summary", key)
    print(f"the right key afterwards: {status} in {seconds * 1e3:.0f} ms")
    check(status == 200, f"the right key: {status}")
    with open(f"/proc/{server.pid}/status", encoding="ascii") as status:
        peak = int(re.search(r"VmHWM:\s+(\d+)", status.read()).group(1)) / 1024
    print(f"peak memory of the server: {peak:.0f} MiB")


def clients(folder, on_disk):
    """A server whose clients send slowly, guess keys, or ask for what is dear."""
    db, keys = f"{on_disk}/asked", f"{folder}/keys"
    subprocess.run(f"sg-gen --events 200000 --users 1000 | sg-run -q --db {db} --threshold 0.5 -", shell=True, check=True)
    made_key = subprocess.run(["sg-query", "keys", "add", "reader", "--keys", keys], capture_output=True, check=True, text=True)
    key = re.search(r"sgk_\w+", made_key.stdout).group(0)
    server = subprocess.Popen(["sg-query", "serve", "--db", db, "--listen", "127.0.0.1:0", "--keys", keys, "--quiet"],
                              stderr=subprocess.PIPE, text=True)
    port = int(re.search(r"http://127.0.0.1:(\d+)", server.stderr.readline()).group(1))
    threading.Thread(target=server.stderr.read, daemon=True).start()
    try:
        questions(port, key, server)
    finally:
        server.terminate()
    check(server.wait(20) == 0, "the server does not end")


def main():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, tempfile.TemporaryDirectory() as on_disk:
        streams(folder, on_disk)
        clients(folder, on_disk)
    for what in FAILED:
        print(f"scripts/bench hostile: {what}", file=sys.stderr)
    sys.exit(1 if FAILED else 0)


main()
