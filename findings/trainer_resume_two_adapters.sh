#!/usr/bin/env bash
# transformers 5.17.0 with PEFT 0.21.2: a Trainer that resumes a model with two adapters leaves "default" at its start.
#
# Guess: resume_from_checkpoint loads every adapter that the checkpoint holds. Seen: PEFT saves the adapter "default" in
# the checkpoint's own folder and every other one in a folder of its name below it. As soon as there is such a folder,
# Trainer._load_from_checkpoint loads those in folders only, without a word about "default", the adapter that is being
# trained. TRL's GRPOTrainer makes such a checkpoint whenever beta is above 0 on a PeftModel, since the reference policy
# is an adapter "ref": such runs go on from the start policy with the optimiser's state of another one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 2>/dev/null
"$folder/venv/bin/pip" install --quiet transformers==5.17.0 peft==0.21.2 accelerate==1.15.0 2>/dev/null
cd "$folder"
cat > resume.py <<'PYTHON'
import sys

import peft
import torch
import transformers
from transformers import Qwen2Config, Qwen2ForCausalLM, Trainer, TrainingArguments


def model(names):
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    base = Qwen2ForCausalLM(Qwen2Config(**sizes, num_attention_heads=2, num_key_value_heads=2))
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(base, config)
    for name in names:
        adapted.add_adapter(name, config)
    adapted.set_adapter("default")
    return adapted


def trainer(adapted, steps, folder):
    rows = [{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}] * 8
    args = TrainingArguments(
        folder, max_steps=steps, save_steps=2, learning_rate=0.1, report_to=[], use_cpu=True, disable_tqdm=True,
        per_device_train_batch_size=2,
    )
    return Trainer(adapted, args, train_dataset=rows)


def trained(adapted):
    return next(p for n, p in adapted.named_parameters() if "lora_B.default" in n).detach().clone()


def kept(names, folder):
    """Is the trained adapter that of the checkpoint right after it was loaded?"""
    first = model(names)
    trainer(first, 2, folder).train()
    again = model(names)
    trainer(again, 4, folder)._load_from_checkpoint(f"{folder}/checkpoint-2", model=again)
    assert trained(first).abs().max() > 0
    return torch.equal(trained(first), trained(again)), trained(again).abs().max().item()


print("transformers", transformers.__version__, "peft", peft.__version__)
alone, _ = kept([], "alone")
beside, largest = kept(["ref"], "beside")
print(f"one adapter:        default loaded {alone}")
print(f"default and 'ref':  default loaded {beside}, its largest weight {largest}")
sys.exit(0 if alone and not beside else "CHANGED")
PYTHON
"$folder/venv/bin/python" resume.py 2>&1 | grep -v Warning
