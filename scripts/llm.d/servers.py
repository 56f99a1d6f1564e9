"""Servers on loopback for one check: started on ports that are free, and ended with it."""
import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

START_SECONDS_MAX = 120
STOP_SECONDS_MAX = 10


def free_port():
    # Below the ports that the kernel gives to clients, so that none of them takes it before the server does.
    for port in range(20_000 + os.getpid() % 1_000 * 10, 32_000):
        with socket.socket() as probe:
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    sys.exit("there is no free port")


def start(stack, name, command, port, ready, environment, folder):
    """Starts a program and returns when it serves. It is ended when the stack is left."""
    log_path = f"{folder}/{name}.log"
    with open(log_path, "wb") as log:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                                 env=environment, start_new_session=True)
    stack.callback(stop, child)
    deadline = time.monotonic() + START_SECONDS_MAX
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5):
                return log_path
        if child.poll() is not None or time.monotonic() > deadline:
            with open(log_path, encoding="utf-8", errors="replace") as log:
                sys.exit(f"{name} does not start: {''.join(log.readlines()[-20:])}")
        time.sleep(0.1)


def stop(child):
    # Its own children too, whatever state it is in itself.
    for signum in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS_MAX)


class Recorder(http.server.ThreadingHTTPServer):
    """Keeps what it is asked, and answers each route with one kind of reply, or lines of them."""
    daemon_threads = True

    def __init__(self, stack, replies):
        self.replies = replies
        self.asked = []
        super().__init__(("127.0.0.1", 0), RecorderHandler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()
        stack.callback(self.shutdown)

    def taken(self):
        """What has been asked since the last time: route, headers and body of each."""
        asked, self.asked = self.asked, []
        return asked


class RecorderHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def do_GET(self):
        self.answer(None)

    def answer(self, body):
        self.server.asked.append((self.path, self.headers, body))
        reply = self.server.replies.get(self.path)
        found = reply(body, self.server) if reply else []
        found = found if isinstance(found, list) else [found]
        text = "\n".join(one.model_dump_json() for one in found).encode()
        self.send_response(200 if reply else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass
