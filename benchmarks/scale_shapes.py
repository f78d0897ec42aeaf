"""Sizes on paper: what a main model and what learns beside it are made of, from the numbers in their configurations."""

from dataclasses import dataclass

DIRECTIONS = 512
"""Places from the end of a question that ``small-gpt`` knows (its ``from_end`` table)."""


@dataclass(frozen=True)
class Shape:
    """A main model of Llama's kind: attention with grouped queries and a gated MLP; no biases."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    """Whether the output table is the input table."""

    @property
    def matrices(self) -> int:
        """Weights of all layers that a position is multiplied with: q and o, k and v, and the MLP's three."""
        attention = 2 * self.hidden * self.heads * self.head_dim + 2 * self.hidden * self.kv_heads * self.head_dim
        return self.layers * (attention + 3 * self.hidden * self.ffn)

    @property
    def head(self) -> int:
        """Weights of the output table."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All of them: layers, tables, and two norms a layer with one at the end."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.matrices + self.head * (1 if self.tied else 2) + norms

    @property
    def cached(self) -> int:
        """Numbers that a position leaves in the cache: a key and a value per layer and key/value head."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters on every matrix of the layers: ``rank`` a row and a column (Hu et al. 2021)."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = 2 * (self.hidden + query) + 2 * (self.hidden + key) + 3 * (self.hidden + self.ffn)
        return self.layers * rank * sides

    def attention_flops(self, context: float) -> float:
        """FLOPs of one position's attention, forward: scores and their weighted sum, two a number and head."""
        return 4.0 * self.layers * self.heads * self.head_dim * context

    def activations(self, *, frozen: bool) -> int:
        """Bytes in bfloat16 that Transformers' Llama layers keep per position until their gradients are found.

        A layer keeps its MLP's gate, the gate's SiLU and the other factor; what its two norms read, in float32, and
        their scales; queries, keys, values, attention's result and log-sum. A linear layer keeps its input for the
        gradient of its weights alone, so frozen ones keep nothing: trained ones add both norms' results, those before
        their weights as well, and what the MLP's last matrix reads.
        """
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        kept = 6 * self.ffn + 8 * self.hidden + 4 * query + 4 * key + 4 * self.heads + 8
        return self.layers * (kept if frozen else kept + 2 * self.ffn + 8 * self.hidden)


SMALL = Shape("135M", 30, 576, 9, 3, 64, 1536, 49152, tied=True)
"""SmolLM2-135M."""
MIDDLE = Shape("7B", 32, 4096, 32, 32, 128, 11008, 32000, tied=False)
"""LLaMA-2-7B, the paper's main model."""
LARGE = Shape("70B", 80, 8192, 64, 8, 128, 28672, 32000, tied=False)
"""LLaMA-2-70B."""
SHAPES = (SMALL, MIDDLE, LARGE)


@dataclass(frozen=True)
class Learner:
    """What is trained: ``small-gpt``, the joint chart of the space ``kv``, and ``bidirectional``; by default ``none``
    is the scorer, which has no weights."""

    latents: int = 8
    """T."""
    dim: int = 64
    """D."""
    width: int = 192
    layers: int = 2
    contrast: int = 64
    """Width of the contrastive objective."""
    given: int | None = None
    """Parameters of another assistant, in place of ``small-gpt``'s."""

    def reading(self, shape: Shape) -> int:
        """Weights that a question's position is multiplied with; they grow with H."""
        return self.given or shape.hidden * self.width + self.layers * 12 * self.width**2

    @property
    def writing(self) -> int:
        """Weights that a latent is multiplied with."""
        return self.given or 2 * self.dim * self.width + self.layers * 12 * self.width**2

    def assistant(self, shape: Shape) -> int:
        """Parameters of ``small-gpt``: two projections in, a head, its blocks, and tables of places, slots, means and
        scales."""
        if self.given is not None:
            return self.given
        width, dim = self.width, self.dim
        read = (shape.hidden + dim + 2) * width
        blocks = self.layers * (12 * width**2 + 13 * width)
        out = 2 * width + (width + 1) * dim
        return read + blocks + out + DIRECTIONS * width + self.latents * (width + 2 * dim)

    def chart(self, shape: Shape) -> int:
        """A direction among everything that a position caches, for each of D numbers of a latent."""
        return self.dim * shape.cached

    def contrastive(self, shape: Shape) -> int:
        """A norm and a projection of the question's state, and a projection of a chain."""
        return 2 * shape.hidden + (shape.hidden + self.latents * self.dim + 2) * self.contrast

    def trained(self, shape: Shape) -> int:
        """All of them."""
        return self.assistant(shape) + self.chart(shape) + self.contrastive(shape)
