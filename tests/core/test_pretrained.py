"""Sharing a trained assistant."""

import json

import pytest
import torch

from dlr_core import pretrained
from dlr_core.config import resolve
from dlr_core.errors import ConfigError, ModelError, RunFolderError
from dlr_core.pipeline import DLRPipeline

QUESTION = "Say something."
TABLE = {
    "env": "dlr/Toy-v0",
    "split": "test",
    "n": 7,
    "rows": {"plain": {"accuracy": 0.25, "ci": [0.1, 0.4]}, "trained": {"accuracy": 0.5, "ci": [0.3, 0.7]}},
    "paired": {"plain": {"difference": 0.25, "ci": [0.05, 0.45]}},
}


@pytest.fixture
def trained(host, tiny_model):
    settings = {
        "env": "dlr/Toy-v0",
        "decoder": {"model": str(tiny_model), "max_new_tokens": 3},
        "space": {"name": "kv", "num_latents": 2, "latent_dim": 6, "anchor": " so it is", "chart": "joint"},
        "assistant": {"name": "small-gpt", "width": 16, "heads": 2, "layers": 1},
    }
    torch.manual_seed(3)
    made = DLRPipeline.assemble(settings, host=host)
    for parameter in (*made.assistant.parameters(), *made.engine.space.trainable()):
        parameter.data += torch.randn_like(parameter)
    made.table = TABLE
    return made


def test_what_is_loaded_writes_the_chains_that_were_saved(trained, host, tmp_path):
    trained.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    torch.manual_seed(99)
    loaded = DLRPipeline.from_pretrained(tmp_path, host=host)
    assert torch.equal(loaded._chain(QUESTION), trained._chain(QUESTION))
    assert torch.equal(loaded.engine.space.chart_DW, trained.engine.space.chart_DW)
    assert loaded(QUESTION) == trained(QUESTION)
    assert (loaded.config, loaded.table) == (trained.config, TABLE)


def test_the_card_holds_the_control_table(trained, tmp_path):
    trained.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "| plain | 25.0 [10.0, 40.0] | +25.0 [+5.0, +45.0] |" in card
    assert "| trained | 50.0 [30.0, 70.0] |  |" in card
    assert trained.engine.decoder.fingerprint() in card
    trained.table = None
    assert "not been measured" in str(trained.generate_model_card())


def test_another_main_model_is_refused(trained, host, other_model, tmp_path):
    trained.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described["run"]["decoder"]["model"] = str(other_model)
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ModelError, match="another main model"):
        DLRPipeline.from_pretrained(tmp_path, host=host)


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", "{}"), ("model.safetensors", "nothing"), ("model.safetensors", None)],
)
def test_a_damaged_folder_is_one_clear_error(trained, host, tmp_path, name, content):
    trained.save_pretrained(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match="is not a saved assistant"):
        DLRPipeline.from_pretrained(tmp_path, host=host)


def test_weights_of_another_shape_are_refused(trained, host, tmp_path):
    trained.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described["run"]["assistant"]["width"] = 32
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(ConfigError, match="is damaged"):
        DLRPipeline.from_pretrained(tmp_path, host=host)


def test_the_hub_is_sent_what_a_folder_gets_and_gives_it_back(trained, host, tmp_path, monkeypatch):
    hub = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, private, exist_ok):
            hub["private"] = private
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **_):
            hub[repo_id] = {path.name: path.read_bytes() for path in folder_path.iterdir()}
            return "done"

    def download(repo_id, **_):
        for name, content in hub[repo_id].items():
            (tmp_path / name).write_bytes(content)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    monkeypatch.setattr(pretrained, "snapshot_download", download)
    assert trained.push_to_hub("me/sums", private=True, model_card_kwargs={"repo_id": "me/sums"}) == "done"
    assert hub["private"] is True
    assert sorted(hub["me/sums"]) == ["README.md", "config.json", "model.safetensors"]
    assert b'from_pretrained("me/sums")' in hub["me/sums"]["README.md"]
    loaded = DLRPipeline.from_pretrained("me/sums", host=host)
    assert loaded(QUESTION) == trained(QUESTION)


def test_neither_folder_nor_repository_is_one_clear_error(host, monkeypatch):
    def refused(*_, **__):
        raise OSError("no route\nto host")

    monkeypatch.setattr(pretrained, "snapshot_download", refused)
    with pytest.raises(RunFolderError, match=r"no folder me/sums, and the hub does not give it: no route$"):
        DLRPipeline.from_pretrained("me/sums", host=host)


def test_settings_resolve_to_themselves_after_a_round_trip(trained, host):
    assert resolve(trained.config.model_dump(mode="json"), host) == trained.config
