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


def message(body):
    return anthropic.types.Message.model_validate({
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
        "content": [{"type": "text", "text": json.dumps(VERDICTS["anthropic"])}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 700, "output_tokens": 90},
    }).model_dump(mode="json")


def completion(body):
    return openai.types.chat.ChatCompletion.model_validate({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": json.dumps(VERDICTS["openai"])}}],
        "usage": {"prompt_tokens": 700, "completion_tokens": 90, "total_tokens": 790},
    }).model_dump(mode="json")


def embeddings(body):
    return openai.types.CreateEmbeddingResponse.model_validate({
        "object": "list", "model": body["model"], "usage": {"prompt_tokens": 1, "total_tokens": 1},
        "data": [{"object": "embedding", "index": i, "embedding": VECTOR} for i in range(len(body["input"]))],
    }).model_dump(mode="json")


def batch(body):
    return anthropic.types.messages.MessageBatch.model_validate({
        "id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress",
        "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z",
        "request_counts": {"processing": len(body["requests"]), "succeeded": 0, "errored": 0, "canceled": 0,
                           "expired": 0},
    }).model_dump(mode="json")


REPLIES = {
    "/v1/messages": message,
    "/v1/messages/batches": batch,
    "/v1/chat/completions": completion,
    "/v1/embeddings": embeddings,
}
