"""What the vendors' own packages say about requests: their types, their schemas, and rules that only the
services state."""
import copy
import re

import anthropic
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from anthropic.types.messages.batch_create_params import BatchCreateParams
from openai.lib._pydantic import _ensure_strict_json_schema
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from openai.types.embedding_create_params import EmbeddingCreateParams

import typed

TYPES = {
    "/v1/messages": MessageCreateParamsNonStreaming,
    "/v1/messages/batches": BatchCreateParams,
    "/v1/chat/completions": CompletionCreateParamsNonStreaming,
    "/v1/embeddings": EmbeddingCreateParams,
}
ID = re.compile("[a-zA-Z0-9_-]{1,64}")


def check(route, body):
    """Raises Refused if the vendor would, as far as its package tells."""
    free = typed.check(body, TYPES[route])
    if route == "/v1/messages":
        check_message(body, ())
    elif route == "/v1/messages/batches":
        ids = [request["custom_id"] for request in body["requests"]]
        for i, request in enumerate(body["requests"]):
            if not ID.fullmatch(ids[i]) or ids.count(ids[i]) > 1:
                raise typed.Refused(("requests", i, "custom_id"), "is no id, or not the only one like it")
            check_message(request["params"], ("requests", i, "params"))
    elif route == "/v1/chat/completions":
        schema = body["response_format"]["json_schema"]["schema"]
        strict = _ensure_strict_json_schema(copy.deepcopy(schema), path=(), root=schema)
        check_same(plain(schema), plain(strict), ("response_format", "json_schema", "schema"))
    return free


def check_message(body, path):
    # Models of today answer 400 to a turn of theirs that we begin.
    if body["messages"][0]["role"] != "user" or body["messages"][-1]["role"] != "user":
        raise typed.Refused((*path, "messages"), "do not begin and end with the user")
    check_tools(body, (*path, "messages"))
    schema = body["output_config"]["format"]["schema"]
    # The package turns what the service does not hold to, such as "minimum", into a description.
    held = anthropic.transform_schema(copy.deepcopy(schema))
    check_same(plain(schema), plain(held), (*path, "output_config", "format", "schema"))


def check_tools(body, path):
    """Each call has its result at the beginning of the next message, and is of a tool that is declared."""
    called, names = [], {tool["name"] for tool in body.get("tools", [])}
    for i, message in enumerate(body["messages"]):
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if results != called or any(block["type"] != "tool_result" for block in blocks[:len(results)]):
            raise typed.Refused((*path, i), f"has results of {results}, not first of all those of {called}")
        calls = [block for block in blocks if block["type"] == "tool_use"]
        called = [block["id"] for block in calls]
        for block in calls:
            if block["name"] not in names or not ID.fullmatch(block["id"]):
                raise typed.Refused((*path, i), f"calls {block['name']}, which is not in tools, or has no id")
    if called:
        raise typed.Refused(path, "end with a call that has no result")


def plain(schema):
    """A schema without what makes no difference: the order of what is required, the type beside an enumeration."""
    if isinstance(schema, list):
        return [plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {name: sorted(one) if name == "required" and isinstance(one, list) else plain(one)
            for name, one in schema.items() if not (name == "type" and isinstance(one, str) and "enum" in schema)}


def check_same(found, expected, path):
    if found == expected:
        return
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in found | expected:
            check_same(found.get(name), expected.get(name), (*path, name))
    raise typed.Refused(path, f"is {found!r}; the vendor's package makes {expected!r} of it")
