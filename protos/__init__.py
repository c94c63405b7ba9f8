"""The wire contract: `ganforge.proto` and the modules generated from it (`python -m protos.compile`)."""
