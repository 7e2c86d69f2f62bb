"""The stkd that runs here as a wheel, for nodes that have another one or none."""

import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

PACKAGES = {
    "cluster": (".md", ".py", ".sh", ".yaml"),
    "orchestrator": (".html", ".py"),
    "search_spaces": (".py", ".yaml"),
    "trainers": (".py",),
}
"""The packages of `stkd`, and what of their folders belongs to them."""
NO_TIME = (1980, 1, 1, 0, 0, 0)


def build_wheel(folder: Path) -> Path:
    """Write a wheel of the modules that run here, from a checkout or an installation, and return its path.

    Its version ends with a hash of what is in it: Ray stores a wheel by its name, so the same is sent once, and another
    never taken for it. It names no requirements: pip would fetch them on every node, beside those that are there.
    """
    content = dict(sorted(_modules()))
    digest = sha256()
    for name, data in content.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    release = f"{version('stkd').partition('+')[0]}+{digest.hexdigest()[:12]}"
    content |= _metadata(release, content)
    path = folder / f"stkd-{release}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name, NO_TIME), data, zipfile.ZIP_DEFLATED)
    return path


def _modules() -> Iterator[tuple[str, bytes]]:
    for package, endings in PACKAGES.items():
        for file in files(f"stkd.{package}").iterdir():
            if file.is_file() and file.name.endswith(endings):
                yield f"stkd/{package}/{file.name}", file.read_bytes()


def _metadata(release: str, content: dict[str, bytes]) -> dict[str, bytes]:
    folder = f"stkd-{release}.dist-info"
    described = {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: stkd\nVersion: {release}\n".encode(),
        f"{folder}/WHEEL": b"Wheel-Version: 1.0\nGenerator: stkd\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = [f"{name},sha256={_hash(data)},{len(data)}" for name, data in {**content, **described}.items()]
    return described | {f"{folder}/RECORD": "\n".join([*lines, f"{folder}/RECORD,,", ""]).encode()}


def _hash(data: bytes) -> str:
    return urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()
