"""What happens beyond one machine: a simulation of the scheduler, its plots, and measurements to hold against it."""
