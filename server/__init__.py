"""The server (core service and gRPC front), the Python client and the command line. Imports neither torch nor export/."""
