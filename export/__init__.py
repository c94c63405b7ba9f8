"""Everything that happens before serving: model families, training, evaluation, reading checkpoints, building bundles."""
