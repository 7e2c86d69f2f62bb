"""Writes artifacts one after another, and is killed again and again at random moments."""

import os
import random
import signal
import sys
import time
from itertools import count
from pathlib import Path

from stkd.orchestrator.artifacts import ArtifactStore, write_json

KILLS, LONGEST = 50, 0.2
FILES, CHUNKS, CHUNK = 3, 16, 4096


def write_artifacts(root: Path) -> None:
    """Each of three files that say the same thing many times over; every second one removes the one before."""
    store = ArtifactStore(root)
    for number in count(os.getpid() * 10_000):
        with store.once("student", {"number": number}) as folder:
            assert folder is not None
            for name in range(FILES):
                with (folder / f"part-{name}").open("wb") as file:
                    for _ in range(CHUNKS):
                        file.write(bytes([number % 256]) * CHUNK)
                        file.flush()
            write_json(folder / "metrics.json", {"number": number})
        if number % 2:
            store.remove(store.path("student", {"number": number - 1}).name)


if __name__ == "__main__":
    rng = random.Random(5)
    for _ in range(KILLS):
        child = os.fork()
        if not child:
            write_artifacts(Path(sys.argv[1]))
        time.sleep(rng.uniform(0.0, LONGEST))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print("killed", flush=True)
