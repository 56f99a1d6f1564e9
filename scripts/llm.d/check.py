"""check.py [PYTHON]: see scripts/llm-check; PYTHON is the one with llama.cpp. The programs are those on PATH."""
import contextlib
import signal
import sys
import tempfile

import local_model
import programs
import proxy
import sent
from replies import REPLIES
from servers import Recorder


def main():
    # So that servers are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="streamguard-llm-") as folder, contextlib.ExitStack() as stack:
        lines = programs.anomalies(folder)
        if len(sys.argv) > 1:
            local_model.check(stack, sys.argv[1], lines, folder)
            return
        recorder = Recorder(stack, REPLIES)
        sent.check(recorder, lines, folder)
        proxy.check(stack, recorder, lines, folder)


if __name__ == "__main__":
    main()
