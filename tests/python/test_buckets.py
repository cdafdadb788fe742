"""Repositories in buckets: what works in a folder works there, and what cannot work says why, soon and without secrets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pickle
import socket
import subprocess
import sys
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chipmink
import numpy
import pytest
from buckets import KEYS, Moto, answering, ask, forward, free_port, without_credentials
from oracle import assert_same, canonical


@pytest.fixture(scope="module")
def moto():
    server = Moto()
    server.make_bucket("bucket")
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    without_credentials(monkeypatch, tmp_path)


@pytest.fixture
def opened(moto, request):
    """Opens the repository of a test, with other options each time."""
    made = []

    def open_it(prefix=request.node.name, **options):
        options = {"endpoint": moto.endpoint, "region": "us-east-1", **KEYS, **options}
        made.append(chipmink.open(f"s3://bucket/{prefix.replace('[', '-').replace(']', '')}", **options))
        return made[-1]

    yield open_it
    for repository in made:
        repository.close()


def namespaces():
    shared = [1, [2.5, None]]
    cycle = [shared]
    cycle.append(cycle)
    array = numpy.arange(300_000, dtype="f8")
    for step in range(4):
        array = array.copy()
        array[step * 1000] = -1
        yield {
            "step": step,
            "shared": shared,
            "again": {"shared": shared, "cycle": cycle},
            "array": array,
            "view": array[10:20],
            "text": "text " * step,
            f"only_{step}": [step],
        }


def test_saving_loading_and_going_back(opened):
    repo = opened()
    versions = []
    for namespace in namespaces():
        want = canonical(namespace)
        versions.append((repo.save(namespace, message=f"step {namespace['step']}"), want))
    again = opened()
    for version, want in versions:
        assert_same(want, again.load(version))
    assert [entry.message for entry in again.log()] == ["step 3", "step 2", "step 1", "step 0"]
    assert again.load(versions[0][0], names=["only_0"]) == {"only_0": [0]}
    assert again.diff(versions[0][0], versions[1][0]).added == ("only_1",)
    live = again.load()
    again.checkout(versions[1][0], live)
    assert_same(versions[1][1], live)
    newer = again.save(live)
    assert newer > versions[-1][0] and again.log()[0].parents == (again.log()[-2].commit,)
    assert again.verify(full=True) == []


def test_a_save_costs_what_changed(opened):
    repo = opened()
    namespace = {"large": numpy.random.default_rng(1).bytes(3_000_000), "small": [1]}
    assert repo.save(namespace).report.bytes_written > 3_000_000
    namespace["small"].append(2)
    assert repo.save(namespace).report.bytes_written < 20_000


def test_packs_of_many_parts(opened):
    repo = opened(compression="none")
    namespace = {"large": numpy.random.default_rng(2).bytes(20_000_000)}
    version = repo.save(namespace)
    assert opened().load(version) == namespace


def test_an_upload_whose_last_answer_is_lost(opened, moto):
    """The client asks again, and hears that there is no such upload: it is complete."""
    completed: list[int] = []

    def losing(handler):
        if handler.command == "POST" and "uploadId=" in handler.path:
            completed.append(ask(moto, handler)[0])
            return answer(500 if len(completed) == 1 else 404, "InternalError" if len(completed) == 1 else "NoSuchUpload")(handler)
        return forward(moto, handler)

    namespace = {"large": numpy.random.default_rng(3).bytes(20_000_000)}
    with answering(losing) as endpoint:
        version = opened(compression="none", endpoint=endpoint).save(namespace)
    assert completed[0] == 200 and len(completed) == 2
    assert opened().load(version) == namespace


def test_an_upload_that_cannot_be_completed_leaves_nothing(opened, moto):
    aborted: list[str] = []

    def failing(handler):
        if handler.command == "POST" and "uploadId=" in handler.path:
            return answer(400, "InvalidPart")(handler)
        if handler.command == "DELETE" and "uploadId=" in handler.path:
            aborted.append(handler.path)
        return forward(moto, handler)

    repo = opened(compression="none")
    repo.save({"x": [1]})
    with answering(failing) as endpoint, pytest.raises(chipmink.StorageError, match="InvalidPart"):
        opened(compression="none", endpoint=endpoint).save({"large": numpy.random.default_rng(4).bytes(20_000_000)})
    assert len(aborted) == 1
    assert repo.verify().ok and repo.verify().orphan_packs == 0 and repo.load() == {"x": [1]}


def test_two_writers_of_one_line(opened):
    first, second = opened(), opened()
    first.save({"x": [1]})
    second.checkout(None, {}, force=True)
    newest = first.save({"x": [2]})
    with pytest.raises(chipmink.RefMovedError, match="moved"):
        second.save({"x": [3]})
    assert second.load() == {"x": [2]}
    second.checkout(newest, {}, force=True)
    assert second.load(second.save({"x": [3]})) == {"x": [3]}
    assert first.load() == {"x": [3]}


def test_writers_of_lines_of_their_own(opened):
    """Each save of the one makes the other rewrite its entry: none is lost, none waits for the other."""
    opened().save({"start": [0]})
    numbers: dict[str, list[int]] = {}

    def write(line: str) -> None:
        repo = opened(ref=line)
        for step in range(6):
            numbers.setdefault(line, []).append(int(repo.save({"line": line, "step": [step]})))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, [f"line-{i}" for i in range(3)]))
    repo = opened()
    assert sorted(sum(numbers.values(), [])) == list(range(2, 20))
    for line, found in numbers.items():
        assert [repo.load(number) for number in found] == [{"line": line, "step": [step]} for step in range(6)]
    assert repo.verify(full=True) == []


def test_processes_that_write_while_others_sweep():
    """A hundred versions each are tried by ``make soak``."""
    script = Path(__file__).with_name("bucket_writers.py")
    done = subprocess.run(
        [sys.executable, str(script), "--writers", "3", "--commits", "16"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("48 versions by 3 processes")


def test_repositories_of_one_process_save_in_turn(opened):
    """They tell each other what they published, so none has to write its entry anew."""
    opened().save({"start": [0]})
    repos = [opened(ref=f"line-{i}") for i in range(4)]
    numbers: list[int] = []

    def write(which: int) -> None:
        numbers.extend(int(repos[which].save({"line": which, "step": [step]})) for step in range(10))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert sorted(numbers) == list(range(2, 42))
    assert opened().verify().ok


def test_what_was_read_is_kept_in_a_folder(opened, moto, tmp_path):
    namespace = {"array": numpy.arange(400_000, dtype="f8"), "small": [1, 2, 3]}
    want = canonical(namespace)
    opened().save(namespace)
    asked: list[str] = []

    def passing(handler):
        asked.append(f"{handler.command} {handler.path}")
        return forward(moto, handler)

    with answering(passing) as endpoint:
        cache = tmp_path / "cache"
        for opens in range(3):
            asked.clear()
            repo = opened(endpoint=endpoint, cache=cache, cache_size="64MiB")
            assert_same(want, repo.load())
            gets = [line for line in asked if line.startswith("GET") and "/packs/" in line]
            # A root state is read as part of its pack, too.
            assert bool(gets) == (opens == 0), gets
        assert os.stat(cache / "packs-1").st_mode & 0o777 == 0o700
        # What was damaged there is read again.
        for file in (cache / "packs-1").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[::-1])
        assert_same(want, opened(endpoint=endpoint, cache=cache).load())
        # What is checked is the bucket.
        asked.clear()
        assert opened(endpoint=endpoint, cache=cache).verify().ok
        assert any(line.startswith("GET") and "/packs/" in line for line in asked)
    with pytest.raises(chipmink.UnsupportedError, match="cache_size.*no size"):
        opened(cache=cache, cache_size="much")
    with pytest.raises(chipmink.UnsupportedError, match="cache_size is that of a cache"):
        opened(cache_size="1GiB")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(chipmink.UnsupportedError, match="cache in .* cannot be used"):
        opened(cache=tmp_path / "file")


@contextlib.contextmanager
def listened(moto):
    """An endpoint behind which moto answers, and what is asked of it."""
    asked: list[str] = []

    def passing(handler):
        asked.append(f"{handler.command} {handler.path}")
        return forward(moto, handler)

    with answering(passing) as endpoint:
        yield endpoint, asked


def gets(asked):
    return sum(line.startswith("GET") for line in asked)


@dataclasses.dataclass
class Row:
    name: str
    values: list[float]


def session_of_all_sizes():
    random = numpy.random.default_rng(5)
    small = {f"row{i}": Row(f"row {i}", [i, i / 2]) for i in range(200)}
    tables = {f"table{i}": [[j, str(j)] for j in range(300)] for i in range(50)}
    arrays = {f"array{i}": random.standard_normal(random.integers(10_000, 60_000)) for i in range(80)}
    large = {f"large{i}": random.standard_normal(400_000) for i in range(5)}
    return {**small, **tables, **arrays, **large}


def test_a_load_asks_seldom(opened, moto):
    """However many variables there are: at most 64 times, and once more for each 8 MiB."""
    namespace = session_of_all_sizes()
    repo = opened()
    repo.save(namespace)
    for step in range(20):
        namespace[f"row{step}"].values.append(step)
        namespace[f"array{step}"][:100] = step
        version = repo.save(namespace)
    byte_len = sum(array.nbytes for array in namespace.values() if isinstance(array, numpy.ndarray))
    want = canonical(namespace)
    with listened(moto) as (endpoint, asked):
        for when in ("then", "swept"):
            reader = opened(endpoint=endpoint)
            asked.clear()
            assert_same(want, reader.load(version))
            assert gets(asked) <= 64 + byte_len / (8 << 20), (when, gets(asked))
            # What is asked for is most of what comes.
            alone = opened(endpoint=endpoint)
            asked.clear()
            assert_same(canonical({"row7": namespace["row7"]}), alone.load(version, names=["row7"]))
            assert gets(asked) <= 16, asked
            repo.sweep(keep_last=1, grace="0s")


def test_a_load_that_is_cancelled_ends(opened, moto):
    namespace = {f"part{i}": numpy.random.default_rng(i).bytes(9 << 20) for i in range(8)}
    opened(compression="none").save(namespace)
    with listened(moto) as (endpoint, asked):
        reader = opened(endpoint=endpoint)
        asked.clear()
        reader.load()
        whole = gets(asked)

        async def main():
            task = asyncio.create_task(opened(endpoint=endpoint).aload())
            asked.clear()
            while gets(asked) < 4:
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        # It waits for the thread of the load.
        asyncio.run(main())
        assert 4 <= gets(asked) < whole, (gets(asked), whole)
        assert reader.load(names=["part3"])["part3"] == namespace["part3"]


def test_a_sweep_removes_many_at_once(opened, moto):
    repo = opened()
    for step in range(40):
        repo.save({"step": step, "noise": numpy.random.default_rng(step).bytes(1000)})
    with listened(moto) as (endpoint, asked):
        report = opened(endpoint=endpoint).sweep(keep_last=1, grace="0s")
        assert report.packs_deleted >= 39
        removals = [line for line in asked if line.startswith("DELETE") or "?delete" in line]
        assert len(removals) <= 2, removals
    assert repo.verify().ok and repo.load()["step"] == 39


def test_a_server_that_removes_one_by_one(opened, moto):
    """Not all that speak S3's language know how to remove many."""
    repo = opened()
    for step in range(10):
        repo.save({"step": step, "noise": numpy.random.default_rng(step).bytes(1000)})

    def without(handler):
        if handler.command == "POST" and "?delete" in handler.path:
            refused.append(handler.path)
            return answer(501, "NotImplemented")(handler)
        return forward(moto, handler)

    refused: list[str] = []
    with answering(without) as endpoint:
        sweeper = opened(endpoint=endpoint)
        assert sweeper.sweep(keep_last=1, grace="0s").packs_deleted >= 9
        tries = len(refused)
        assert tries > 0
        for step in range(10, 20):
            sweeper.save({"step": step, "noise": numpy.random.default_rng(step).bytes(1000)})
        assert sweeper.sweep(keep_last=1, grace="0s").packs_deleted >= 9
        assert len(refused) == tries, "it is not asked again"
    assert repo.verify().ok and repo.verify().orphan_packs == 0


def test_a_cache_of_the_user(opened, tmp_path):
    opened(cache=True).save({"x": [1]})
    assert opened(cache=True).load() == {"x": [1]}
    assert (tmp_path / ".cache" / "chipmink" / "packs-1").is_dir()


def test_a_repository_is_known_by_its_url(opened, moto):
    repo = opened()
    repo.save({"repo": repo, "x": [1]})
    text = f"{repo!r} {repo.url}"
    assert not any(key in text for key in KEYS.values()) and "s3://bucket/" in text
    assert pickle.loads(pickle.dumps(repo)) is repo
    loaded = repo.load()
    assert loaded["repo"] is repo
    with chipmink.open(repo.url, **KEYS) as again:
        assert again.load(names=["x"]) == {"x": [1]}


def test_keys_of_the_environment_and_of_a_profile(opened, moto, monkeypatch, tmp_path):
    opened().save({"x": [1]})
    place = f"s3://bucket/test_keys_of_the_environment_and_of_a_profile?endpoint={moto.endpoint}"
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "a")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        with chipmink.open(place) as repo:
            assert repo.load() == {"x": [1]}
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[work]\naws_access_key_id = a\naws_secret_access_key = b\n")
    with chipmink.open(place, profile="work") as repo:
        assert repo.load() == {"x": [1]}
    with pytest.raises(chipmink.UnsupportedError, match="no profile 'none'|no profile \"none\""):
        chipmink.open(place, profile="none")


def test_the_command_reads_buckets(opened, moto):
    opened().save({"x": [1], "name": 2}, message="a message")
    place = f"s3://bucket/test_the_command_reads_buckets?endpoint={moto.endpoint}"
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    run = subprocess.run([sys.executable, "-m", "chipmink", "log", place], capture_output=True, text=True, env=environment)
    assert run.returncode == 0 and "a message" in run.stdout, run.stderr


def test_a_forked_child_opens_its_own(opened):
    from workers import in_child

    repo = opened()
    repo.save({"x": [1]})

    def in_the_child():
        with pytest.raises(chipmink.ClosedError):
            repo.load()
        return opened().load()

    assert in_child(in_the_child) == "{'x': [1]}"
    assert repo.load() == {"x": [1]}


# --- what cannot work


def fails(place, match, *, kind=chipmink.StorageError, within=10.0, **options):
    began = time.monotonic()
    with pytest.raises(kind, match=match) as caught:
        chipmink.open(place, **{**KEYS, **options}).save({"x": 1})
    assert time.monotonic() - began < within
    text = "".join(traceback.format_exception(caught.value))
    assert KEYS["secret_access_key"] not in text.split("Error: ", 1)[1]
    return str(caught.value)


def answer(status, code="", message="about it", headers=()):
    def send(handler):
        # A server that repeats what is none of its business.
        text = f"<Error><Code>{code}</Code><Message>{message} {KEYS['secret_access_key']}</Message></Error>"
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        body = b"" if handler.command == "HEAD" else text.encode()
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return send


@pytest.mark.parametrize(
    ("status", "code", "match"),
    [
        (403, "InvalidAccessKeyId", "does not accept the credentials.*check those of the options"),
        (403, "SignatureDoesNotMatch", "does not accept the credentials"),
        (403, "RequestTimeTooSkewed", "set the clock"),
        (403, "AccessDenied", "denies access.*may list, read and write s3://bucket/x"),
        (301, "PermanentRedirect", "another region.*region="),
        (400, "AuthorizationHeaderMalformed", "another region.*region="),
        (404, "NoSuchBucket", "no bucket \"bucket\".*create it"),
        (500, "InternalError", "failed.*later"),
        (503, "SlowDown", "failed.*later"),
    ],
)
def test_what_a_server_answers_is_explained(status, code, match):
    with answering(answer(status, code)) as endpoint:
        text = fails("s3://bucket/x", match, endpoint=endpoint)
        assert "***" in text or status == 301


def test_a_missing_bucket(moto):
    fails("s3://no-such-bucket/x", 'no bucket "no-such-bucket"', endpoint=moto.endpoint)


def test_nobody_is_there():
    fails("s3://bucket/x", "no connection to http.*check the endpoint", endpoint=f"http://127.0.0.1:{free_port()}")
    fails("s3://bucket/x", "no connection", endpoint="http://no-such-host.invalid:9000")


def test_somebody_is_there_and_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fails("s3://bucket/x", "did not answer in time", endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_no_credentials_at_all(monkeypatch):
    with answering(answer(404)) as nobody, socket.create_server(("127.0.0.1", 0)) as silent:
        for service in (nobody, f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{silent.getsockname()[1]}"):
            monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service)
            began = time.monotonic()
            with pytest.raises(chipmink.StorageError, match="no credentials for s3://bucket/x; pass them as options"):
                chipmink.open("s3://bucket/x", endpoint=nobody)
            assert time.monotonic() - began < 10
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(chipmink.UnsupportedError, match="no credentials: pass"):
        chipmink.open("s3://bucket/x")


def test_a_bucket_that_can_only_be_read(moto, opened):
    opened().save({"x": [1]})
    place = "s3://bucket/test_a_bucket_that_can_only_be_read"

    def only_reading(handler):
        if handler.command not in ("GET", "HEAD"):
            return answer(403, "AccessDenied")(handler)
        return forward(moto, handler)

    with answering(only_reading) as endpoint, chipmink.open(place, endpoint=endpoint, **KEYS) as repo:
        assert repo.load() == {"x": [1]}
        with pytest.raises(chipmink.StorageError, match="denies access.*may list, read and write"):
            repo.save({"x": [2]})
        assert repo.load() == {"x": [1]}


def test_a_server_without_conditional_writes(tmp_path):
    """It keeps what it is given, and never looks at If-None-Match."""
    objects: dict[str, bytes] = {}

    def keep(handler):
        path, _, query = handler.path.partition("?")
        body, status = b"", 200
        if "list-type=2" in query:
            prefix = dict(part.partition("=")[::2] for part in query.split("&")).get("prefix", "").replace("%2F", "/")
            keys = sorted(key for key in (name.removeprefix("/bucket/") for name in objects) if key.startswith(prefix))
            found = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(objects['/bucket/' + key])}</Size>"
                "<LastModified>2024-01-01T00:00:00.000Z</LastModified></Contents>"
                for key in keys
            )
            body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()
        elif handler.command == "PUT":
            objects[path] = handler.body
        elif handler.command == "DELETE":
            objects.pop(path, None)
            status = 204
        elif path in objects:
            body = objects[path]
        else:
            return answer(404, "NoSuchKey")(handler)
        size, ranges = len(body), []
        if (wanted := handler.headers.get("Range")) is not None:
            first, last = wanted.removeprefix("bytes=").split("-")
            begin = int(first) if first else max(size - int(last), 0)
            end = min(int(last) + 1, size) if first and last else size
            status, ranges = 206, [("Content-Range", f"bytes {begin}-{end - 1}/{size}")]
            body = body[begin:end]
        handler.send_response(status)
        for name, value in ranges:
            handler.send_header(name, value)
        handler.send_header("ETag", '"x"')
        handler.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    with answering(keep) as endpoint:
        fails("s3://bucket/x", "conditional writes.*single_writer=True", kind=chipmink.UnsupportedError, endpoint=endpoint)
        assert not objects
        options = {"endpoint": endpoint, **KEYS}
        with chipmink.open("s3://bucket/x", single_writer=True, **options) as repo:
            for step in range(3):
                repo.save({"x": [step]})
        with chipmink.open("s3://bucket/x", **options) as repo:
            assert repo.load() == {"x": [2]}
            with pytest.raises(chipmink.StorageError, match="can only be read.*single_writer=True"):
                repo.save({"x": [3]})


def test_a_server_that_does_not_know_conditional_writes():
    def refuse(handler):
        if "If-None-Match" in handler.headers:
            return answer(501, "NotImplemented")(handler)
        if handler.command == "GET" and "list-type=2" in handler.path:
            body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
            return None
        return answer(404, "NoSuchKey")(handler)

    with answering(refuse) as endpoint:
        fails("s3://bucket/x", "it does not know them.*single_writer", kind=chipmink.UnsupportedError, endpoint=endpoint)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate that only itself vouches for, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    pem, key = folder / "own.pem", folder / "own.key"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    try:
        subprocess.run([*command.split(), "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", pem], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl, to make a certificate")
    return pem, key


def test_a_certificate_of_an_authority_of_ones_own(certificate):
    pem, key = certificate
    server = Moto(str(pem), str(key), scheme="https")
    try:
        fails("s3://bucket/x", "cannot prove who it is.*ca_file=", endpoint=server.endpoint)
        fails("s3://bucket/x", 'no bucket "bucket"', endpoint=server.endpoint, ca_file=pem)
        # The certificate is for its address, not for any name.
        fails("s3://bucket/x", "cannot prove who it is", endpoint=server.endpoint.replace("127.0.0.1", "localhost"), ca_file=pem)
    finally:
        server.stop()


def test_a_server_without_encryption(moto):
    fails("s3://bucket/x", "https|TLS|no connection", endpoint=moto.endpoint.replace("http:", "https:"))


def test_options_that_do_not_fit():
    for place, options, match in [
        ("s3://bucket/x", {"account_name": "me"}, "no option of a s3 place"),
        ("az://bucket/x", {"account_key": "a2V5"}, "account_name"),
        ("s3://", {}, "no bucket"),
        ("s3://bucket/x", {"endpoint": "localhost:9000"}, "endpoint"),
        ("s3://bucket/x", {"access_key_id": "only"}, "lack the secret key"),
        ("s3://bucket/x", {"ca_file": "/no/such/file"}, "ca_file"),
        ("folder", {"region": "x"}, "for buckets"),
        ("memory://", {"region": "x"}, "for buckets"),
    ]:
        with pytest.raises(chipmink.UnsupportedError, match=match):
            chipmink.open(place, **options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        chipmink.open("s3://bucket/x", colour="red")
    with pytest.raises(TypeError, match="region is a str"):
        chipmink.open("s3://bucket/x", region=["x"])


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("gs://bucket/x", {"anonymous": True}),
        ("az://container/x", {"account_name": "me", "account_key": "a2V5IG9mIHRoZSBhY2NvdW50IG9mIHRlc3RzIGFuZCBubyBvdGhlcg=="}),
    ],
)
def test_other_services_say_what_is_wrong(place, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for status, code, match in ((403, "AuthenticationFailed", "does not accept"), (403, "AccessDenied", "denies access")):
            with answering(answer(status, code)) as endpoint, pytest.raises(chipmink.StorageError, match=match) as caught:
                chipmink.open(place, endpoint=endpoint, **options)
            assert options.get("account_key", "\0") not in str(caught.value)
    with pytest.raises(chipmink.StorageError, match="no connection"):
        chipmink.open(place, endpoint=f"http://127.0.0.1:{free_port()}", **options)


@pytest.mark.parametrize("proxy", ["nobody", "refuses", "passes"])
def test_a_proxy(proxy, moto, opened, monkeypatch):
    """Requests go to the proxy of the environment; if it does not answer, or does not let them through, that is said."""
    opened().save({"x": [1]})
    place = "s3://bucket/test_a_proxy-" + proxy
    asked: list[str] = []

    def through(handler):
        asked.append(handler.path)
        if proxy == "refuses":
            return answer(407, "")(handler)
        # What a proxy is asked for is a whole URL.
        handler.path = handler.path.removeprefix("http://storage.test")
        return forward(moto, handler)

    with answering(through) as endpoint:
        where = f"http://127.0.0.1:{free_port()}" if proxy == "nobody" else endpoint
        monkeypatch.setenv("http_proxy", where)
        if proxy == "passes":
            with chipmink.open(place, endpoint="http://storage.test", **KEYS) as repo:
                assert repo.load() == {"x": [1]}
            assert asked and all(path.startswith("http://storage.test/") for path in asked)
        else:
            match = "no connection" if proxy == "nobody" else "407|proxy"
            fails(place, match, endpoint="http://storage.test")
