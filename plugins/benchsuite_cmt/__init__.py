"""CMT (2023): 3-D detection by one decoder over camera and LiDAR tokens that carry their 3-D coordinates."""
