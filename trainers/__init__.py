"""One training job: data, models, units, scores, losses and the one loop. Needs neither Ray nor MLflow."""
