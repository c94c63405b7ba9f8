"""Network parts that several families share: discriminators, feature networks, initialisations."""
