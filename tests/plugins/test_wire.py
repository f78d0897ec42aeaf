"""Prompt embeddings as text: what torch.save writes is read back, anything else is refused, and nothing is run."""

import base64
import io
import pickle
import zipfile

import pytest
import torch
from dlr_plugins.serving import wire
from dlr_plugins.serving.refusal import Refusal

WIDTH = 7


def saved(thing) -> bytes:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def text(payload: bytes) -> str:
    return base64.b64encode(payload).decode()


def refusal(given: str, positions: int = 10) -> str:
    with pytest.raises(Refusal) as caught:
        wire.decode(given, WIDTH, positions)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
    return str(caught.value)


def rebuilt(payload: bytes, **changed: bytes) -> bytes:
    """The same archive with some entries' bytes replaced."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(payload)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            key = name.rpartition("/")[2].replace(".", "_")
            new.writestr(name, changed.get(key, old.read(name)))
    return made.getvalue()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 5, 300])
def test_what_is_written_is_read_bit_for_bit_and_vllm_reads_the_same(dtype, length):
    embeds = torch.randn(length, WIDTH).to(dtype)
    sent = wire.encode(embeds)
    got = wire.decode(sent, WIDTH, 300)
    assert got.dtype == dtype
    assert torch.equal(got, embeds)
    theirs = torch.load(io.BytesIO(base64.b64decode(sent, validate=True)), weights_only=True)  # as vLLM does
    assert torch.equal(theirs, embeds)


def test_a_slice_of_a_batch_is_sent_alone_and_read_wherever_it_lies():
    batch = torch.randn(4, 5, WIDTH)
    assert len(wire.encode(batch[2])) == len(wire.encode(batch[2].clone()))
    assert torch.equal(wire.decode(text(saved(batch[2])), WIDTH, 10), batch[2])  # torch.save keeps the whole storage
    attached = batch[1].clone().requires_grad_()
    assert torch.equal(wire.decode(text(saved(attached)), WIDTH, 10), batch[1])


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (torch.zeros(5, WIDTH, dtype=torch.float64), "expected float32, float16 or bfloat16, got torch DoubleStorage"),
        (torch.zeros(5, WIDTH, dtype=torch.int64), "got torch LongStorage"),
        (torch.zeros(5, WIDTH + 1), "expected vectors of the model's hidden size 7, got 8"),
        (torch.zeros(11, WIDTH), "expected 1 to 10 positions, got 11"),
        (torch.zeros(0, WIDTH), "expected 1 to 10 positions, got 0"),
        (torch.zeros(WIDTH, 5).T, "its rows are not contiguous"),
        (torch.zeros(1, 5, WIDTH), "number of axes"),
        (torch.zeros(WIDTH), "number of axes"),
        (torch.zeros(5, WIDTH).to_sparse(), "another object"),
        (torch.nn.Parameter(torch.zeros(5, WIDTH)), "another object"),
        ([torch.zeros(5, WIDTH)], "another object"),
        ({"weight": torch.zeros(5, WIDTH)}, "another object"),
        (torch.full((5, WIDTH), torch.nan), "expected finite numbers"),
        (torch.full((5, WIDTH), -torch.inf, dtype=torch.bfloat16), "expected finite numbers"),
    ],
)
def test_anything_but_a_finite_float_matrix_of_the_right_width_is_refused(thing, expected):
    assert expected in refusal(text(saved(thing)))


def test_one_nan_among_many_numbers_is_found():
    embeds = torch.zeros(9, WIDTH)
    embeds[8, 6] = torch.nan
    assert "finite" in refusal(wire.encode(embeds))


def test_text_that_is_no_archive_is_refused():
    assert "not base64" in refusal("?" * 40)
    assert "not base64" in refusal("é" * 40)
    for payload in (b"", b"hello", saved(torch.zeros(5, WIDTH))[:-40], pickle.dumps(torch.zeros(5, WIDTH))):
        assert "damaged" in refusal(text(payload))
    assert "damaged" in refusal(text(rebuilt(saved(torch.zeros(5, WIDTH)), data_pkl=b"\x80\x02garbage")))


def test_every_truncation_of_a_request_is_refused():
    whole = saved(torch.zeros(2, WIDTH))
    for length in range(0, len(whole), 7):
        refusal(text(whole[:length]))


def test_a_storage_shorter_than_it_says_is_refused():
    assert "shorter" in refusal(text(rebuilt(saved(torch.zeros(5, WIDTH)), **{"0": b"\0" * 8})))


def test_a_compressed_archive_is_refused_before_it_is_unpacked():
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(torch.zeros(5, WIDTH)))) as old,
        zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "compressed" in refusal(text(made.getvalue()))


def test_other_byte_orders_are_refused():
    assert "little-endian" in refusal(text(rebuilt(saved(torch.zeros(5, WIDTH)), byteorder=b"big")))


sprung = []


def spring():
    sprung.append(1)


class Trap:
    """Calls a function when it is unpickled."""

    def __reduce__(self):
        return spring, ()


def test_nothing_in_a_request_is_run():
    pickled = pickle.dumps(Trap(), 2)
    pickle.loads(pickled)
    assert sprung == [1]
    refusal(text(pickled))
    refusal(text(saved(Trap())))
    refusal(text(rebuilt(saved(torch.zeros(5, WIDTH)), data_pkl=pickled)))
    # The one call that a description may make, made on something else, and something else called in its place.
    described = zipfile.ZipFile(io.BytesIO(saved(torch.zeros(5, WIDTH)))).read("archive/data.pkl")
    for old, new in (
        (b"torch._utils\n_rebuild_tensor_v2\n", b"torch._utils\n_rebuild_tensor_v3\n"),
        (b"torch._utils\n_rebuild_tensor_v2\n", b"os\nsystem\n"),
        (b"collections\nOrderedDict\n", b"builtins\nexec\n"),
        (b"torch\nFloatStorage\n", b"os\nsystem\n"),
    ):
        assert old in described
        refusal(text(rebuilt(saved(torch.zeros(5, WIDTH)), data_pkl=described.replace(old, new))))
    assert sprung == [1]
