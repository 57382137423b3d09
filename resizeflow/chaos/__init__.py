"""The crash laboratory: every point of every flow, killed, on a simulated cloud (`resizeflow chaos`)."""
