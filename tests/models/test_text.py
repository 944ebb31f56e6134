import pytest
import torch

from interaction_train.models import TextTransformer
from interaction_train.models.text import WordDropout
from tests.data.files import raises

IDS = torch.tensor([[5, 6, 7, 0, 0, 0], [8, 5, 5, 9, 4, 3]])


def network(**arguments):
    torch.manual_seed(0)
    return TextTransformer(20, 3, max_length=10, width=16, heads=2, **arguments).eval()


def test_logits_do_not_depend_on_padding():
    net = network()
    assert net(IDS).shape == (2, 3)
    assert torch.allclose(net(IDS)[:1], net(IDS[:1, :3]), atol=1e-6)
    assert torch.allclose(net(torch.nn.functional.pad(IDS, (0, 4))), net(IDS), atol=1e-6)
    assert not torch.allclose(net(IDS[:, [1, 0, 2, 3, 4, 5]]), net(IDS), atol=1e-3)


def test_an_attention_mask_takes_the_place_of_the_padding_id():
    net = network()
    mask = IDS != 0
    assert torch.equal(net(IDS, attention_mask=mask.int()), net(IDS))
    other = IDS.masked_fill(~mask, 11)
    assert torch.allclose(net(other, attention_mask=mask), net(IDS), atol=1e-6)
    assert not torch.allclose(net(other), net(IDS), atol=1e-3)
    assert net(torch.zeros(1, 4, dtype=torch.int64)).isfinite().all()


def test_masked_ids_are_masked_embeddings():
    net = network()
    keep = torch.tensor([[True, False, True, True, True, True]])
    ids = torch.where(keep, IDS, net.mask_id)
    absent = net.embed(torch.full_like(IDS, net.mask_id))
    embeddings = torch.where(keep.unsqueeze(2), net.embed(IDS), absent)
    assert torch.allclose(net.encode(embeddings, IDS != 0), net(ids), atol=1e-6)
    assert torch.equal(net.get_submodule("embedding")(IDS), net.embed(IDS))


def test_second_derivatives_are_those_of_finite_differences():
    net = network().double()
    x = net.embed(IDS[:1, :3]).detach().requires_grad_()
    mask = torch.ones(1, 3, dtype=torch.bool)
    assert torch.autograd.gradgradcheck(lambda x: net.encode(x, mask)[:, 0], x, atol=1e-4)


def test_words_are_hidden_in_training_alone_and_padding_never():
    layer = WordDropout(0.5, 2, (0,))
    ids = torch.full((4000, 12), 7)
    ids[:, 10:] = 0
    torch.manual_seed(0)
    out = layer(ids)
    assert (out[:, 10:] == 0).all()
    share = (out[:, :10] == 2).float().mean(1)
    assert set(out[:, :10].unique().tolist()) == {2, 7}
    assert 0.2 < float(share.mean()) < 0.3  # half of the sentences, half of their words
    assert 0.42 < float((share > 0).float().mean()) < 0.5
    assert torch.equal(layer.eval()(ids), ids)
    net = network(word_dropout=0.9, dropout=0.0).train()
    net(IDS).sum().backward()
    assert float(net.embedding.weight.grad[2].abs().sum()) > 0


def test_bad_input_is_named():
    net = network()
    with raises("x", "11 tokens", "10"):
        net(torch.ones(1, 11, dtype=torch.int64))
    with raises("x", "torch.float32", "int64"):
        net(torch.ones(1, 4))
    for name, value in {"width": 15, "layers": 0, "word_dropout": 1.0, "mask_id": 20}.items():
        with raises(name, str(value)):
            TextTransformer(20, 3, **{"width": 16, "heads": 2, name: value})


@pytest.mark.parametrize("size", [100, 120])
def test_a_vocabulary_larger_than_the_network_s_is_refused(size):
    class Data:
        vocabulary_size, pad_id, mask_id, max_length = size, 0, 2, 64

    net = TextTransformer(100, 2)
    if size > 100:
        with raises("vocabulary_size", "100", "120"):
            net.adapt_to(Data())
    else:
        net.adapt_to(Data())
