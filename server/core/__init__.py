"""The core service, which knows no protocol: calls, the path of a picture through them, codec threads. `Service` is the door."""
