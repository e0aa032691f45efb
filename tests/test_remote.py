"""A store in a bucket, over HTTP on a real S3 server: machines see one another's results, lose none, and work while the bucket is away."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from s3_server import BUCKET, Server
from store_rows import grade, member, one, reply

from esr.errors import StoreError
from esr.params import HOME
from esr.remote import bucket as buckets
from esr.remote import lease, mirror
from esr.remote.bucket import Bucket, Unreachable
from esr.store import Store
from esr.store.locks import exclusive

URL = f"s3://{BUCKET}/study"


@pytest.fixture
def url(served: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A prefix of the test's own."""
    for name, value in served.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(mirror, "FRESH", 0.0)
    monkeypatch.setattr(mirror, "SHARE", 0.0)
    own = f"s3://{BUCKET}/{request.node.name}"
    monkeypatch.setenv("ESR_STORE", own)
    mirror._open.clear()
    return own


class Machine:
    """A folder of its own on which results of the bucket are copied."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._patch = root, monkeypatch

    def __enter__(self) -> Store:
        self._patch.setenv("ESR_MIRROR", str(self.root))
        return Store()

    def __exit__(self, *_: object) -> None:
        return None


def texts(store: Store) -> list[str]:
    return sorted(store.sql("select text from replies")["text"].to_pylist())


def put(store: Store, i: int, text: str = "fine words") -> None:
    store.put_members([member(i)])
    store.put_replies([reply(member(i), text)])


def test_what_one_machine_puts_another_reads_and_does_not_do_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (Machine(tmp_path / name, monkeypatch) for name in ("here", "there"))
    with here as store:
        assert store.root == tmp_path / "here"
        put(store, 1, "one")
        store.put_grades([grade(member(1), 70.0)])
    with there as store:
        assert store.ingest().rows
        assert texts(store) == ["one"]
        assert store.known("replies", [member(1).trial.id, "x"]) == {member(1).trial.id}
        put(store, 2, "two")
        store.ingest()
    with here as store:
        assert texts(store) == ["one", "two"]
        assert (
            one(store, "select max(score) as s from grades g, unnest(g.attempts) as t(a), (select a.score as score)")["s"] == 70.0
        )
    assert not list((tmp_path / "here").glob("**/.*.tmp"))
    assert len(Bucket(url).objects("shards/replies/")) == 2


def test_a_shard_that_another_machine_wrote_first_stands(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Machine(tmp_path / "here", monkeypatch) as store:
        put(store, 1, "first")
    name = next(iter(Bucket(url).objects("shards/replies/")))
    before = Bucket(url).read(name)
    late = Machine(tmp_path / "there", monkeypatch)
    monkeypatch.setattr(mirror.Mirror, "refresh", lambda self, at_once=False: None)  # it has not looked
    with late as store:
        put(store, 1, "second")
        assert (tmp_path / "there" / name).read_bytes() == before == Bucket(url).read(name)


def test_while_the_bucket_is_away_work_goes_on_and_is_sent_afterwards(
    served: Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(buckets, "TRIES", 1)
    monkeypatch.setattr(buckets, "READ", 0.5)
    monkeypatch.setattr(mirror, "PAUSE", 0.2)
    machine = Machine(tmp_path / "here", monkeypatch)
    with machine as store, caplog.at_level(logging.WARNING):
        put(store, 1, "before")
        served.pause()
        try:
            put(store, 2, "during")
            assert texts(store) == ["before", "during"]
            with exclusive(store.root / "locks", "work"):
                put(store, 3, "under a lease that nobody could give")
            with pytest.raises(StoreError, match=r"files of results lie in .*here' and not yet in s3://.* nothing is lost"):
                store.put_run({"experiment": "exp01", "model": "tiny", "scale": "smoke", "judge": "lexical"})
        finally:
            served.go_on()
        time.sleep(0.3)
        mirror.settle(store.root)
    assert len([record for record in caplog.records if "work goes on" in record.message]) == 1
    assert [record for record in caplog.records if "answers again" in record.message]
    with Machine(tmp_path / "there", monkeypatch) as store:
        assert len(texts(store)) == 3
        assert store.sql("from runs").num_rows == 1


def test_what_is_taken_out_of_the_bucket_is_read_nowhere_and_kept(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Machine(tmp_path / "here", monkeypatch) as store:
        put(store, 1, "stays")
        put(store, 2, "goes")
        store.ingest()
        [name] = [name for name in Bucket(url).objects("shards/replies/") if b"goes" in Bucket(url).read(name)] or [
            sorted(Bucket(url).objects("shards/replies/"))[0]
        ]
        gone = (store.root / name).read_bytes()
        Bucket(url).remove(name)
        assert len(texts(store)) == 1
        assert (store.root / "withdrawn" / name).read_bytes() == gone
        assert "no longer in" in caplog.text
        assert name not in Bucket(url).objects("shards/")


def test_results_of_a_folder_of_its_own_are_not_sent_unasked_and_can_be_handed_on(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Store(tmp_path / "own")
    put(own, 1, "mine")
    monkeypatch.setenv("ESR_MIRROR", str(own.root))
    with pytest.raises(StoreError, match=f"holds results of its own and cannot be the copy of {url}; set ESR_MIRROR"):
        texts(Store())
    assert not Bucket(url).objects("")
    monkeypatch.setenv("ESR_MIRROR", str(tmp_path / "copy"))
    subprocess.run([sys.executable, "-m", "esr", "take", str(own.root)], check=True, capture_output=True, cwd=HOME)
    assert texts(Store()) == ["mine"]
    assert Bucket(url).objects("shards/replies/")
    monkeypatch.setenv("ESR_STORE", f"{url}-other")
    with pytest.raises(StoreError, match=f"holds results of {url} and cannot be the copy of {url}-other"):
        texts(Store())


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("s3://", "is no object store; write s3://bucket/prefix"),
        ("s3://no-such-bucket/x", "there is no bucket 'no-such-bucket'; make it, or correct ESR_STORE"),
    ],
)
def test_a_store_that_cannot_be_had_is_one_sentence(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, said: str
) -> None:
    monkeypatch.setenv("ESR_MIRROR", str(tmp_path / "here"))
    done = subprocess.run(
        [sys.executable, "-m", "esr", "sql", "from summary"],
        env={**os.environ, "ESR_STORE": named},
        capture_output=True,
        text=True,
        cwd=HOME,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_without_keys_or_server_it_is_said(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "TRIES", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"cannot be reached to list what is there: .*127.0.0.1:9"):
        Bucket(url).objects("")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(Unreachable, match="wants keys and none are set"):
        Bucket(url).objects("")


def test_a_server_that_overwrites_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bucket._put
    monkeypatch.setattr(Bucket, "_put", lambda self, name, content, **condition: real(self, name, content))
    with pytest.raises(StoreError, match="overwrites what another has written"):
        Bucket(url).check()


def test_one_holds_a_lease_at_a_time_and_the_next_finds_what_was_done(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LOOK", 0.02)
    bucket, inside, most, done = Bucket(url), [0], [0], list[int]()
    guard = threading.Lock()

    def work(i: int) -> None:
        with lease.leased(bucket, "locks/one"):
            with guard:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            with guard:
                inside[0] -= 1
                done.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == list(range(6))
    assert most[0] == 1
    assert not bucket.objects("locks/")


HOLDER = """
import sys, time
from esr.remote.bucket import Bucket
from esr.remote.lease import leased
with leased(Bucket(sys.argv[1]), "locks/one"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lease_of_a_dead_process_is_free_at_once_here_and_after_its_term_elsewhere(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LOOK", 0.02)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True, cwd=HOME)
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    waited = threading.Event()

    def wait() -> None:
        with lease.leased(Bucket(url), "locks/one"):
            waited.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert not waited.wait(0.5)
    holder.kill()
    holder.communicate()
    assert waited.wait(20)
    thread.join(20)
    Bucket(url).new("locks/one", json.dumps({"holder": "another-machine:1:2:3", "at": 0}).encode())
    monkeypatch.setattr(lease, "TERM", 2.0)
    began = time.monotonic()
    with lease.leased(Bucket(url), "locks/one"):
        assert time.monotonic() - began > 0.9  # ages are in whole seconds


def test_a_lease_that_is_renewed_is_kept_longer_than_its_term(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LOOK", 0.05)
    monkeypatch.setattr(lease, "TERM", 2.0)
    order = list[str]()

    def second() -> None:
        with lease.leased(Bucket(url), "locks/one"):
            order.append("second")

    with lease.leased(Bucket(url), "locks/one"):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        time.sleep(4.5)
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
