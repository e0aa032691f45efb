"""Doing a study: choose, calibrate, plan, steer, grade, detect; the pure half of each step beside the doing."""
