import pytest


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub's cache on this machine, without a network: add(repository, commit, branch) makes a snapshot."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    def add(repository, commit, branch="main"):
        place = tmp_path / f"models--{repository.replace('/', '--')}"
        (place / "refs" / branch).parent.mkdir(parents=True, exist_ok=True)
        (place / "refs" / branch).write_text(commit)
        (place / "snapshots" / commit).mkdir(parents=True)
        return place / "snapshots" / commit

    return add
