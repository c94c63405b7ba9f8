"""Speed, measured: through the server, and of the bare engines."""
