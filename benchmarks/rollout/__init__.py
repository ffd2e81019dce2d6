"""What `rollout_throughput.py` and `gpu.sh` measure, one file a comparison."""
