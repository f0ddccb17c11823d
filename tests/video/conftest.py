"""What a file holds and what a folder holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import av
import pytest


@pytest.fixture
def packet_hashes() -> Callable[[Path, str], list[list[str]]]:
    """Hashes of all packets of each track of one kind ("audio", "subtitle")."""

    def hashes(path: Path, kind: str) -> list[list[str]]:
        tracks = []
        with av.open(str(path)) as container:
            count = len([stream for stream in container.streams if stream.type == kind])
        for number in range(count):
            with av.open(str(path)) as container:
                stream = [stream for stream in container.streams if stream.type == kind][number]
                packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
            tracks.append([hashlib.sha256(packet).hexdigest() for packet in packets])
        return tracks

    return hashes


@pytest.fixture
def no_leftovers(tmp_path: Path) -> Callable[..., None]:
    """Checks that a folder holds exactly the named files."""

    def check(*names: str, folder: Path = tmp_path) -> None:
        assert sorted(entry.name for entry in folder.iterdir()) == sorted(names)

    return check
