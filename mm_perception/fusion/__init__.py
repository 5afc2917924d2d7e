"""One tick without ROS: health, consistency, fusion, what stands in."""
