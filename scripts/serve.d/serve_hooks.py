"""What the document says in a word of ours: a cursor is what an answer gives as `next`."""
import base64

import schemathesis
from hypothesis import strategies as st


def cursor(timestamp_ms, event_id):
    key = f"{timestamp_ms:015}:{event_id}".encode()
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


IDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
schemathesis.openapi.format("cursor", st.builds(cursor, st.integers(0, 10**15 - 1), IDS))
