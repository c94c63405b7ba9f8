"""Everything that happens before serving: generators, training, graph export, engines, verification."""
