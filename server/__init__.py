"""The gRPC server over runtime/, and its clients. Never imports torch nor export/."""
