"""What tools/fault_test.py does to a training, and how it looks at the run folder afterwards."""
