"""Policies: build the tiny one, load any, save safely.

The tiny policy is a Qwen2-architecture causal language model of about 0.3M parameters with a byte-level BPE
tokenizer. The tokenizer splits text at line breaks only, so that frequent phrases and whole program lines become
single tokens: a plan is about ten tokens and a program fewer, which is what makes RL on one CPU thread practical.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from cppo_lib.errors import ModelError

EOS, PAD = "<|end|>", "<|pad|>"


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer in which a token may span words but not lines or list numbers.

    Args:
        texts: the training corpus.
        vocab_size: upper bound on the number of tokens, bytes and special tokens included.
    """
    tokenizer = Tokenizer(models.BPE())
    # "2. " and a line break stay apart from what follows, so that a method is the same token in every slot.
    pieces = pre_tokenizers.Split(Regex(r"\n?\d\. |\n|(?<= )\d"), behavior="isolated")
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


def load_policy(name: str | Path, *, dtype: str = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer from a local folder or a hub id.

    Raises:
        ModelError: the folder lacks weights or tokenizer files, or the hub id cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
            raise ModelError(
                f"{folder} holds no model weights (*.safetensors): train the policy or name another folder"
            )
        if not (folder / "tokenizer_config.json").is_file():
            raise ModelError(
                f"{folder} holds no tokenizer (tokenizer_config.json): save the tokenizer beside the weights"
            )
    elif folder.is_absolute() or str(name).startswith("."):
        raise ModelError(f"model folder {folder} does not exist")
    try:
        tokenizer = load_tokenizer(name)
        model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"cannot load model {str(name)!r} ({reason}): name a local folder or a reachable hub id"
        ) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or hub id, padding on the left."""
    # AutoTokenizer gives every Qwen2-architecture model Qwen2's own pre-tokenizer, whatever was saved beside it;
    # a tokenizer that was saved as a plain `tokenizers` file is loaded as just that.
    plain = get_tokenizer_config(name).get("tokenizer_class") in (
        "TokenizersBackend",
        "PreTrainedTokenizerFast",
    )
    loader = PreTrainedTokenizerFast if plain else AutoTokenizer
    return loader.from_pretrained(name, padding_side="left")


def save_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model and tokenizer; the folder appears whole or not at all and replaces an older one."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
