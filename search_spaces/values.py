"""Values as messages show them: short, on one line, without passwords."""

import json
import re

LONGEST_VALUE = 60


def without_secrets(text: str) -> str:
    """Returns `text` with user names, passwords and tokens of the addresses in it blotted out."""
    text = re.sub(r"://(?!/).*@", "://***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:password|passwd|token|secret|key)[^=&\s]*=)[^&\s'\"]+", r"\1***", text)


def in_short(value: object) -> str:
    """Returns `value` as YAML would write it on one line, cut to a readable length and free of passwords."""
    text = without_secrets(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
