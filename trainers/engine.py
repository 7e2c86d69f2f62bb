"""One model in a DeepSpeed engine, on a CPU or a GPU, on one rank or many."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from stkd.trainers.batches import Batch
from stkd.trainers.checkpoints import BackgroundWriter
from stkd.trainers.config import TrainingConfig
from stkd.trainers.errors import UserError
from stkd.trainers.families import family_of
from stkd.trainers.lean_imports import unimportable
from stkd.trainers.patience import patiently
from stkd.trainers.ranks import Ranks, join
from stkd.trainers.specs import written
from stkd.trainers.vocabulary import TrainedRows

with unimportable("mlflow"):  # its autotuner would import it: seconds in every rank, for nothing
    import deepspeed


class Engine:
    """Forward, backward and step of one model. All keys of `overrides` reach DeepSpeed's own configuration."""

    def __init__(
        self,
        model: PreTrainedModel,
        training: TrainingConfig,
        total_steps: int,
        ranks: Ranks,
        overrides: Mapping[str, Any],
    ) -> None:
        if not family_of(model).autocast:
            training = _in_fp32(training, model)
        join(ranks)
        optimizer = torch.optim.AdamW(_parameter_groups(model, training), lr=training.learning_rate, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, round(training.warmup * total_steps), total_steps)
        table = model.get_input_embeddings()
        self._rows = table if isinstance(table, TrainedRows) else None
        self._rank = ranks.rank
        self._optimizer, self._weight_decay = optimizer, training.weight_decay
        self._micro_batch_share = ranks.size * training.accumulation
        settings = deepspeed_settings(training, ranks, overrides)
        alone = ranks.size == 1 and not settings["zero_optimization"].get("stage")
        self._clipping = settings["gradient_clipping"] if alone else 0.0
        if alone:  # DeepSpeed clips weight by weight, and to 1 where it is told nothing: a twentieth of a small step
            settings["gradient_clipping"] = 0.0
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, lr_scheduler=schedule, config=settings, dist_init_required=False
        )
        if alone:  # it would copy all gradients into buckets and back: a fifth of a small step
            self._engine.enable_backward_allreduce = False
        self._writer = self._engine.checkpoint_engine = BackgroundWriter(self._engine._config)

    @property
    def model(self) -> PreTrainedModel:
        """The model as it stands."""
        model: PreTrainedModel = self._engine.module
        return model

    def train(self, on: bool = True) -> None:
        """Switch dropout on or off."""
        self._engine.train(on)

    def logits(self, batch: Batch) -> Tensor:
        """Raw logits of a batch, (B, C)."""
        logits: Tensor = self._engine(**batch.inputs).logits
        return logits

    def backward(self, loss_sum: Tensor, count: int) -> None:
        """Add the gradient of one micro-batch: its summed loss over the number of examples in the *global* batch.

        DeepSpeed divides by the accumulation steps and averages over the ranks; multiplied back here, so that the only
        division is the one by `count`.
        """
        self._engine.backward(loss_sum * (self._micro_batch_share / count))

    def step(self) -> None:
        """End a micro-batch; at the last one of a global batch the weights move."""
        learning_rate = self._optimizer.param_groups[0]["lr"]
        moves = self._engine.is_gradient_accumulation_boundary()
        if moves and self._clipping:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._clipping)
        self._engine.step()
        if moves and self._rows is not None:
            self._rows.stepped(learning_rate * self._weight_decay)

    def save(self, folder: Path) -> None:
        """Copy weights, optimizer and schedule, to be written in DeepSpeed's own format. Every rank calls it.

        The training may go on meanwhile; `stkd.trainers.specs.is_whole` says when everything is there.
        """
        self._writer.wait()
        self._engine.save_checkpoint(str(folder), tag="engine")
        self._writer.then(lambda: patiently(written(folder, self._rank).touch, folder))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote; trusted folders only, since DeepSpeed unpickles."""
        self._engine.load_checkpoint(str(folder), tag="engine")

    def close(self) -> None:
        """Release what the engine holds, when everything is written; the model stays usable."""
        self._writer.close()
        self._engine.destroy()


def deepspeed_settings(training: TrainingConfig, ranks: Ranks, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSpeed's configuration for a job: ZeRO 0 for one rank (as fast as plain PyTorch), 1 for several."""
    micro_batch = max(1, training.batch_size // (ranks.size * training.accumulation))
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": training.accumulation,
        "gradient_clipping": training.gradient_clipping,
        "zero_optimization": {"stage": 0 if ranks.size == 1 else 1},
        "torch_autocast": {"enabled": computes_in_bf16(training, ranks.device), "dtype": "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
    }
    return settings | dict(overrides)


def computes_in_bf16(training: TrainingConfig, device: torch.device) -> bool:
    """Whether forward passes run in bf16: as asked, or where the hardware has it; emulated, it is slower than fp32."""
    if training.precision != "auto":
        return training.precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _in_fp32(training: TrainingConfig, model: PreTrainedModel) -> TrainingConfig:
    if training.precision == "bf16":
        raise UserError(
            f"training.precision is bf16, which models of the family {model.config.model_type!r} cannot compute in; "
            "set auto or fp32"
        )
    return training.model_copy(update={"precision": "fp32"})


def _parameter_groups(model: PreTrainedModel, training: TrainingConfig) -> list[dict[str, Any]]:
    named = list(model.named_parameters())
    plain = [parameter for name, parameter in named if not decays(name, parameter)]
    decayed = [parameter for name, parameter in named if decays(name, parameter)]
    return [{"params": decayed, "weight_decay": training.weight_decay}, {"params": plain, "weight_decay": 0.0}]


def decays(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: to all but norms and biases, of relative positions too.

    Norms and biases are vectors in every family, whatever they are called, but for biases that lie in a table.
    """
    return parameter.ndim > 1 and "bias" not in name
