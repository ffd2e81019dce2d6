"""The processes in which code runs: zygotes, the children that they fork, and the holders of sessions."""
