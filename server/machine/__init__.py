"""What the machine gives this process: memory, open files, addresses."""
