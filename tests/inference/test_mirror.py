"""Fetching from a mirror: real HTTP, only what a model needs, on from where it broke off."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from inference.artefacts.mirror import fetch
from portal.core.errors import Invalid, NotFound, PortalError, Unavailable
from tests.inference.mirror import COMMIT, REPOSITORY, Mirror, running_mirror
from tests.inference.model_folders import write_folder, write_safetensors

REVISION = f"{REPOSITORY}@main"
BIG = "model-00001-of-00001.safetensors"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "source", shards={BIG: ["a"]})
    write_safetensors(folder / BIG, ["a"], values=50_000)
    return folder


def get(mirror: Mirror, tmp_path: Path, token: str | None = None) -> Path:
    return fetch(mirror.url, REVISION, tmp_path / "downloads", token=token).folder


def test_fetch_takes_a_models_files_and_no_others(source: Path, tmp_path: Path) -> None:
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (source / "modeling.py").write_text("raise SystemExit")
    (source / "original").mkdir()
    write_safetensors(source / "original" / "consolidated.safetensors", ["a"])
    with running_mirror(source) as mirror:
        snapshot = fetch(f"{mirror.url}/", REVISION, tmp_path / "downloads")
        assert snapshot.provenance == f"{mirror.url}/{REPOSITORY}@{COMMIT}"
        wanted = {
            "README.md",
            "config.json",
            "generation_config.json",
            BIG,
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
        }
        assert mirror.fetched() == wanted
    for name in wanted:
        assert (snapshot.folder / name).read_bytes() == (source / name).read_bytes()


def test_fetch_again_goes_on_where_it_broke_off(source: Path, tmp_path: Path) -> None:
    with running_mirror(source) as mirror:
        mirror.cut_after = 100_000
        with pytest.raises(Unavailable, match="broke off"):
            get(mirror, tmp_path)
        mirror.cut_after = None
        mirror.asked.clear()
        folder = get(mirror, tmp_path)
        ranges = {path.rpartition("/")[2]: asked for _, path, asked in mirror.asked if asked}
    assert (folder / BIG).read_bytes() == (source / BIG).read_bytes()
    assert ranges == {BIG: "bytes=100000-"}


def test_fetch_from_a_mirror_that_cannot_go_on_takes_all_again(
    source: Path, tmp_path: Path
) -> None:
    with running_mirror(source) as mirror:
        mirror.cut_after, mirror.ranges = 100_000, False
        with pytest.raises(Unavailable):
            get(mirror, tmp_path)
        mirror.cut_after = None
        folder = get(mirror, tmp_path)
    assert (folder / BIG).read_bytes() == (source / BIG).read_bytes()


def test_fetch_what_arrives_corrupt_is_refused_and_fetched_anew(
    source: Path, tmp_path: Path
) -> None:
    with running_mirror(source) as mirror:
        mirror.lies_about = BIG
        with pytest.raises(Invalid, match=f"{BIG} arrived corrupt"):
            get(mirror, tmp_path)
        mirror.lies_about = None
        mirror.asked.clear()
        get(mirror, tmp_path)
        assert BIG in mirror.fetched()


def test_fetch_sends_the_token_and_never_says_it(
    source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with running_mirror(source, token="mirror-token-0123456789") as mirror:
        with pytest.raises(Unavailable, match="401") as refused:
            get(mirror, tmp_path, token="mirror-token-wrong-one")
        get(mirror, tmp_path, token="mirror-token-0123456789")
    said = capfd.readouterr()
    assert "mirror-token" not in said.out + said.err + str(refused.value)


def test_fetch_follows_a_redirect_without_the_token(source: Path, tmp_path: Path) -> None:
    with running_mirror(source) as store, running_mirror(source, token="t-0123456789") as mirror:
        mirror.redirect_to = store.url
        folder = get(mirror, tmp_path, token="t-0123456789")
        assert BIG in store.fetched()
        assert store.authorizations == {None}
    assert (folder / BIG).read_bytes() == (source / BIG).read_bytes()


def test_fetch_pickles_only_is_refused_before_any_transfer(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with running_mirror(folder) as mirror:
        with pytest.raises(Invalid, match="no safetensors"):
            get(mirror, tmp_path)
        assert mirror.fetched() == set()


@pytest.mark.parametrize(
    ("url", "repository", "kind"),
    [
        ("mirror.internal", REVISION, Invalid),
        ("file:///etc", REVISION, Invalid),
        ("http://127.0.0.1:9", REVISION, Unavailable),
        (None, REPOSITORY, Invalid),
        (None, f"{REPOSITORY}@nowhere", NotFound),
        (None, "org/nothing@main", NotFound),
        (None, "a/b/c/d@main", Invalid),
    ],
)
def test_fetch_what_is_not_there_says_so(
    source: Path, tmp_path: Path, url: str | None, repository: str, kind: type[PortalError]
) -> None:
    with running_mirror(source) as mirror, pytest.raises(kind):
        fetch(url or mirror.url, repository, tmp_path / "downloads")


def test_fetch_reaches_the_mirror_alone(source: Path, tmp_path: Path) -> None:
    program = """
import sys
reached = set()
sys.addaudithook(lambda name, args: reached.add(str(args[1])) if name == "socket.connect" else None)
sys.addaudithook(lambda name, args: reached.add(str(args[0])) if name == "socket.getaddrinfo"
    else None)
from pathlib import Path
from inference.artefacts.mirror import fetch
fetch(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
assert reached and all("127.0.0.1" in str(where) for where in reached), reached
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "HOME": str(home),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PATH": "/usr/bin:/bin",
        "HTTP_PROXY": "http://proxy.invalid:3128",
        "HF_TOKEN": "of-another-house",
        "HF_ENDPOINT": "http://elsewhere.invalid",
    }
    with running_mirror(source) as mirror:
        subprocess.run(
            [sys.executable, "-c", program, mirror.url, REVISION, str(tmp_path / "downloads")],
            check=True,
            env=environment,
            timeout=60,
        )
        assert mirror.authorizations == {None}
