from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from luthier_dev.seaweed import Credentials, Seaweed, SeaweedError, SeaweedPorts, start_seaweed

pytestmark = pytest.mark.integration


def _client(server: Seaweed, credentials: Credentials):
    return boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
    )


def test_two_servers_run_side_by_side_and_share_nothing(s3, tmp_path: Path) -> None:
    other = start_seaweed(tmp_path)
    try:
        _client(s3.server, s3.server.admin).put_object(Bucket=s3.bucket, Key="only-here", Body=b"1")
        with pytest.raises(ClientError, match="NoSuchKey"):
            _client(other, other.admin).get_object(Bucket="models", Key="only-here")
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            _client(other, s3.server.admin).get_object(Bucket="models", Key="only-here")
    finally:
        other.stop()
    assert not any(path.exists() for path in other.ports.socket_paths())


def test_the_reader_may_read_and_not_write(s3) -> None:
    _client(s3.server, s3.server.admin).put_object(Bucket=s3.bucket, Key="readable", Body=b"1")
    reader = _client(s3.server, s3.server.reader)
    assert reader.get_object(Bucket=s3.bucket, Key="readable")["Body"].read() == b"1"
    with pytest.raises(ClientError, match="AccessDenied"):
        reader.put_object(Bucket=s3.bucket, Key="written", Body=b"1")


def test_the_server_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from luthier_dev.seaweed import start_seaweed;"
        "print(start_seaweed(Path(sys.argv[1])).pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        server = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        # A pidfd becomes readable when its process has ended.

        assert select.select([server], [], [], 10)[0]
        os.close(server)


def test_a_taken_port_is_reported_with_the_log(tmp_path: Path) -> None:
    # Not one of a server that runs: weed takes the sockets of whoever had its ports before out of /tmp.
    ports = SeaweedPorts.free()
    with socket.create_server(("127.0.0.1", ports.http["s3"])), pytest.raises(SeaweedError, match=r"weed|answer"):
        start_seaweed(tmp_path, ports=ports)
