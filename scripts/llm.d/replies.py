"""What a server answers, made by the vendors' own packages."""
import json

import anthropic.types
import anthropic.types.messages
import openai.types
import openai.types.chat

# Each field is one that was sent: an indicator with another one would be dropped.
VERDICTS = {
    provider: {
        "severity": severity,
        "confidence": 0.75,
        "indicators": [{"field": "source_ip", "observation": f"a mock of {provider} has looked at it"}],
        "summary": f"this is what the mock of {provider} has to say",
        "recommendation": "believe no mock",
    }
    for provider, severity in (("anthropic", "medium"), ("openai", "low"))
}
VECTOR = [0.5, -0.25, 0.125, 1.0]


def message(body, _):
    return anthropic.types.Message.model_validate({
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
        "content": [{"type": "text", "text": json.dumps(VERDICTS["anthropic"])}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 700, "output_tokens": 90},
    })


def batch_submitted(body, server):
    server.batch = body["requests"]
    return batch(server, "in_progress", {"processing": len(server.batch), "succeeded": 0})


def batch_ended(_, server):
    return batch(server, "ended", {"processing": 0, "succeeded": len(server.batch)},
                 results_url=f"{server.url}/v1/messages/batches/msgbatch_1/results", ended_at="2026-11-01T00:10:00Z")


def batch(server, status, counts, **more):
    return anthropic.types.messages.MessageBatch.model_validate({
        "id": "msgbatch_1", "type": "message_batch", "processing_status": status,
        "created_at": "2026-11-01T00:00:00Z", "expires_at": "2026-11-02T00:00:00Z",
        "request_counts": {"errored": 0, "canceled": 0, "expired": 0, **counts}, **more,
    })


def batch_results(_, server):
    """In any order, as they are promised."""
    return [anthropic.types.messages.MessageBatchIndividualResponse.model_validate({
        "custom_id": request["custom_id"],
        "result": {"type": "succeeded", "message": message(request["params"], server).model_dump(mode="json")},
    }) for request in reversed(server.batch)]


def completion(body, _):
    return openai.types.chat.ChatCompletion.model_validate({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": json.dumps(VERDICTS["openai"])}}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 90, "total_tokens": 790},
    })


def embeddings(body, _):
    return openai.types.CreateEmbeddingResponse.model_validate({
        "object": "list", "model": body["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1},
        "data": [{"object": "embedding", "index": i, "embedding": VECTOR} for i in range(len(body["input"]))],
    })


REPLIES = {
    "/v1/messages": message,
    "/v1/messages/batches": batch_submitted,
    "/v1/messages/batches/msgbatch_1": batch_ended,
    "/v1/messages/batches/msgbatch_1/results": batch_results,
    "/v1/chat/completions": completion,
    "/v1/embeddings": embeddings,
}
