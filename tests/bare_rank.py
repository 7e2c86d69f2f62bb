"""What a rank's process imports first: the training package, where neither Ray nor MLflow can be imported."""

import sys

for name in ("ray", "mlflow"):
    sys.modules[name] = None  # type: ignore[assignment]  # the import system's own sign for a module that is not there

import transformers.models.bert.modeling_bert  # noqa: E402, F401

import stkd.trainers.worker  # noqa: E402, F401
