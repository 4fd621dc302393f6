#!/usr/bin/env bash
# TRL 1.16.0, GRPOTrainer with beta > 0 and all defaults: the KL term that is logged is exp(d) - d - 1 (d: reference minus
# policy log-probability of a token), and the gradient that is taken is not that term's. On-policy, where the ratio is
# exactly 1, the term is multiplied by the ratio all the same (use_bias_correction_kl, on by default), and the ratio has a
# gradient. So a token pulls with -d where GRPO's published estimator pulls with 1 - exp(d). The two agree only near d = 0;
# at d = -2 they are 2.0 and 0.86. Guess before the run: "on-policy the option changes nothing, since the ratio is 1".
#
# Seen with trl 1.16.0, transformers 5.17.0, torch 2.13.0 (CPU):
#   d = -2: default 2.0000, without the option 0.8647, 1 - exp(d) = 0.8647
#   d = +1: default -1.0000, without the option -1.7183, 1 - exp(d) = -1.7183
# Fails when a later version behaves differently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.17.0 trl==1.16.0 datasets accelerate
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import math

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

words = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1, "b": 2}, unk_token="a"))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>")
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=3, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, eos_token_id=0
    )
)
model.save_pretrained("model")
tokenizer.save_pretrained("model")


def pull(d: float, **options) -> float:
    """The gradient of TRL's loss by the log-probability of one token of advantage 0, for beta = 1."""
    args = GRPOConfig(
        output_dir="out", beta=1.0, num_generations=2, per_device_train_batch_size=2, use_cpu=True, bf16=False,
        report_to=[], **options,
    )
    trainer = GRPOTrainer(
        model="model", reward_funcs=lambda completions, **_: [0.0] * len(completions), args=args,
        train_dataset=Dataset.from_list([{"prompt": "a"}]), processing_class=tokenizer,
    )
    logps = torch.tensor([[-3.0]], requires_grad=True)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logps, torch.zeros(1, 1), None)
    trainer.current_gradient_accumulation_steps = 1
    one = torch.ones(1, 1, dtype=torch.long)
    loss = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": one, "prompt_mask": one, "completion_ids": one, "completion_mask": one,
            "advantages": torch.zeros(1), "ref_per_token_logps": logps.detach() + d, "num_items_in_batch": one.sum(),
        },
    )
    assert abs(loss.item() - (math.exp(d) - d - 1)) < 1e-5, "the value is that of the estimator, whatever the option"
    loss.backward()
    return logps.grad.item()


for d in (-2.0, 1.0):
    default, without = pull(d), pull(d, use_bias_correction_kl=False)
    print(f"d = {d:+.0f}: default {default:.4f}, without the option {without:.4f}, 1 - exp(d) = {1 - math.exp(d):.4f}")
    assert abs(default + d) < 1e-5, "changed: the default's gradient is no longer -d"
    assert abs(without - (1 - math.exp(d))) < 1e-5, "changed: the option off no longer gives the estimator's gradient"
PYTHON
