"""What a rank's process imports first: the training package, where neither Ray nor MLflow can be imported."""

import sys

sys.modules |= dict.fromkeys(("ray", "mlflow"))

import transformers.models.bert.modeling_bert  # noqa: E402, F401

import stkd.trainers.worker  # noqa: E402, F401
