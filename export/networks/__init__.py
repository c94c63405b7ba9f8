"""Network parts that several model families use: layers of discriminators, feature networks, batch-norm statistics."""
