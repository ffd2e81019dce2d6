"""ReTool: reinforcement learning for language models that call a Python interpreter while they reason.

The method is that of "ReTool: Reinforcement Learning for Strategic Tool Use in LLMs" (arXiv 2504.11536).
Importing this package is cheap: torch is loaded by the parts that need it.
"""

__version__ = "0.1.0"
