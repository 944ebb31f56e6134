"""A small network for token ids, and sentences."""

import torch
from torch import nn

PAD, CLS, MASK = 0, 1, 2


class WordNet(nn.Module):
    """Attention over embeddings, in float64; padding takes no part."""

    mask_id, kept_ids = MASK, (PAD, CLS)

    def __init__(self, words=30, width=6):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embedding = nn.Embedding(words, width)
        self.head = nn.Linear(width, 3)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator)
        self.double()

    def forward(self, ids, attention_mask=None):
        shown = ids != PAD if attention_mask is None else attention_mask.bool()
        return self.encode(self.embedding(ids), shown)

    def encode(self, x, attention_mask):
        scores = (x @ x.mT).masked_fill(~attention_mask[:, None], -torch.inf)
        x = (scores.softmax(-1) @ x).tanh() * attention_mask[..., None]
        return self.head(x.sum(1))


def sentences(batch, length, seed=0):
    return torch.randint(3, 30, (batch, length), generator=torch.Generator().manual_seed(seed))
