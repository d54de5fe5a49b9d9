"""Driving scenes with cameras, LiDAR and boxes: nuScenes, and generated ones in its formats."""
