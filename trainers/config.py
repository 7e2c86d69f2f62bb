"""The settings of one training job, typed and checked when they are made.

Nothing heavy is imported here: the command line reads these before it decides whether to load torch at all.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Sparsity = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]

KNOWN_FAMILIES = (
    "bert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "mpnet",
    "deberta",
    "deberta-v2",
    "modernbert",
)
"""The encoder families (`model_type` of a checkpoint) that `stkd.trainers.families` declares, told without torch."""


Scorer = Literal["knowledge", "expressiveness", "friendliness", "magnitude", "random"]


class Config(BaseModel):
    """Base of all settings: frozen, no unknown keys, no silent conversion of types, no infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class TrainingConfig(Config):
    """How a model is trained, teacher and student alike."""

    epochs: PositiveInt = 3
    patience: PositiveInt | None = None
    """Stop after so many evaluations without a better score; null trains to the end."""
    batch_size: PositiveInt = 16
    """Examples in one optimizer step, over all ranks and accumulation steps together."""
    accumulation: PositiveInt = 1
    """Micro-batches that one rank sums before an optimizer step."""
    learning_rate: PositiveFloat = 5.0e-5
    warmup: Fraction = 0.1
    """Share of all steps in which the learning rate rises linearly; it then falls linearly to zero."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    gradient_clipping: PositiveFloat = 1.0
    max_length: PositiveInt = 128
    """Tokens after which a text is cut."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto` is bf16 where the hardware computes it natively, fp32 elsewhere."""
    seed: Annotated[int, Field(ge=0)] = 776


class DistillationConfig(Config):
    """What of the teacher the student learns from. Terms as in Yang, Zhang, Song (EMNLP 2022)."""

    interpolation: Fraction = 0.5
    """lambda: knowledge = lambda * expressiveness + (1 - lambda) * friendliness."""
    sparsity: Sparsity = 0.0
    """Share of the teacher's heads, and of its neurons, removed."""
    head_sparsity: Sparsity | None = None
    """Share of the heads removed, where it is not `sparsity`."""
    neuron_sparsity: Sparsity | None = None
    """Share of the neurons removed, where it is not `sparsity`."""
    neuron_multiple: PositiveInt = 1
    """Each layer loses a multiple of so many neurons, as near to its own share as can be: 8 suits tensor cores."""
    scorer: Scorer = "knowledge"
    """What units are ranked by; `knowledge` mixes expressiveness and friendliness, the others take no interpolation."""
    temperature: PositiveFloat = 2.0
    hard_weight: Fraction = 0.5
    """Weight of the loss against the labels; the rest goes to the loss against the teacher."""


class ScoringConfig(Config):
    """On which data, and at which temperature of the distillation loss, the teacher's units are scored."""

    examples: PositiveInt | None = 2048
    """The first so many training examples of a seeded shuffle; null scores on all of them."""
    temperature: PositiveFloat = 2.0
    batch_size: PositiveInt = 32
    reduction: Literal["example", "batch"] = "example"
    """Absolute values are taken of each example's gradient, or of a batch's mean gradient as the paper's code does."""


class StudentConfig(Config):
    """What the student is, and where its initial weights come from."""

    init: Literal["drop_layers", "prune_units", "pretrained"] = "drop_layers"
    """Some of the teacher's layers; all of them, without the heads and neurons that the task needs least; or another
    encoder, of any family and with a tokenizer of its own."""
    layers: PositiveInt = 3
    """`drop_layers`: how many of the teacher's layers."""
    keep: Literal["first", "last", "even"] = "first"
    """`drop_layers`: which of them."""
    sparsity: Sparsity = 0.7
    """`prune_units`: the share of the teacher's heads, and of its neurons, that the student lacks."""
    model: str | None = None
    """`pretrained`: a hub id, a local folder, or `package:NAME/FOLDER`."""


class DataConfig(Config):
    """Where a task's examples come from."""

    source: Literal["hub", "glue_dir", "generated"] = "hub"
    path: str | None = None
    """`glue_dir`: the folder with one sub-folder per task (`MRPC/train.tsv`, ...). `hub`: the data set's name."""
    selection: Literal["held_out", "official"] = "held_out"
    """What students are chosen by: examples held out from training, so that the source's validation split is a test
    that nothing was chosen by; or `official`, that validation split itself, as in the paper."""
    selection_examples: PositiveInt | None = None
    """How many are held out; null takes a tenth, and at most 2,000."""
    train_examples: PositiveInt | None = None
    """Only the first so many training examples of a seeded shuffle; null takes all."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the generated task and of the sample of training examples."""
