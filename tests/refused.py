"""What a user is told of a task that cannot be loaded."""

import pytest

from stkd.trainers.config import DataConfig
from stkd.trainers.errors import UserError
from stkd.trainers.sources import load_task


def refused_task(name: str, config: DataConfig) -> str:
    """The one line with which a task is refused."""
    with pytest.raises(UserError) as caught:
        load_task(name, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)
