"""Our programs against the proxy of litellm: it reads what they send, and they read what it answers."""
import json
import os
import sys

import sent
import vendors
from programs import KEY, analyze, demand, embed, of, run, say
from replies import VECTOR, VERDICTS
from servers import free_port, start


def check(stack, recorder, lines, folder):
    url = serve(stack, mocks(recorder), folder)
    for provider, route in sent.ROUTES.items():
        command = analyze(provider, url, sent.MODELS[provider])
        sent.check_verdicts(run(command, lines, folder), provider, VERDICTS[provider])
        say(f"litellm, {route}: {len(lines)} events have the verdict of the mock")

    command = analyze("anthropic", url, "translated")
    shown = [json.loads(line) for line in run([*command, "--show-prompt"], lines, folder)]
    sent.check_verdicts(run(command, lines, folder), "anthropic", VERDICTS["openai"])
    route = "/v1/chat/completions"
    translated = [body for path, _, body in recorder.taken() if path == route]
    for body in translated:
        vendors.check(route, body)
    demand(sent.in_order(map(meaning_of_completion, translated)) == sent.in_order(map(meaning_of_message, shown)),
           "what litellm makes of a request has another meaning")
    say(f"litellm, from /v1/messages to /v1/chat/completions: {len(shown)} requests keep their meaning")

    for model, outcome in (("babbler", "invalid"), ("busy", "unavailable")):
        analysis, = of(run(analyze("anthropic", url, model), lines[:1], folder), "analysis")
        demand(analysis["outcome"] == outcome, f"{model}: {analysis}")
    say("litellm, /v1/messages: babble is invalid, and too many requests are no answer")

    sent.check_vectors(run(embed(url, "--batch", "1"), lines, folder))
    # The mock has one vector, however many texts there are.
    found = of(run(embed(url), lines, folder, code=1), "embedding")
    demand(not any(found), f"sg-embed: one vector for several texts is taken: {found}")
    say(f"litellm, /v1/embeddings: {len(lines)} events have the vector of the mock")


def mocks(recorder):
    return [
        model(sent.MODELS["anthropic"], "anthropic/mock", mock_response=json.dumps(VERDICTS["anthropic"])),
        model(sent.MODELS["openai"], "openai/mock", mock_response=json.dumps(VERDICTS["openai"])),
        model("babbler", "anthropic/mock", mock_response="I would rather talk about the weather."),
        model("busy", "anthropic/mock", mock_response="litellm.RateLimitError"),
        model("vectors", "openai/mock", mock_response=VECTOR),
        # No mock: litellm makes a request of the other protocol of ours, and ours of the reply.
        model("translated", "hosted_vllm/translated", api_base=recorder.url + "/v1"),
    ]


def model(name, litellm_model, **parameters):
    return {"model_name": name, "litellm_params": {"model": litellm_model, "api_key": "none", **parameters}}


def serve(stack, models, folder):
    """Starts the proxy; where it is."""
    with open(f"{folder}/litellm.yaml", "w", encoding="utf-8") as file:
        json.dump({"model_list": models, "router_settings": {"num_retries": 0}}, file)
    port = free_port()
    # It is not to ask its makers for prices.
    environment = {"PATH": os.environ["PATH"], "HOME": folder, "LITELLM_MASTER_KEY": KEY,
                   "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [os.path.join(os.path.dirname(sys.executable), "litellm"), "--config", f"{folder}/litellm.yaml",
               "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    start(stack, "litellm", command, port, "/health/liveliness", environment, folder)
    return f"http://127.0.0.1:{port}"


def meaning_of_message(body):
    """What is said to the model, and what it is to make of it: not how it is written down."""
    (call,), (result,) = body["messages"][1]["content"], body["messages"][2]["content"]
    return [body["max_tokens"], text_of(body["system"]), text_of(body["messages"][0]["content"]), call["name"],
            text_of(result["content"]), body["tool_choice"]["type"], [tool["name"] for tool in body["tools"]],
            vendors.plain(body["output_config"]["format"]["schema"])]


def meaning_of_completion(body):
    system, user, assistant, tool = body["messages"]
    (call,) = assistant["tool_calls"]
    demand(call["id"] == tool["tool_call_id"], "litellm: a result of another call")
    return [body["max_tokens"], text_of(system["content"]), text_of(user["content"]), call["function"]["name"],
            text_of(tool["content"]), body["tool_choice"], [tool["function"]["name"] for tool in body["tools"]],
            vendors.plain(body["response_format"]["json_schema"]["schema"])]


def text_of(content):
    return content if isinstance(content, str) else "".join(block["text"] for block in content)
