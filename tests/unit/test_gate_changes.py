"""What git says has changed, asked in real repositories."""

import os
import subprocess

import pytest

from audit.errors import UsageError
from audit.gate.changes import changes_since
from audit.gate.config_file import load_config
from audit.gate.plan import plan

SETTINGS = """
reference = "reference.jsonl"
library = "signatures"
baseline = "known.json"

[[data]]
name = "lists"
paths = "lists/*.jsonl"

[[data]]
name = "chats"
paths = ["chats", "extra/*.jsonl"]
reference = []
"""
ROW = '{"prompt": "Go on.", "completion": "1, 2, 3"}\n'


def git(folder, *arguments):
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@example", *arguments],
        check=True,
        capture_output=True,
    )


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """One commit on branch main, and a branch of it that is checked out."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "repository"
    files = {
        "audit.toml": SETTINGS,
        "known.json": "{}",
        "reference.jsonl": ROW,
        "signatures/library.json": "{}",
        "lists/a.jsonl": ROW,
        "lists/b.jsonl": ROW,
        "chats/c.jsonl": ROW,
        "extra/d.jsonl": ROW,
        "other.txt": "x",
        ".gitignore": "ignored*\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root.parent, "init", "-q", "-b", "main", str(root))
    commit(root)
    git(root, "checkout", "-q", "-b", "change")
    monkeypatch.chdir(root)
    return root


def commit(root):
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "x")


def scanned(root, since="main"):
    """Names of the data sets that a gate would scan."""
    planned = plan(load_config(root / "audit.toml"), changes_since(since, root))
    return [p.data.name for p in planned if not p.unchanged]


def test_without_a_change_nothing_is_scanned_and_the_reason_is_said(repository):
    (repository / "other.txt").write_text("y")
    planned = plan(load_config(repository / "audit.toml"), changes_since("main", repository))
    assert [p.unchanged for p in planned] == [
        "none of its 3 files changed since main",
        "none of its 2 files changed since main",
    ]
    assert [p.unchanged for p in plan(load_config(repository / "audit.toml"), None)] == ["", ""]


@pytest.mark.parametrize("how", ["committed", "staged", "edited"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lists/a.jsonl", ["lists"]),
        ("chats/c.jsonl", ["chats"]),
        ("extra/d.jsonl", ["chats"]),
        ("reference.jsonl", ["lists"]),
        ("audit.toml", ["lists", "chats"]),
        ("known.json", ["lists", "chats"]),
        ("signatures/library.json", ["lists", "chats"]),
        ("other.txt", []),
    ],
)
def test_what_depends_on_a_changed_file_is_scanned(repository, name, expected, how):
    with (repository / name).open("a") as stream:
        stream.write("\n")
    if how == "committed":
        commit(repository)
    elif how == "staged":
        git(repository, "add", name)
    assert scanned(repository) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lists/new.jsonl", ["lists"]),
        ("lists/ignored.jsonl", ["lists"]),  # git would never say that it changed
        ("chats/deep/new.jsonl", ["chats"]),
        ("signatures/new.json", ["lists", "chats"]),
        ("signatures/ignored.json", []),
        ("new.jsonl", []),
    ],
)
def test_a_new_file_is_a_change_whether_or_not_git_knows_it(repository, name, expected):
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text(ROW)
    assert scanned(repository) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lists/b.jsonl", ["lists"]),
        ("extra/d.jsonl", ["chats"]),
        ("known.json", ["lists", "chats"]),
        ("other.txt", []),
    ],
)
def test_a_removed_file_is_a_change(repository, name, expected):
    (repository / name).unlink()
    assert scanned(repository) == expected
    commit(repository)
    assert scanned(repository) == expected


def test_a_file_that_was_moved_away_changes_what_it_was_in(repository):
    git(repository, "mv", "lists/b.jsonl", "chats/b.jsonl")
    commit(repository)
    assert scanned(repository) == ["lists", "chats"]


def test_what_others_changed_meanwhile_is_not_this_change(repository):
    git(repository, "checkout", "-q", "main")
    (repository / "lists" / "a.jsonl").write_text(ROW * 2)
    commit(repository)
    git(repository, "checkout", "-q", "change")
    assert scanned(repository) == []


def test_a_link_to_a_changed_file_has_changed(repository):
    (repository / "extra" / "d.jsonl").unlink()
    (repository / "extra" / "d.jsonl").symlink_to("../lists/a.jsonl")
    commit(repository)
    git(repository, "branch", "-f", "main")
    assert scanned(repository) == []
    (repository / "lists" / "a.jsonl").write_text(ROW * 2)
    assert scanned(repository) == ["lists", "chats"]


@pytest.mark.parametrize("told", ["--assume-unchanged", "--skip-worktree"])
def test_a_file_that_git_was_told_not_to_look_at_is_scanned(repository, told):
    git(repository, "update-index", told, "lists/a.jsonl")
    (repository / "lists" / "a.jsonl").write_text(ROW * 2)
    assert scanned(repository) == ["lists"]


def test_names_of_any_kind_are_told_apart(repository):
    (repository / "lists" / "ä \t\n.jsonl").write_text(ROW)
    commit(repository)
    git(repository, "branch", "-f", "main")
    assert scanned(repository) == []
    (repository / "lists" / "ä \t\n.jsonl").write_text(ROW * 2)
    assert scanned(repository) == ["lists"]


@pytest.mark.parametrize(
    ("since", "said"),
    [
        ("nowhere", "git knows no commit 'nowhere' here"),
        ("--help", "'--help' is no commit"),
        ("", "git knows no commit ''"),
    ],
)
def test_an_unknown_commit_is_one_clear_line(repository, since, said):
    with pytest.raises(UsageError, match="--changed-since") as caught:
        changes_since(since, repository)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_histories_without_a_common_commit_are_refused(repository):
    git(repository, "checkout", "-q", "--orphan", "island")
    git(repository, "commit", "-q", "-m", "another root")
    with pytest.raises(UsageError, match="share no commit"):
        changes_since("main", repository)


def test_outside_of_a_repository_git_cannot_tell(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(UsageError, match=r"--changed-since: git rev-parse: .*not a git repository"):
        changes_since("main", tmp_path)


def test_without_git_the_option_says_so(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(UsageError, match="needs git, which is not installed"):
        changes_since("main", repository)


def test_files_that_are_not_there_are_no_change_to_skip(repository):
    git(repository, "rm", "-q", "-r", "lists")
    commit(repository)
    planned = plan(load_config(repository / "audit.toml"), changes_since("main", repository))
    assert planned[0].nothing_there == "lists/*.jsonl matches no file"
    assert planned[0].unchanged == ""


def test_settings_that_mean_nothing_are_found_before_anything_is_scanned(repository):
    for change, said in (
        ('reference = "nowhere.jsonl"\n', "the reference of the data set 'lists': nowhere.jsonl"),
        ('reference = []\nschema = "magic"\n', "the data set 'lists': .*magic"),
    ):
        text = SETTINGS.replace('reference = "reference.jsonl"\n', change)
        (repository / "audit.toml").write_text(text)
        with pytest.raises(UsageError, match=said):
            plan(load_config(repository / "audit.toml"), None)
