"""The image aligner of Art2Mus: a picture's vector becomes tokens that AudioLDM 2's GPT-2 understands.

Source: Rinaldi et al. 2026, section 4.2 and figure 4 (upscaler, projection to N tokens); the layers' sizes and names
are those of the 2024 release, whose checkpoints this network loads as they are. It is the only part of Art2Mus that
is trained (section 4.4); everything behind it is AudioLDM 2 as published.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from networks.checkpoints import CheckpointError, compare_names

# What the paper tried (section 5): 1 in 2024, the others in 2026.
TOKEN_COUNTS = (1, 4, 6, 8, 10, 16)
# GPT-2's width, which the language of audio has too.
TOKEN_SIZE = 768
# ImageBind's vector; a CLIP ViT-B/32 vector is brought to this size first.
STAGING_SIZE = 1024
CLIP_SIZE = 512
HIDDEN_SIZE = 1536


class Upscaler(nn.Module):
    """CLIP's vector in the size of ImageBind's: [B, 512] -> [B, 1024], one linear layer.

    Rinaldi et al. 2026, section 4.2: going through 1024 gave better music than projecting 512 numbers at once. The
    paper names no layers; one linear layer is the plainest reading.
    """

    def __init__(self, in_features: int = CLIP_SIZE, out_features: int = STAGING_SIZE) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, 512] -> [B, 1024]."""
        upscaled: Tensor = self.linear(vectors)
        return upscaled


class ImageAligner(nn.Module):
    """A picture's vector [B, 1024] (ImageBind) or [B, 512] (CLIP ViT-B/32) -> tokens [B, N, 768] for GPT-2.

    Linear(1024, 1536), tanh, Linear(1536, 768 N), cut into N tokens. Parameters (without upscaler): 2,754,816 for
    N = 1, 6,296,064 for N = 4, 20,461,056 for N = 16, as published.

    Args:
        tokens: N, how many tokens stand for the picture.
        vector_size: of the picture's vector; any size but `staging_size` gets an upscaler in front.
        token_size, staging_size, hidden_size: the published sizes, smaller only in tests.
    """

    def __init__(
        self,
        tokens: int = 16,
        vector_size: int = STAGING_SIZE,
        token_size: int = TOKEN_SIZE,
        staging_size: int = STAGING_SIZE,
        hidden_size: int = HIDDEN_SIZE,
    ) -> None:
        super().__init__()
        if tokens < 1:
            raise ValueError(f"an aligner makes at least one token, not {tokens}")
        self.tokens = tokens
        self.vector_size = vector_size
        self.token_size = token_size
        self.upscaler = Upscaler(vector_size, staging_size) if vector_size != staging_size else None
        # These two names are those of the 2024 checkpoint.
        self.projection1 = nn.Linear(staging_size, hidden_size)
        self.projection2 = nn.Linear(hidden_size, token_size * tokens)

    def forward(self, vectors: Tensor) -> Tensor:
        """[B, vector_size] -> [B, N, token_size]. Raises ValueError for vectors of another size."""
        if vectors.ndim != 2 or vectors.shape[1] != self.vector_size:
            raise ValueError(f"this aligner takes [B, {self.vector_size}], not {list(vectors.shape)}")
        if self.upscaler is not None:
            vectors = self.upscaler(vectors)
        projected: Tensor = self.projection2(torch.tanh(self.projection1(vectors)))
        return projected.reshape(-1, self.tokens, self.token_size)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], token_size: int = TOKEN_SIZE) -> ImageAligner:
        """The aligner that a checkpoint holds: N and the kind of vector are read from its shapes.

        Args:
            state: name -> tensor; `projection1` and `projection2` as the 2024 release names them, and
                `upscaler.linear` where the vectors are CLIP's.

        Raises CheckpointError where names or shapes are of no aligner.
        """
        first, second = state.get("projection1.weight"), state.get("projection2.weight")
        if first is None or second is None or first.ndim != 2 or second.ndim != 2 or second.shape[0] % token_size:
            raise CheckpointError(
                f"this is no checkpoint of an image aligner with tokens of {token_size}: it needs projection1.weight "
                f"[hidden, staging] and projection2.weight [{token_size} N, hidden], and holds {sorted(state)[:6]}"
            )
        upscaler = state.get("upscaler.linear.weight")
        aligner = cls(
            tokens=second.shape[0] // token_size,
            vector_size=int((first if upscaler is None else upscaler).shape[1]),
            token_size=token_size,
            staging_size=int(first.shape[1]),
            hidden_size=int(first.shape[0]),
        )
        compare_names(aligner.state_dict(), state, "an image aligner")
        aligner.load_state_dict(dict(state))
        aligner.eval()
        return aligner
