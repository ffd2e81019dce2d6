"""What keeps code in: namespaces, Landlock, seccomp, limits. It knows nothing of queues and verdicts."""
