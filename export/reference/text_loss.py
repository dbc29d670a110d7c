"""The loss of a checkpoint on a few sequences: what its quantised form's is compared with, and whether it knows the text at all."""

from __future__ import annotations

import torch
from torch import Tensor

from lcsb_mobile.bundle.batch import IGNORED_LABEL, Batch
from lcsb_mobile.export.checkpoints.hugging_face import Checkpoint
from lcsb_mobile.export.models import head_name
from lcsb_mobile.export.reference.float_model import final_states, head_logits
from lcsb_mobile.export.weights.calibrate import ROWS_AT_ONCE, embedding_rows

LOGITS_AT_ONCE = 2**24  # 64 MB of them


def text_batch(tokens: Tensor) -> Batch:
    """Sequences int64 [S, T] as one batch, each a segment. All tokens but a sequence's first are predicted."""
    sequences, length = tokens.shape
    labels = torch.cat([tokens[:, 1:], tokens.new_full((sequences, 1), IGNORED_LABEL)], 1)
    positions = torch.arange(length).repeat(sequences)
    segments = torch.arange(sequences).repeat_interleave(length)
    return Batch(*(x.flatten().numpy() for x in (tokens, labels, positions, segments)))


@torch.no_grad()
def float_loss(checkpoint: Checkpoint, batch: Batch) -> float:
    """Mean cross-entropy over the counted labels, in nats. Of embedding and head a part is in memory at a time, of the logits too."""
    ids, labels, *places = (torch.from_numpy(x) for x in (batch.input_ids, batch.labels, batch.position_ids, batch.segment_ids))
    needed, index = torch.unique(ids, return_inverse=True)
    counted = labels != IGNORED_LABEL
    config = checkpoint.config
    x = final_states(config, checkpoint.read, embedding_rows(checkpoint, needed)[index], *places)[counted]  # (C, D)
    labels, vocabulary = labels[counted], config.vocab_size
    total, target = torch.full((len(x),), -torch.inf), torch.empty(len(x))
    step = min(ROWS_AT_ONCE, max(1, LOGITS_AT_ONCE // max(1, len(x))))
    for start in range(0, vocabulary, step):
        logits = head_logits(config, x, checkpoint.read_rows(head_name(config), start, min(start + step, vocabulary)))
        total = torch.logaddexp(total, logits.logsumexp(1))
        here = (labels >= start) & (labels < start + step)
        target[here] = logits[here, labels[here] - start]
    return float((total - target).mean())
