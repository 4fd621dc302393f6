"""The tiny policy, made from scratch: a Qwen2-architecture causal language model of about 0.3M parameters.

Its byte-level BPE tokenizer splits text at line breaks only, so that frequent phrases and whole program lines become
single tokens: a plan is about ten tokens and a program fewer, which is what makes RL on one CPU thread practical.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

EOS, PAD = "<|end|>", "<|pad|>"


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer in which a token may span words but not lines, list numbers or labels.

    Args:
        texts: the training corpus.
        vocab_size: upper bound on the number of tokens, bytes and special tokens included.
    """
    tokenizer = Tokenizer(models.BPE())
    # "2. ", "B: " and a line break stay apart from what follows, so that a method is the same token in every slot.
    pieces = pre_tokenizers.Split(Regex(r"\n?\d\. |\n?\b[A-Z]: |\n|(?<= )\d"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, padding_side="left")


def build_model(
    tokenizer: PreTrainedTokenizerBase, *, hidden_size: int, layers: int, heads: int, seed: int
) -> PreTrainedModel:
    """A randomly initialised Qwen2-architecture model for this tokenizer (tied embeddings, float32)."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.1,  # the usual 0.02 makes a model this small slow to start
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    return Qwen2ForCausalLM(config)
